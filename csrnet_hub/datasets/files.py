"""Find files by name, ignoring case and Unicode form.

Windows and macOS treat IMG_1.JPG and img_1.jpg as one file, and they encode accents differently;
an annotation made on one system must find its photograph on another.
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
    """The path if it exists, else an existing path that differs only in case or Unicode form, else
    the path itself."""
    if paths.exists(path) or path == path.parent:
        return path
    folder = actual(path.parent)
    if not paths.is_folder(folder):
        return path
    return _names(folder, folder.stat().st_mtime_ns).get(plain(path.name), path)


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, ignoring case."""
    return paths.is_folder(actual(path))


@lru_cache(maxsize=64)
def _names(folder: Path, modified: int) -> dict[str, Path]:
    return {plain(path.name): path for path in folder.iterdir()}


def plain(name: str) -> str:
    """A name without the differences of case and Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()


def listed(folder: Path, pattern: str, deep: bool = False) -> list[Path]:
    """The files in a folder, with ``deep`` also in its subfolders, whose names match a pattern such
    as ``*.jpg`` in either case, sorted, without hidden ones such as macOS's ``._a.jpg``."""
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
        DatasetError: if the folder does not exist or has no pictures.
    """
    if not is_folder(folder):
        raise DatasetError(f"{folder} is not a folder.")
    found = [path for path in listed(folder, "*") if path.suffix.lower() in SUFFIXES]
    if not found:
        raise DatasetError(f"{folder} holds no pictures.")
    return sorted(found, key=numbered)


def numbered(path: Path) -> tuple[int, str]:
    """Sort key: the last number in a file's name, and the name."""
    digits = "".join(c if c.isdecimal() else " " for c in path.stem).split()
    return (int(digits[-1]) if digits else 0, path.stem)
