"""Pictures by the files, folders and globs that a user names on a command line."""

from __future__ import annotations

import glob
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from .images import SUFFIXES


def find_images(patterns: Sequence[str]) -> list[Path]:
    """Files for a list of files, folders (the pictures in them) and globs, each file once, by the
    first of its names.

    Raises:
        ValueError: if a folder or glob holds no picture, or a name is empty.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        if not pattern:  # as a path it would be the current folder
            raise ValueError("An empty name was given; give a file, folder or glob.")
        matches = list(_matches(pattern))
        if not matches:
            raise ValueError(_nothing(pattern))
        for path in matches:
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def quoted(path: Path) -> str:
    """A path as the system's own shell takes it."""
    return subprocess.list2cmdline([str(path)]) if os.name == "nt" else shlex.quote(str(path))


def _nothing(pattern: str) -> str:
    path = Path(pattern)
    deeper = (file for file in path.rglob("*") if is_picture(file)) if path.is_dir() else iter(())
    if first := next(deeper, None):
        example = Path(glob.escape(str(path))) / "**" / f"*{first.suffix}"
        return f"{pattern} holds no picture itself, but its folders do: give {quoted(example)}."
    return f"{pattern} holds no picture ({', '.join(sorted(SUFFIXES))})."


def _matches(pattern: str) -> Iterator[Path]:
    path = Path(pattern)
    try:
        folder, there = path.is_dir(), path.exists()
    except OSError:  # in a folder that may not be read: reported and skipped like any bad file
        folder, there = False, True
    if folder:
        yield from sorted(file for file in path.iterdir() if is_picture(file))
    elif there or not glob.has_magic(pattern):
        yield path  # a file that is not there is reported and skipped like any bad one
    else:
        found = (Path(name) for name in sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207
        yield from (file for file in found if is_picture(file))


def is_picture(path: Path) -> bool:
    """Whether a file that was not named itself, but lies in a folder, is one to count."""
    hidden = path.name.startswith(".")  # such as ._a.jpg, which macOS writes beside a.jpg
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()
