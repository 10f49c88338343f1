"""The files of visitors: where they lie, who may read them, and that they go."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path

MAX_SESSIONS = 100  # of which something is kept, such as the last photo for redrawing
CLEAN_EVERY, KEEP_FOR = 600, 3000  # seconds; an upload is gone within the hour
ROOM = 2 * 10**9  # bytes that uploads leave free on their disk, or a tenth of a small one
FILLING = 60  # seconds for which Gradio may be filling a new folder
TOKEN = 16  # bytes in the name of a file's folder
NOT_IN_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\ud800-\udfff]')
LONGEST_NAME = 140  # bytes: encrypted file systems take 143, and Windows counts the folder's too

# The files that the call which runs here has written; a call's threads see those of the call.
written: ContextVar[list[str] | None] = ContextVar("written", default=None)


def upload_folder() -> Path:
    """Where Gradio keeps uploads, and serves and removes what is written for visitors; the page's
    own, in which nothing else lies."""
    return Path(os.environ["GRADIO_TEMP_DIR"])


def make_upload_folder() -> None:
    """Make that folder, for no other user of this machine to read.

    Raises:
        OSError: it cannot be made, or another user has made it.
    """
    folder = upload_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid"):
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(
                f"the folder for uploads, {folder}, is another user's: set GRADIO_TEMP_DIR to a "
                "folder of your own"
            )
        folder.chmod(0o700)


def has_room() -> bool:
    """Whether the disk that holds uploads has room for more of them."""
    try:
        disk = shutil.disk_usage(upload_folder())
    except OSError:  # Gradio makes a folder that has gone
        return True
    return disk.free > min(ROOM, disk.total // 10)


def keep_file(name: str, content: bytes) -> str:
    """Write a file for one visitor where Gradio serves and later removes it; returns its path."""
    folder = upload_folder() / secrets.token_hex(TOKEN)  # nobody can guess another's
    folder.mkdir(mode=0o700, parents=True)
    path = folder / file_name(name)
    if (own := written.get()) is not None:
        own.append(str(path))
    path.write_bytes(content)
    return str(path)


def remove_file(path: str) -> None:
    """Remove a file, if it is still there, and the folder that `keep_file` made for it."""
    with suppress(OSError):
        Path(path).unlink(missing_ok=True)
    remove_folder(path)


def remove_folder(path: str) -> None:
    """Remove the folder that `keep_file` made for a file, once that has gone."""
    folder = Path(path).parent
    if len(folder.name) == 2 * TOKEN:  # Gradio's own have longer names
        with suppress(OSError):
            folder.rmdir()


def sweep() -> None:
    """Remove what nobody has needed for an hour, and empty folders.

    Gradio removes what it knows of. It does not know of an upload that was broken off, nor of what
    a process that was killed has left.
    """
    for path in _within(upload_folder()):
        age = _age(path)
        for file in _within(path) or [path]:
            if _age(file) > KEEP_FOR:
                with suppress(OSError):
                    file.unlink()
        if age > FILLING:
            with suppress(OSError):
                path.rmdir()


def _within(folder: Path) -> list[Path]:
    try:
        return [] if folder.is_symlink() else list(folder.iterdir())
    except OSError:  # it is a file, or has gone
        return []


def _age(path: Path) -> float:
    """Seconds since a file was written or touched; 0 for one that has gone."""
    try:
        told = path.lstat()
    except OSError:
        return 0.0
    return time.time() - max(told.st_mtime, told.st_ctime)


class Files(set[str]):
    """Paths to remove, which may be walked while a call adds to them: Gradio's removal of what is
    old would end for good at the first that comes meanwhile, or at what somebody sends in the place
    of a file."""

    def __iter__(self) -> Iterator[str]:
        for path in frozenset(self):
            if os.path.isfile(path):  # noqa: PTH113  (anybody may send any text: Path would raise)
                yield path
            elif not os.path.lexists(path):
                self.discard(path)  # Gradio would look for it for ever


class Recent(list[str]):
    """Files of one visitor that replace one another. The last two stay: one may be loading."""

    def keep(self, name: str, content: bytes) -> str:
        """As `keep_file`, and removes what was kept here before the last time."""
        path = keep_file(name, content)
        self.append(path)
        while len(self) > 2:
            remove_file(self.pop(0))
        return path


def file_name(name: str) -> str:
    """`name` as every file system takes it: what none forbids stays, a long stem is cut."""
    name = NOT_IN_NAMES.sub("_", name).strip(". ")
    if len(name.encode()) > LONGEST_NAME:
        suffix = Path(name).suffix.encode()[-20:]
        stem = Path(name).stem.encode()[: LONGEST_NAME - len(suffix)]
        name = (stem + suffix).decode(errors="ignore")
    return name or "file"
