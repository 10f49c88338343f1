"""Files by their names, whatever the case or the Unicode form in which these are written.

Windows and macOS take IMG_1.JPG and img_1.jpg for one file, and write an accent in two ways; an
annotation made on one system must find its photograph on another.
"""

from __future__ import annotations

import unicodedata
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from .. import paths
from ..images import SUFFIXES
from .sample import DatasetError


def actual(path: Path) -> Path:
    """The path, or if there is nothing, what is there under the same names but for case and Unicode
    form; the path itself if there is nothing of the kind either."""
    if paths.exists(path) or path == path.parent:
        return path
    folder = actual(path.parent)
    if not paths.is_folder(folder):
        return path
    return _names(folder, folder.stat().st_mtime_ns).get(_plain(path.name), path)


def is_folder(path: Path) -> bool:
    """Whether a path is of a folder, whatever the case of its names."""
    return paths.is_folder(actual(path))


@lru_cache(maxsize=64)
def _names(folder: Path, modified: int) -> dict[str, Path]:
    return {_plain(path.name): path for path in folder.iterdir()}


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def listed(folder: Path, pattern: str, deep: bool = False) -> list[Path]:
    """The files of a folder, or with ``deep`` of those inside it too, whose names match a pattern
    such as ``*.jpg`` in either case, sorted; hidden ones left out, such as macOS's ``._a.jpg``."""
    folder = actual(folder)
    if not folder.is_dir():
        return []
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(
        path
        for path in found
        if fnmatchcase(path.name.lower(), pattern.lower()) and not _hidden(path, folder)
    )


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)


def photos(folder: Path) -> list[Path]:
    """The pictures in a folder, in the order of the numbers in their names.

    Raises:
        DatasetError: if there is no such folder or no picture in it.
    """
    if not is_folder(folder):
        raise DatasetError(f"{folder} is not a folder.")
    found = [path for path in listed(folder, "*") if path.suffix.lower() in SUFFIXES]
    if not found:
        raise DatasetError(f"{folder} holds no pictures.")
    return sorted(found, key=numbered)


def numbered(path: Path) -> tuple[int, str]:
    """For sorting: the last number in a file's name, and the name."""
    digits = "".join(c if c.isdecimal() else " " for c in path.stem).split()
    return (int(digits[-1]) if digits else 0, path.stem)
