"""Whether there is a file or a folder, False too for a name that no file system takes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def exists(path: str | Path) -> bool:
    """Whether a path is of anything."""
    with suppress(OSError, ValueError):
        return Path(path).exists()
    return False


def is_file(path: str | Path) -> bool:
    """Whether a path is of a file."""
    with suppress(OSError, ValueError):
        return Path(path).is_file()
    return False


def is_folder(path: str | Path) -> bool:
    """Whether a path is of a folder."""
    with suppress(OSError, ValueError):
        return Path(path).is_dir()
    return False
