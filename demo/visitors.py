"""The page as a whole: what it keeps of each visitor, and that it goes when they do."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from .shared import CLEAN_EVERY, KEEP_FOR

NO_ADDRESS = "Web addresses are not fetched here. Download the file and send the file itself."
FORGOTTEN = CLEAN_EVERY + KEEP_FOR  # seconds; the files are gone by then


@dataclass
class Visitor:
    """One open page and the paths of its files: what it sent and what it was given."""

    files: set[str] = field(default_factory=set)
    running: int = 0
    left: bool = False
    seen: float = field(default_factory=time.monotonic)


class Page(gr.Blocks):
    """Blocks that fetch no web address and remove a visitor's files when the visitor leaves.

    Gradio alone would fetch any address that a program sends as a file, and would keep files until
    they are old. Those that are old go all the same: `delete_cache` sees to it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(delete_cache=(CLEAN_EVERY, KEEP_FOR), **options)
        self._visitors: dict[str, Visitor] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "mcp_server_obj" and value is not None:
            self._keep_account(value)
        super().__setattr__(name, value)

    def _keep_account(self, mcp: Any) -> None:
        # Gradio writes what an MCP tool is sent to a file that nothing would ever remove.
        convert = mcp.convert_strings_to_filedata

        def noted(value: Any, positions: Any) -> Any:
            converted = convert(value, positions)
            self.upload_file_set.update(files_in(converted))
            return converted

        mcp.convert_strings_to_filedata = noted

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kw: Any) -> Any:
        """As Gradio's, but an address in the place of a file is refused."""
        if any(map(has_address, inputs)):
            raise gr.Error(NO_ADDRESS, print_exception=False)
        return await super().preprocess_data(block_fn, inputs, *args, **kw)

    async def process_api(
        self, block_fn: Any, inputs: list[Any], *args: Any, **kw: Any
    ) -> dict[str, Any]:
        """As Gradio's, noting whose files come and go; the last call of one who left removes."""
        session = kw.get("session_hash")
        visitor = self._visitor(session)
        visitor.running += 1
        try:
            visitor.files.update(files_in(inputs))
            answer = await super().process_api(block_fn, inputs, *args, **kw)
            visitor.files.update(files_in(answer.get("data")))
            return answer
        finally:
            visitor.running -= 1
            if session and visitor.left and not visitor.running:
                self._remove(session)

    def forget(self, request: gr.Request) -> None:
        """What `unload` calls when a visitor has closed the page or the connection is lost."""
        self._visitor(request.session_hash).left = True

    def _visitor(self, session: str | None) -> Visitor:
        if session is None:
            return Visitor()
        now = time.monotonic()
        if session not in self._visitors:  # a program need not say that it leaves
            old = [key for key, one in self._visitors.items() if now - one.seen > FORGOTTEN]
            for key in old:
                del self._visitors[key]
        visitor = self._visitors.setdefault(session, Visitor())
        visitor.seen, visitor.left = now, False
        return visitor

    def _remove(self, session: str) -> None:
        gone = self._visitors.pop(session).files
        # One file serves all who sent the same picture, and examples serve everybody.
        for other in self._visitors.values():
            gone -= other.files
        for component in self.blocks.values():
            gone -= getattr(component, "keep_in_cache", set())
        for files in self.temp_file_sets:  # what Gradio knows to be the page's own
            for path in gone & files:
                with contextlib.suppress(OSError):
                    Path(path).unlink(missing_ok=True)
                files.discard(path)
        self.state_holder.delete_state(session)


def has_address(value: Any) -> bool:
    """Whether a file somewhere in what was sent is given by its web address."""
    if isinstance(value, dict):
        path = value.get("path")
        given = isinstance(path, str) and re.match(r"\s*[a-z][a-z0-9+.-]+:/", path, re.IGNORECASE)
        return bool(given) or any(map(has_address, value.values()))
    return isinstance(value, (list, tuple)) and any(map(has_address, value))


def files_in(value: Any) -> set[str]:
    """The paths in Gradio's folder that stand somewhere in nested lists and dictionaries."""
    folder = str(Path(get_upload_folder()).absolute())
    return {text for text in _texts(value) if text.startswith(folder)}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
