"""Whether a file or folder exists; False also for names that no file system accepts."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


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
