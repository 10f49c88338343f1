"""Files, folders and globs that a user names on a command line."""

from __future__ import annotations

import argparse
import codecs
import glob
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from .images import SUFFIXES
from .maps import is_map


def find_images(patterns: Sequence[str]) -> tuple[list[Path], dict[str, str]]:
    """Find the files for a list of files, folders (their pictures) and globs, each file once, as it
    was first named (links to one file are several); and for each folder or glob without pictures a
    sentence on it.

    Saved maps (`maps`) only count as pictures if they are named directly. Folders that match a glob
    are treated like named folders.

    Raises:
        ValueError: if a name is empty.
    """
    found: dict[str, Path] = {}
    nothing = {}
    for pattern in patterns:
        if not pattern:  # as a path it would be the current folder
            raise ValueError("An empty name was given: give a file, folder or glob.")
        try:
            matches = list(_matches(pattern))
            if not matches:
                nothing[pattern] = _nothing(pattern)
        except OSError as error:  # a folder, such as lost+found; the others are counted
            nothing[pattern] = f"It cannot be read: {error.strerror}."
            continue
        for path in matches:
            found.setdefault(os.path.join(os.path.realpath(path.parent), path.name), path)  # noqa: PTH118
    return list(found.values()), nothing


def named_path(text: str) -> Path:
    """The ``type`` of an argument that names a file or folder.

    Raises:
        argparse.ArgumentTypeError: if it is empty, as from an unset variable; as a path it
            would be the current folder.
    """
    if not text:
        raise argparse.ArgumentTypeError("an empty name was given")
    return Path(text)


def quoted(path: Path) -> str:
    """Quote a path for the system's own shell."""
    return subprocess.list2cmdline([str(path)]) if os.name == "nt" else shlex.quote(str(path))


def spare(option: str, path: Path, mark: str) -> None:
    """Refuse to overwrite a file unless an earlier run of the option wrote it.

    Args:
        mark: beginning of the files that the option writes.

    Raises:
        ValueError: if the file is another, or its name is a picture's.
    """
    if path.suffix.lower() in SUFFIXES:
        raise ValueError(f"{option} {path} has a picture's name: give another.")
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder: give a file's name.")
    if not path.is_file():  # a pipe would block until it has a writer
        return
    with path.open("rb") as file:
        start = file.read(len(codecs.BOM_UTF8) + len(mark.encode()))
    if start and not start.removeprefix(codecs.BOM_UTF8).startswith(mark.encode()):
        raise ValueError(
            f"{option} {path} would overwrite a file that this command did not write: give "
            "another name, or delete the file first."
        )


def _nothing(pattern: str) -> str:
    path = Path(pattern)
    if path.is_dir() and any(is_picture(file) for file in _seen_below(path)):
        return f"It holds no picture, but its subfolders do: give {quoted(path / '**')}."
    if path.is_dir() and any(map(is_map, path.glob("*.png"))):
        return "It holds only saved maps, which are counted only if named one by one."
    return f"It holds no picture ({', '.join(sorted(SUFFIXES))})."


def _seen_below(folder: Path) -> Iterator[Path]:
    """What ``**`` finds in a folder, leaving out hidden folders."""
    for path in folder.rglob("*"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _matches(pattern: str) -> Iterator[Path]:
    path = Path(pattern)
    try:
        folder, there = path.is_dir(), path.exists()
    except OSError:  # in an unreadable folder: reported and skipped like any bad file
        folder, there = False, True
    if folder:
        yield from _pictures_in(path)
    elif there or not glob.has_magic(pattern):
        yield path  # a missing file is reported and skipped like any bad one
    else:
        # an existing folder, such as "trip [2024]", is meant literally
        parent = next((parent for parent in path.parents if os.path.exists(parent)), None)  # noqa: PTH110
        if parent is not None:
            pattern = str(Path(glob.escape(str(parent))) / path.relative_to(parent))
        for name in sorted(_found(pattern)):
            file = Path(name)
            with suppress(OSError):  # an unreadable folder, such as lost+found
                yield from _pictures_in(file) if file.is_dir() else filter(is_picture, [file])


def _found(pattern: str) -> Iterator[str]:
    """As `glob.glob` with ``**``, but visits each folder once: links may lead round in circles."""
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from glob.glob(pattern)  # noqa: PTH207
        return
    at = parts.index("**")
    seen: set[str] = set()
    for top in _found(str(Path(*parts[:at]))) if at else ["."]:
        for folder, below, _ in os.walk(top, followlinks=True):
            below[:] = sorted(name for name in below if not name.startswith("."))
            if (real := os.path.realpath(folder)) in seen:
                below.clear()
                continue
            seen.add(real)
            rest = parts[at + 1 :]
            yield from (
                _found(str(Path(glob.escape(folder), *rest))) if rest else [str(Path(folder))]
            )


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if is_picture(file))


def is_picture(path: Path) -> bool:
    """Whether a file that was found in a folder, not named directly, should be counted."""
    hidden = path.name.startswith(".")  # such as ._a.jpg, which macOS writes beside a.jpg
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file() and not is_map(path)
