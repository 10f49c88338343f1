"""Whether a file or folder exists, False also for names that no file system accepts; and who may
write it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


def exists(path: str | Path) -> bool:
    """Whether a path exists."""
    with suppress(OSError, ValueError):
        return Path(path).exists()
    return False


def is_file(path: str | Path) -> bool:
    """Whether a path is a file."""
    with suppress(OSError, ValueError):
        return Path(path).is_file()
    return False


def is_folder(path: str | Path) -> bool:
    """Whether a path is a folder."""
    with suppress(OSError, ValueError):
        return Path(path).is_dir()
    return False


def real(path: Path) -> Path:
    """A path without links, even circular ones, at which resolve() raises."""
    with suppress(OSError, ValueError):
        return Path(os.path.realpath(path))
    return path


@contextmanager
def alone(file: Path, taken: Exception) -> Iterator[None]:
    """Keep other processes from writing a file, a new one, or into a folder, or raise `taken`."""
    file = real(file) if is_file(file) or not file.exists() else file
    path = file / ".lock" if file.is_dir() else file.with_name(f".{file.name}.lock")
    if not path.parent.is_dir() or (file.exists() and not (file.is_file() or file.is_dir())):
        yield  # a folder's name misspelt, which the lock would make; or a pipe
        return
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise taken from error
    except (NotImplementedError, OSError):  # a file system without locks
        pass
    try:
        yield
    finally:
        with suppress(OSError):  # on Windows, where the lock removes it
            path.unlink(missing_ok=True)
        lock.release()
