"""Photographs of one's own: CSV, JSON, and the files of the common annotation tools.

Each format has one function that turns a file into a list of photographs, each with a function that
returns its heads, so that a bad annotation affects only its own photograph.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache, lru_cache, partial
from hashlib import sha256
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple, TypeAlias

from ..images import SUFFIXES
from ..paths import is_file
from .files import plain
from .places import photo_at, root_of
from .sample import DatasetError, Entry, Heads, Stated
from .splits import (
    SPLITS,
    Accept,
    files_of_splits,
    found_inside,
    none_beside,
    of_folder,
    where_photos_lie,
)
from .text import read_json


class Annotated(NamedTuple):
    """A photograph listed in an annotation file: its name there, a function for its heads, the size
    and split that the file states, and the labels of its shapes. If there are any, ``heads`` takes
    the labels of the whole data set, which together decide what counts."""

    name: str
    heads: Callable[..., Heads]
    size: Stated | None = None
    split: str = ""
    labels: frozenset[str] = frozenset()


Listing: TypeAlias = list[Annotated]
Parse: TypeAlias = Callable[[Path], Listing]


def file_splits(accept: Accept, each: bool, parse: Parse, folder: Path) -> list[str]:
    """The splits of a folder or file in a format whose files `accept` recognises; ``each`` says
    that each photograph has its own file, named after it."""
    return _splits(parse, each, files_of_splits(accept, each, folder), folder)


def file_entries(
    accept: Accept, each: bool, parse: Parse, folder: Path, split: str
) -> Iterator[Entry]:
    """The photographs listed in the annotation files of a split, in order."""
    files = files_of_splits(accept, each, folder)
    held = _splits(parse, each, files, folder)
    if split not in held and split not in files:
        raise DatasetError(f"{folder} has no split {split!r}, only {', '.join(held) or 'none'}.")
    inside = split not in files
    lies = where_photos_lie(root_of(folder)) if inside else {}
    items: list[tuple[Path, Annotated]] = []
    for file in files["all" if inside else split]:
        try:
            items += [
                (file, item)
                for item in _parsed(parse, each, file)
                if not inside or _of(item, lies) == split
            ]
        except DatasetError as error:  # affects this file only
            items.append((file, Annotated(file.name, fails(error))))
    paths = [photo_at(file.parent, item.name) for file, item in items]
    if not all(map(is_file, paths)):
        paths = found_inside(root_of(folder), paths, split)
    used = _used(accept, each, parse, folder) if any(one.labels for _, one in items) else ()
    photos = [*map(os.path.normpath, paths)]  # two links to one file may be two photographs
    stems, seen = Counter(path.stem for path in paths), Counter(photos)
    last = {one: (file, item.name) for (file, item), one in zip(items, photos)}
    for (file, item), path, one in zip(items, paths, photos):
        heads = partial(item.heads, used) if item.labels else item.heads
        if seen[one] > 1:  # which annotation is right is unknown
            again, name = last[one]
            heads = fails(
                DatasetError(f"{again} has {name} twice: keep only one of its annotations.")
            )
        homes = (file.parent, root_of(folder))
        unique = path.stem if stems[path.stem] == 1 else _long_name(homes, path)
        yield Entry(unique, path, heads, size=item.size)


def _used(accept: Accept, each: bool, parse: Parse, folder: Path) -> set[str]:
    """The labels of all shapes in a data set, across splits. Where each photograph has a file, the
    files beside one given alone belong to its data set too."""
    used: set[str] = set()
    for files in files_of_splits(accept, each, root_of(folder) if each else folder).values():
        for file in files:
            with suppress(DatasetError):  # said when it is read
                used |= _labels(parse, each, file, _digest(file))
    return used


@cache
def _labels(parse: Parse, each: bool, file: Path, content: bytes) -> frozenset[str]:
    """Cached, since each split asks for the labels of all files."""
    return frozenset().union(*(item.labels for item in _parsed(parse, each, file)))


def _parsed(parse: Parse, each: bool, file: Path) -> Listing:
    try:
        # what one photograph's file says may depend on the files beside it
        return parse(file) if each else _once(parse, file, _digest(file))
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{file} does not follow its format ({error}).") from error


@lru_cache(maxsize=2)
def _once(parse: Parse, file: Path, content: bytes) -> Listing:
    """Cached, since a table may have a million rows and is asked for its splits repeatedly."""
    return parse(file)


def _digest(file: Path) -> bytes:
    try:
        return sha256(file.read_bytes()).digest()
    except OSError:  # reported on parsing
        return b""


def _splits(parse: Parse, each: bool, files: dict[str, list[Path]], folder: Path) -> list[str]:
    if each or list(files) != ["all"]:
        return list(files)
    return _splits_inside(parse, files["all"], where_photos_lie(root_of(folder)))


def _splits_inside(parse: Parse, files: list[Path], lies: dict[str, set[str]]) -> list[str]:
    """The splits named for each photograph by the files or by the photographs' folders."""
    found: dict[str, list[tuple[Path, str]]] = {}
    for file in files:
        with suppress(DatasetError):  # said when it is read
            for item in _parsed(parse, False, file):
                found.setdefault(_of(item, lies), []).append((file, item.name))
    splits = [split for split in SPLITS if split in found]
    held_out = splits not in ([], ["train"])
    strangers = (
        f"{name} of {file}"
        for file, name in found.get("", ())
        if held_out or _there(file, name, lies)
    )
    if splits and (one := next(strangers, "")):
        none_beside(splits, [one], "folder")
    return splits if held_out else ["all"]


