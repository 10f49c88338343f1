"""The page as a whole: what it keeps for each visitor, and its removal when they leave."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.exceptions import InvalidPathError
from pydantic import ValidationError

from .files import (
    CLEAN_EVERY,
    KEEP_FOR,
    Files,
    make_upload_folder,
    remove_file,
    remove_folder,
    sweep,
    written,
)
from .received import forget_uploads
from .sent import LONGEST_ID, NO_ADDRESS, files_in, has_address, with_own_uploads
from .shared import NotWantedError
from .turns import BATCHES, refusal

NO_FILE = (
    'This is not a file. Send a picture with handle_file("crowd.jpg") of gradio_client, or upload '
    'it and send {"path": what the upload gave, "meta": {"_type": "gradio.FileData"}}.'
)
FORGOTTEN = CLEAN_EVERY + KEEP_FOR  # seconds; the files are gone by then
NEVER = 10**9  # seconds: on Windows Gradio uses the creation time, even for files still needed
LOOK_EVERY = 60.0  # seconds between checks of the files of waiting or running calls
FETCHED_WITHIN = 300.0  # seconds; answers not fetched by then are dropped
UNLIKE_GRADIO = (
    "This version of Gradio is unlike those that the page was made for: %s. Files are removed by "
    "their age alone, within the hour."
)

logger = logging.getLogger(__name__)


@dataclass
class Visitor:
    """One open page and the paths of its files, both sent and received."""

    files: set[str] = field(default_factory=set)
    running: int = 0
    left: bool = False
    seen: float = field(default_factory=time.monotonic)


# The visitor who made the current call; a call's threads share its value.
_asking: ContextVar[Visitor | None] = ContextVar("asking", default=None)


def still_here() -> None:
    """Check that the visitor who made the current call is still there.

    Raises:
        NotWantedError: the visitor has left.
    """
    visitor = _asking.get()
    if visitor is not None and visitor.left:
        raise NotWantedError


class Page(gr.Blocks):
    """Blocks that fetch no web address and remove a visitor's files when the visitor leaves.

    Plain Gradio would fetch any address that a program sends as a file, and keep files until they
    are old. Other parts of this class rely on Gradio internals that may change: if one is missing,
    this is logged, the page still works, and `sweep` still removes old files.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(delete_cache=(CLEAN_EVERY, NEVER), **options)
        self._visitors: dict[str, Visitor] = {}
        self._looked = time.monotonic()
        self._uploads: set[str] = set()
        self._closed = threading.Event()
        make_upload_folder()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "mcp_server_obj" and value is not None:
            with at_best("what MCP tools are sent"):
                self._keep_account(value)
        super().__setattr__(name, value)

    def _keep_account(self, mcp: Any) -> None:
        # Gradio writes what is sent to an MCP tool to a file that nothing would ever remove, and
        # makes assistants refer to their uploads by their address on this server.
        convert = mcp.convert_strings_to_filedata

        def noted(*args: Any, **kw: Any) -> Any:
            converted = with_own_uploads(convert(*args, **kw))
            with at_best("what MCP tools are sent"):
                self.upload_file_set.update(files_in(converted))
            return converted

        mcp.convert_strings_to_filedata = noted

    def launch(self, *args: Any, **kw: Any) -> Any:
        """As Gradio's, but also remove old files regularly, even if there are no calls."""
        self._closed.clear()
        threading.Thread(target=self._tidy, name="old files", daemon=True).start()
        return super().launch(*args, **kw)

    def block_thread(self) -> None:
        """As Gradio's, which would wait for open pages in vain, and then end before their files are
        removed."""
        try:
            while self.is_running:
                time.sleep(0.1)
        except (KeyboardInterrupt, OSError):
            print("Stopping.")
        finally:
            self.close(verbose=False)

    def close(self, *args: Any, **kw: Any) -> None:
        """As Gradio's, but no visitor's file is left, even if a connection stays open."""
        self._closed.set()
        try:
            super().close(*args, **kw)
        finally:
            with at_best("the files that are left"):
                self._remove_files(set().union(*self.temp_file_sets))

    def _tidy(self) -> None:
        while True:
            for component in list(self.blocks.values()):
                for path in list(getattr(component, "keep_in_cache", ())):  # such as examples
                    with contextlib.suppress(OSError):
                        os.utime(path)
            sweep()
            if self._closed.wait(CLEAN_EVERY):
                return

    def queue(self, *args: Any, **kw: Any) -> Any:
        """As Gradio's, but no page or program can take all the places, and calls waiting for counts
        do not block others."""
        page = super().queue(*args, **kw)
        self._queue.max_size = None  # Gradio's limit, for all queues together, is 1 on ZeroGPU
        with at_best("where files are noted"):
            self._let_walk()
        with at_best("whose calls wait"):
            self._share(self._queue)
        return page

    def _let_walk(self) -> None:
        noting = [(one, "temp_files") for one in self.blocks.values() if hasattr(one, "temp_files")]
        noting.append((self, "upload_file_set"))
        kept = {id(files): files for files in self.temp_file_sets}
        for owner, name in noting:
            files = getattr(owner, name)
            kept[id(files)] = Files(files)
            setattr(owner, name, kept[id(files)])
        self.temp_file_sets = list(kept.values())

    def _share(self, queue: Any) -> None:
        push = queue.push

        async def shared(body: Any, *args: Any, **kw: Any) -> Any:
            refused = None
            with at_best("whose calls wait"):
                refused = refusal(queue.event_queue_per_concurrency_id, body, self.fns)
            if refused is not None:
                return False, refused, "queue_full"
            return await push(body, *args, **kw)

        queue.push = shared

    async def process_api(self, *args: Any, **kw: Any) -> Any:
        """As Gradio's, but track each visitor's files; after a visitor has left, the end of their
        last call removes them.

        Raises:
            gr.Error: a file is given by a web address.
        """
        given = [*args, *kw.values()]
        if has_address(given):
            raise gr.Error(NO_ADDRESS, print_exception=False)
        session = kw.get("session_hash")
        visitor = self._visitor(session, goes_on=kw.get("iterator") is not None)
        with at_best("the files that are needed"):
            self._look_after_files()
        visitor.running += 1
        made: list[str] = []
        asking, writing = _asking.set(visitor), written.set(made)
        try:
            visitor.files.update(files_in(given))
            answer = await super().process_api(*args, **kw)
            visitor.files.update(files_in(answer))
            with at_best("what an updated component gives"):
                self._own(files_in(answer))
            return answer
        finally:
            _asking.reset(asking)
            written.reset(writing)
            visitor.files.update(made)  # even those of an abandoned answer
            visitor.seen = time.monotonic()
            with at_best("what a call has written"):
                self._own(set(made))
            visitor.running -= 1
            self._remove_if_gone(session, visitor)
            if session is not None and session == kw.get("event_id"):  # a call without a page
                with at_best("what is kept of calls without a page"):
                    self._drop_session(session)

    async def preprocess_data(self, block_fn: Any, inputs: Any, *args: Any, **kw: Any) -> Any:
        """As Gradio's, but a program may leave out the last inputs, and is told clearly if it did
        not send a file.

        Raises:
            gr.Error: what was sent is not a file.
        """
        inputs = [*inputs, *[None] * (len(block_fn.inputs) - len(inputs))]
        try:
            return await super().preprocess_data(block_fn, inputs, *args, **kw)
        except (ValidationError, InvalidPathError, OSError):
            raise gr.Error(NO_FILE, print_exception=False) from None

    def forget(self, request: gr.Request) -> None:
        """Called by `unload` when a visitor has closed the page or the connection is lost."""
        session = request.session_hash
        visitor = self._visitor(session)
        visitor.left = True
        self._remove_if_gone(session, visitor)

    def _visitor(self, session: str | None, goes_on: bool = False) -> Visitor:
        """The visitor who calls; a further step of a running call (`goes_on`) does not bring back
        one who has left."""
        if session is None or len(session) > LONGEST_ID:
            return Visitor()
        now = time.monotonic()
        if session not in self._visitors:  # a program may leave without notice
            old = [
                key
                for key, one in list(self._visitors.items())  # `forget` runs in a thread
                if not one.running and now - one.seen > FORGOTTEN
            ]
            for key in old:
                for path in self._visitors.pop(key).files:
                    remove_folder(path)  # its files are gone due to their age
        visitor = self._visitors.setdefault(session, Visitor(left=goes_on))
        visitor.seen, visitor.left = now, visitor.left and goes_on
        return visitor

    def _remove_if_gone(self, session: str | None, visitor: Visitor) -> None:
        if session and visitor.left and not visitor.running:
            with at_best("the files of those who left"):
                self._remove(session)

    def _remove(self, session: str) -> None:
        gone = self._visitors.pop(session, Visitor()).files
        # Visitors who sent the same picture share one file, and everyone shares the examples.
        for other in list(self._visitors.values()):
            gone -= other.files
        with at_best("the calls that wait"):
            gone -= self._awaited(session)
        self._remove_files(gone)
        self._drop_session(session)

    def _remove_files(self, gone: set[str]) -> None:
        for component in self.blocks.values():
            gone -= getattr(component, "keep_in_cache", set())
        for files in self.temp_file_sets:  # known to Gradio as the page's own
            for path in gone & files:
                remove_file(path)
                files.discard(path)

    def _drop_session(self, session: str) -> None:
        # Gradio would keep the pictures shown by the page, and count this session among its hundred
        # newest, displacing that of somebody who is still there.
        self.state_holder.delete_state(session)
        self.state_holder.session_data.pop(session, None)
        self.state_holder.time_last_used.pop(session, None)

    def _look_after_files(self) -> None:
        """Once a minute, refresh the age of files needed by waiting or running calls, forget files
        that are gone, and remove empty folders."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        with at_best("the calls that wait"):
            needed = self._awaited("")
            for call in list(self._queue.event_ids_to_events.values()):
                if call.concurrency_id == BATCHES and call.session_hash in self._visitors:
                    needed |= self._visitors[call.session_hash].files  # the thumbnails
            for path in needed & set().union(*self.temp_file_sets):
                with contextlib.suppress(OSError):
                    os.utime(path)
        with at_best("the ids of uploads"):
            self._uploads = forget_uploads(self._uploads)
        with at_best("the answers that nobody fetches"):
            self._drop_answers(now)
        for visitor in list(self._visitors.values()):
            for path in [path for path in list(visitor.files) if not os.path.lexists(path)]:
                visitor.files.discard(path)
                remove_folder(path)

    def _drop_answers(self, now: float) -> None:
        # Gradio would keep the answers of two thousand sessions, megabytes each, for ever.
        queue = self._queue
        asking = {call.session_hash for call in list(queue.event_ids_to_events.values())}
        for session in queue.pending_messages_per_session.keys() - asking:
            visitor = self._visitors.get(session)
            late = visitor is None or now - visitor.seen > FETCHED_WITHIN
            if late and not (visitor and visitor.running):
                queue.pending_messages_per_session.pop(session, None)
                queue.pending_event_ids_session.pop(session, None)

    def _own(self, given: set[str]) -> None:
        # Gradio records files with their component, and loses them once a component was updated.
        known = [path for path in given if any(path in files for files in self.temp_file_sets)]
        self.upload_file_set.update(given.difference(known))

    def _awaited(self, session: str) -> set[str]:
        """The files of waiting calls of other visitors and programs."""
        calls = list(self._queue.event_ids_to_events.values())
        others = [call.data.data for call in calls if call.data and call.session_hash != session]
        return files_in(others)


@contextlib.contextmanager
def at_best(what: str) -> Iterator[None]:
    """Attempt `what`; if it fails because Gradio has changed, log it and carry on."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        logger.warning(UNLIKE_GRADIO, f"{what} ({error})")
