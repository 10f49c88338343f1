"""Photographs of one's own: CSV, JSON, and the files of the common annotation tools.

Each format has one function that turns a file into a list of (name of a photograph, function that
gives its heads), so that a bad annotation of one photograph spoils no other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from ..images import SUFFIXES
from .files import actual, is_there, listed
from .sample import DatasetError, Entry, Heads
from .text import read_json

Listing: TypeAlias = list[tuple[str, Callable[[], Heads]]]
Parse: TypeAlias = Callable[[Path], Listing]
Accept: TypeAlias = Callable[[Path], bool]
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}  # and the names of their folders, or words in the names of their files


def file_splits(accept: Accept, each: bool, folder: Path) -> list[str]:
    """The splits of a folder, or of one file, in a format whose files `accept` knows; ``each`` says
    that each photograph has one, of its own name."""
    return list(_files(accept, each, folder))


def file_entries(
    accept: Accept, each: bool, parse: Parse, folder: Path, split: str
) -> Iterator[Entry]:
    """The photographs that the annotation files of a split list, in their order."""
    files = _files(accept, each, folder)
    if split not in files:
        raise DatasetError(f"{folder} has no split {split!r}, only {', '.join(files) or 'none'}.")
    items: list[tuple[Path, str, Callable[[], Heads]]] = []
    for file in files[split]:
        try:
            items += [(file, *item) for item in _parsed(parse, file)]
        except DatasetError as error:  # this file's trouble, not that of the others
            items.append((file, file.name, fails(error)))
    paths = [_photo(file.parent, name) for file, name, _ in items]
    if not all(map(is_there, paths)):
        paths = _found_inside(folder if folder.is_dir() else folder.parent, paths)
    stems, seen = Counter(path.stem for path in paths), Counter(paths)
    last = {path: (file, name) for (file, name, _), path in zip(items, paths)}
    for (file, _, heads), path in zip(items, paths):
        if seen[path] > 1:  # which of its annotations is right nobody knows
            again, name = last[path]
            heads = fails(
                DatasetError(f"{again} has {name} twice; a photograph is annotated once.")
            )
        unique = path.stem if stems[path.stem] == 1 else _long_name(file.parent, path)
        yield Entry(unique, path, heads)


def _parsed(parse: Parse, file: Path) -> Listing:
    try:
        return parse(file)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{file} is not laid out as its format is ({error}).") from error


def candidates(suffix: str, folder: Path) -> list[Path]:
    """The files that may hold annotations: those with an ending, where they are looked for."""
    homes = [folder, folder / "annotations", *(folder / name for name in sum(SPLITS.values(), ()))]
    return [file for home in homes for file in listed(actual(home), f"*{suffix}")]


def _files(accept: Accept, each: bool, folder: Path) -> dict[str, list[Path]]:
    """The files of each split: in a folder of that name, or named after it; else of ``all``."""
    if folder.is_file():
        return {"all": [folder]} if accept(folder) else {}
    homes = (folder, actual(folder / "annotations"))
    here = [file for home in homes for file in _accepted(accept, home)]
    if not here:
        found = {
            split: [file for name in names for file in _accepted(accept, actual(folder / name))]
            for split, names in SPLITS.items()
        }
        return {split: files for split, files in found.items() if files}
    # a photograph's name tells no split: test match.jpg
    each = each or all(map(_of_one_photo, here))
    words = {file: [] if each else _split_words(file) for file in here}
    if len(here) > 1 and all(len(found) == 1 for found in words.values()):
        ordered = [split for split in SPLITS if any(words[file] == [split] for file in here)]
        return {split: [file for file in here if words[file] == [split]] for split in ordered}
    return {"all": here} if here else {}


def _of_one_photo(file: Path) -> bool:
    """Whether a photograph has the file's name, as that which the page's Annotate tab saves."""
    named = (home / f"{file.stem}{end}" for home in homes_of(file.parent) for end in SUFFIXES)
    return any(is_there(actual(path)) for path in named)


def _split_words(file: Path) -> list[str]:
    words = re.findall(r"[a-z]+", file.stem.lower())
    return [split for word in words for split, names in SPLITS.items() if word in names]


def _accepted(accept: Accept, folder: Path) -> list[Path]:
    return [file for file in listed(folder, "*") if file.is_file() and accept(file)]


def _long_name(base: Path, path: Path) -> str:
    # two photographs of one name: the folders tell them apart (a name may hold no slash)
    inside = path.relative_to(base) if path.is_relative_to(base) else Path(path.parent.name, path)
    return "-".join(part for part in (*inside.parts[:-1], inside.name) if part not in ("/", "\\"))


def homes_of(base: Path) -> list[Path]:
    """The folders in which the photographs of an annotation file in a folder are looked for."""
    return [base, base / "images", base.parent, base.parent / "images"]


def _photo(base: Path, written: str) -> Path:
    """The photograph that a file names in its own way: a path of either system, or an upload."""
    name = Path(*PureWindowsPath(written).parts)
    for candidate in (Path(written), name, Path(name.name)):
        for home in homes_of(base):
            if is_there(found := actual(home / candidate)):
                return found
    return base / name


def _found_inside(root: Path, paths: list[Path]) -> list[Path]:
    """Photographs that are not where they were looked for, from anywhere in a folder where only
    one has that name, as COCO's own train2017 beside annotations."""
    held: dict[str, list[Path]] = {}
    for path in listed(root, "*", deep=True):
        if path.suffix.lower() in SUFFIXES:
            held.setdefault(path.name.lower(), []).append(path)
    same = {path: held.get(path.name.lower(), []) for path in paths if not is_there(path)}
    return [same[path][0] if len(same.get(path, [])) == 1 else path for path in paths]


