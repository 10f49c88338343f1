"""Locate the photographs that an annotation file names in its own way."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath
from urllib.parse import parse_qs, unquote, urlsplit

from ..images import SUFFIXES
from ..paths import is_file
from .files import actual, listed
from .splits import homes_of

UPLOADED = re.compile("^[0-9a-f]{8}-")  # Label Studio's prefix to an upload's name


def photo_at(base: Path, written: str) -> Path:
    """The photograph that a file names in its own way: a Windows or POSIX path, or an upload."""
    name = Path(*PureWindowsPath(written).parts)
    for candidate in (Path(written), name, Path(name.name)):
        for home in homes_of(base):
            if is_file(found := actual(home / candidate)):
                return found
    return base / name


def root_of(folder: Path) -> Path:
    """The folder of a data set, given an annotation file or the folder itself."""
    if folder.is_dir():
        return folder
    return folder.parent.parent if folder.parent.name.lower() == "annotations" else folder.parent


def uploaded_name(address: str, base: Path) -> str:
    """The file behind Label Studio's URL of a picture: ?d=PATH, or an upload's own name, which it
    stores with underscores for spaces and without brackets and the like."""
    parts = urlsplit(address)
    path = parse_qs(parts.query).get("d", [unquote(parts.path) or address])[0]
    name = PureWindowsPath(path).name
    stripped = UPLOADED.sub("", name)
    for candidate in (path.lstrip("/\\"), name, stripped):
        if is_file(photo_at(base, candidate)):
            return candidate
    pictures = {
        path.name
        for home in homes_of(base)
        for path in listed(home, "*")
        if path.suffix.lower() in SUFFIXES
        and re.sub(r"[^-\w.]", "", path.name.strip().replace(" ", "_")) == stripped
    }
    return pictures.pop() if len(pictures) == 1 else stripped


def name_beside(name: str, base: Path) -> str:
    """A photograph's name in a file, or, if only the original of that upload exists, its name."""
    if is_file(photo_at(base, name)) or not UPLOADED.match(PureWindowsPath(name).name):
        return name
    own = uploaded_name(name, base)
    return own if is_file(photo_at(base, own)) else name