def _there(file: Path, name: str, lies: dict[str, set[str]]) -> bool:
    return plain(PureWindowsPath(name).name) in lies or is_file(photo_at(file.parent, name))


def _of(item: Annotated, lies: dict[str, set[str]]) -> str:
    """A photograph's split: stated by the file or its relative name there, or else by where it
    `lies`."""
    *folders, name = PureWindowsPath(item.name).parts or [""]
    if PureWindowsPath(item.name).anchor:  # such as /home/dev
        folders = []
    found = lies.get(plain(name), set())
    return item.split or of_folder(folders) or (next(iter(found)) if len(found) == 1 else "")


def _long_name(homes: Iterable[Path], path: Path) -> str:
    # two photographs share a name: folders distinguish them (the name may have no slash)
    home = next((home for home in homes if path.is_relative_to(home)), path.anchor)
    return "-".join(path.relative_to(home).parts)


def by_suffix(suffix: str, file: Path) -> bool:
    return file.suffix.lower() == suffix


def json_kind(kind: str, file: Path) -> bool:
    """Whether a JSON file is of a kind: coco, via, labelme, label-studio or json."""
    return by_suffix(".json", file) and _kind(file, file.stat().st_mtime_ns) == kind


@cache
def _kind(file: Path, modified: int) -> str:
    # An unrecognised file named after a photograph is taken for LabelMe's, so that it is reported.
    unknown = "labelme" if any(is_file(file.with_suffix(end)) for end in SUFFIXES) else "json"
    try:
        content = read_json(file)
    except DatasetError:
        return unknown
    if isinstance(content, list):
        kinds = {"data": "label-studio", "annotation_id": "label-studio", "image": "json"}
        for key, kind in kinds.items():
            if content and all(isinstance(item, dict) and key in item for item in content):
                return kind
    if not isinstance(content, dict) or not content:
        return unknown
    if isinstance(content.get("image"), str):
        return "json"
    if "images" in content and "annotations" in content:
        return "coco"
    if "shapes" in content:
        return "labelme"
    values = [item for item in content.values() if isinstance(item, dict)]
    third = {"project", "metadata", "file"} <= set(content)  # VIA 3, to be reported
    if "_via_img_metadata" in content or third or any("regions" in item for item in values):
        return "via"
    if {"points", "human_num", "img_id"} <= set(content):
        return ""  # an NWPU-Crowd file
    pictures = all(Path(key).suffix.lower() in SUFFIXES for key in content)
    return "json" if pictures else unknown


def field(record: Any, key: str, where: str | Path) -> Any:
    """``record[key]``, or a DatasetError that says where it is missing."""
    if not isinstance(record, dict) or key not in record:
        raise DatasetError(f"{where}: there is no {key}.")
    return record[key]


def fails(error: DatasetError) -> Callable[[], Heads]:
    """A heads function that raises the error when called."""

    def raising() -> Heads:
        raise error

    return raising