def by_suffix(suffix: str, file: Path) -> bool:
    return file.suffix.lower() == suffix


def json_kind(kind: str, file: Path) -> bool:
    """Whether a JSON file is of a kind: coco, via, labelme, label-studio or json."""
    return by_suffix(".json", file) and _kind(file, file.stat().st_mtime_ns) == kind


@lru_cache(maxsize=4096)
def _kind(file: Path, modified: int) -> str:
    # What cannot be told is taken for LabelMe's where a photograph has its name, to be named.
    unknown = "labelme" if any(is_there(file.with_suffix(end)) for end in SUFFIXES) else "json"
    try:
        content = read_json(file)
    except DatasetError:
        return unknown
    if isinstance(content, list):
        tasks = all(isinstance(item, dict) and "data" in item for item in content)
        return "label-studio" if content and tasks else unknown
    if not isinstance(content, dict):
        return unknown
    if isinstance(content.get("image"), str):
        return "json"
    if "images" in content and "annotations" in content:
        return "coco"
    if "shapes" in content:
        return "labelme"
    values = [item for item in content.values() if isinstance(item, dict)]
    if "_via_img_metadata" in content or any("regions" in item for item in values):
        return "via"
    if {"points", "human_num", "img_id"} <= set(content):
        return ""  # one of NWPU-Crowd's
    return unknown


def uploaded_name(address: str, base: Path) -> str:
    """The file behind Label Studio's address of a picture: ?d=PATH, or an upload's own name."""
    parts = urlsplit(address)
    path = parse_qs(parts.query).get("d", [unquote(parts.path) or address])[0]
    name = PureWindowsPath(path).name
    stripped = re.sub(r"^[0-9a-f]{8}-", "", name)  # what an upload is prefixed with
    for candidate in (path.lstrip("/\\"), name, stripped):
        if is_there(_photo(base, candidate)):
            return candidate
    return stripped


def field(record: Any, key: str, where: str) -> Any:
    """``record[key]``, or a DatasetError that says where it is missing."""
    if not isinstance(record, dict) or key not in record:
        raise DatasetError(f"{where}: there is no {key}.")
    return record[key]


def fails(error: DatasetError) -> Callable[[], Heads]:
    """Heads that raise when they are asked for."""

    def raising() -> Heads:
        raise error

    return raising
