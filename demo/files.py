"""Visitors' files: where they are stored, who may read them, and their removal."""

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

import gradio as gr

MAX_SESSIONS = 100  # whose state is kept, such as the last photo for redrawing
CLEAN_EVERY, KEEP_FOR = 600, 3000  # seconds; an upload is gone within the hour
ROOM = 2 * 10**9  # bytes that uploads leave free on their disk, or a tenth of a small disk
FILLING = 60  # seconds during which Gradio may still be filling a new folder
NO_ROOM = (
    "The server's disk is full at the moment. Please try again later: uploads are removed within "
    "the hour."
)
TOKEN = 16  # bytes in the name of a file's folder
NOT_IN_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\ud800-\udfff]')
LONGEST_NAME = 140  # bytes: encrypted file systems allow 143, and Windows counts the folder too

# The files written by the current call; a call's threads share its list.
written: ContextVar[list[str] | None] = ContextVar("written", default=None)


def upload_folder() -> Path:
    """The folder where Gradio keeps uploads, and serves and removes files written for visitors; it
    belongs to the page and contains nothing else."""
    return Path(os.environ["GRADIO_TEMP_DIR"])


def make_upload_folder() -> None:
    """Create the upload folder, readable by no other user of this machine.

    Raises:
        OSError: it cannot be created, or it belongs to another user.
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
    """Whether the disk that holds uploads has room for more."""
    try:
        disk = shutil.disk_usage(upload_folder())
    except OSError:  # Gradio recreates a missing folder
        return True
    return disk.free > min(ROOM, disk.total // 10)


def keep_file(name: str, content: bytes) -> str:
    """Write a visitor's file where Gradio serves it and later removes it, and return its path.

    Raises:
        gr.Error: the disk has no room.
    """
    if not has_room():
        raise gr.Error(NO_ROOM, print_exception=False)
    folder = upload_folder() / secrets.token_hex(TOKEN)  # cannot be guessed by others
    folder.mkdir(mode=0o700, parents=True)
    path = folder / file_name(name)
    if (own := written.get()) is not None:
        own.append(str(path))
    path.write_bytes(content)
    return str(path)


def remove_file(path: str) -> None:
    """Remove a file, if it still exists, and the folder that `keep_file` made for it."""
    with suppress(OSError):
        Path(path).unlink(missing_ok=True)
    remove_folder(path)


def remove_folder(path: str) -> None:
    """Remove the folder that `keep_file` made for a file, if the file is gone."""
    folder = Path(path).parent
    if len(folder.name) == 2 * TOKEN:  # Gradio's own have longer names
        with suppress(OSError):
            folder.rmdir()


def sweep() -> None:
    """Remove files that nobody has needed for an hour, and empty folders.

    Gradio removes the files it knows of, which do not include those of aborted uploads or of a
    killed process.
    """
    paths = _within(upload_folder())
    # Gradio moves an upload's files into folders once the last has arrived, maybe hours later.
    arriving = any(path.is_file() and _age(path) <= KEEP_FOR for path in paths)
    for path in paths:
        age = _age(path)
        for file in _within(path) or [path]:
            if _age(file) > KEEP_FOR and not (arriving and file == path):
                with suppress(OSError):
                    file.unlink()
        if age > FILLING:
            with suppress(OSError):
                path.rmdir()


def _within(folder: Path) -> list[Path]:
    try:
        return [] if folder.is_symlink() else list(folder.iterdir())
    except OSError:  # it is a file, or is gone
        return []


def _age(path: Path) -> float:
    """Seconds since a file was written or touched; 0 if it is gone."""
    try:
        told = path.lstat()
    except OSError:
        return 0.0
    return time.time() - max(told.st_mtime, told.st_ctime)


class Files(set[str]):
    """Paths to remove; iterating is safe while a call adds more. With a plain set, Gradio's removal
    of old files would stop for good when one is added meanwhile, or at a string sent by somebody in
    place of a file."""

    def __iter__(self) -> Iterator[str]:
        for path in frozenset(self):
            if os.path.isfile(path):  # noqa: PTH113  (for arbitrary strings, Path would raise)
                yield path
            elif not os.path.lexists(path):
                self.discard(path)  # or Gradio would keep looking for it


class Recent(list[str]):
    """A visitor's files that replace one another. The last two stay, as one may be loading."""

    def keep(self, name: str, content: bytes) -> str:
        """As `keep_file`, but also remove all but the last two files kept here."""
        path = keep_file(name, content)
        self.append(path)
        while len(self) > 2:
            remove_file(self.pop(0))
        return path


def file_name(name: str) -> str:
    """`name` in a form valid on every file system: other characters stay, a long stem is cut."""
    name = NOT_IN_NAMES.sub("_", name).strip(". ")
    if len(name.encode()) > LONGEST_NAME:
        suffix = Path(name).suffix.encode()[-20:]
        stem = Path(name).stem.encode()[: LONGEST_NAME - len(suffix)]
        name = (stem + suffix).decode(errors="ignore")
    return name or "file"
