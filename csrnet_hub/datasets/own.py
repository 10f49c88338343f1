"""Photographs of one's own: CSV, JSON, and the files of the common annotation tools.

Each format has one function that turns a file into a list of photographs, each with a function that
gives its heads, so that a bad annotation of one photograph spoils no other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache, lru_cache, partial
from hashlib import sha256
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from ..images import SUFFIXES
from .files import actual, is_there, listed
from .sample import DatasetError, Entry, Heads, Stated
from .text import read_json


class Annotated(NamedTuple):
    """A photograph that an annotation file lists: its name there, what gives its heads, the size
    and the split that the file tells, and the labels of its shapes. Where there are any, ``heads``
    takes those of the whole data set, which say together what counts."""

    name: str
    heads: Callable[..., Heads]
    size: Stated | None = None
    split: str = ""
    labels: frozenset[str] = frozenset()


Listing: TypeAlias = list[Annotated]
Parse: TypeAlias = Callable[[Path], Listing]
Accept: TypeAlias = Callable[[Path], bool]
# the splits, and the names of their folders, or words in the names of their files
SPLITS = {
    "train": ("train", "training"),
    "val": (
        "val", "valid", "validation", "eval", "evaluation", "dev",
        "holdout", "hold-out", "hold_out",
    ),
    "test": ("test", "testing"),
}  # fmt: skip
UPLOADED = re.compile("^[0-9a-f]{8}-")  # what Label Studio puts before an upload's name


def file_splits(accept: Accept, each: bool, parse: Parse, folder: Path) -> list[str]:
    """The splits of a folder, or of one file, in a format whose files `accept` knows; ``each`` says
    that each photograph has one, of its own name."""
    return _splits(parse, each, _files(accept, each, folder), folder)


def file_entries(
    accept: Accept, each: bool, parse: Parse, folder: Path, split: str
) -> Iterator[Entry]:
    """The photographs that the annotation files of a split list, in their order."""
    files = _files(accept, each, folder)
    held = _splits(parse, each, files, folder)
    if split not in held and split not in files:
        raise DatasetError(f"{folder} has no split {split!r}, only {', '.join(held) or 'none'}.")
    inside = split not in files
    lies = _where(_root(folder)) if inside else {}
    items: list[tuple[Path, Annotated]] = []
    for file in files["all" if inside else split]:
        try:
            items += [
                (file, item)
                for item in _parsed(parse, each, file)
                if not inside or _of(item, lies) == split
            ]
        except DatasetError as error:  # this file's trouble, not that of the others
            items.append((file, Annotated(file.name, fails(error))))
    paths = [_photo(file.parent, item.name) for file, item in items]
    if not all(map(is_there, paths)):
        paths = _found_inside(_root(folder), paths, split)
    used = _used(accept, each, parse, folder) if any(one.labels for _, one in items) else ()
    stems, seen = Counter(path.stem for path in paths), Counter(paths)
    last = {path: (file, item.name) for (file, item), path in zip(items, paths)}
    for (file, item), path in zip(items, paths):
        heads = partial(item.heads, used) if item.labels else item.heads
        if seen[path] > 1:  # which of its annotations is right nobody knows
            again, name = last[path]
            heads = fails(
                DatasetError(f"{again} has {name} twice; a photograph is annotated once.")
            )
        unique = path.stem if stems[path.stem] == 1 else _long_name(file.parent, path)
        yield Entry(unique, path, heads, size=item.size)


def _used(accept: Accept, each: bool, parse: Parse, folder: Path) -> set[str]:
    """The labels of all shapes of a data set, whatever their split. Where each photograph has a
    file, those beside one that is given alone are of its data set too."""
    used: set[str] = set()
    for files in _files(accept, each, _root(folder) if each else folder).values():
        for file in files:
            with suppress(DatasetError):  # said when it is read
                used |= _labels(parse, each, file, _digest(file))
    return used


@cache
def _labels(parse: Parse, each: bool, file: Path, content: bytes) -> frozenset[str]:
    """Each split asks for those of all files."""
    return frozenset().union(*(item.labels for item in _parsed(parse, each, file)))


def _parsed(parse: Parse, each: bool, file: Path) -> Listing:
    try:
        # what one photograph's file says of it may hang on those beside it
        return parse(file) if each else _once(parse, file, _digest(file))
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{file} is not laid out as its format is ({error}).") from error


@lru_cache(maxsize=2)
def _once(parse: Parse, file: Path, content: bytes) -> Listing:
    """A table may have a million rows, and is asked for its splits again and again."""
    return parse(file)


def _digest(file: Path) -> bytes:
    try:
        return sha256(file.read_bytes()).digest()
    except OSError:  # said when it is parsed
        return b""


def _splits(parse: Parse, each: bool, files: dict[str, list[Path]], folder: Path) -> list[str]:
    if each or list(files) != ["all"]:
        return list(files)
    return _splits_inside(parse, files["all"], _where(_root(folder)))


def _splits_inside(parse: Parse, files: list[Path], lies: dict[str, set[str]]) -> list[str]:
    """The splits that files name for each photograph, or the folders of the photographs do."""
    found: dict[str, str] = {}
    for file in files:
        with suppress(DatasetError):  # said when it is read
            for item in _parsed(parse, False, file):
                found.setdefault(_of(item, lies), f"{item.name} of {file}")
    splits = [split for split in SPLITS if split in found]
    if len(splits) < 2:
        return ["all"]
    _none_beside(splits, [found[""]] if "" in found else [])
    return splits


def _of(item: Annotated, lies: dict[str, set[str]]) -> str:
    """The split that a file tells of a photograph, or its name there, or else where it `lies`."""
    *folders, name = PureWindowsPath(item.name).parts or [""]
    found = lies.get(name.lower(), set())
    return item.split or of_folder(folders) or (next(iter(found)) if len(found) == 1 else "")


def _where(root: Path) -> dict[str, set[str]]:
    """By the names of the photographs in a folder, the splits after which their folders are called,
    "" for none; nothing where none is called so."""
    lies: dict[str, set[str]] = {}
    for path in listed(root, "*", deep=True):
        if path.suffix.lower() in SUFFIXES:
            split = of_folder(path.relative_to(root).parts[:-1])
            lies.setdefault(path.name.lower(), set()).add(split)
    return lies if any(map(any, lies.values())) else {}


def of_folder(parts: Iterable[str]) -> str:
    """The split that the innermost of some folders is called after, as train or train2017."""
    plain = [re.sub(r"[\W\d_]+$", "", part.lower()) for part in parts]
    named = (split for part in plain for split, names in SPLITS.items() if part in names)
    return next(reversed([*named]), "")


def _none_beside(splits: list[str], strangers: list[str]) -> None:
    if strangers:  # which split they are of nobody knows; a wrong one would be trained on
        raise DatasetError(
            f"Beside the splits {' and '.join(splits)} there is {', '.join(strangers[:3])}, whose "
            "split no name tells: name it after one, or move it away."
        )


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
    named = {split: [file for file in here if words[file] == [split]] for split in SPLITS}
    named = {split: files for split, files in named.items() if files}
    others = [file.name for file in here if len(words[file]) != 1]
    if len(named) > 1:
        _none_beside(list(named), others)
    return named if len(here) > 1 and not others else {"all": here}


def _of_one_photo(file: Path) -> bool:
    """Whether a photograph has the file's name, as that which the page's Annotate tab saves."""
    named = (home / f"{file.stem}{end}" for home in homes_of(file.parent) for end in SUFFIXES)
    return any(is_there(actual(path)) for path in named)


def _split_words(file: Path) -> list[str]:
    words = re.findall("hold[-_]out|[a-z]+", file.stem.lower())
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


def _root(folder: Path) -> Path:
    if folder.is_dir():
        return folder
    return folder.parent.parent if folder.parent.name.lower() == "annotations" else folder.parent


def _found_inside(root: Path, paths: list[Path], split: str) -> list[Path]:
    """Photographs that are not where they were looked for, from anywhere in a folder where only
    one has that name, as COCO's own train2017 beside annotations: of a split, where only one lies
    in a folder that is called after it, or none does and one in a folder of no split."""
    held: dict[tuple[str, str], list[Path]] = {}
    for path in listed(root, "*", deep=True):
        if path.suffix.lower() in SUFFIXES:
            where = of_folder(path.relative_to(root).parts[:-1]) if split in SPLITS else ""
            held.setdefault((where, path.name.lower()), []).append(path)
    found = []
    for path in paths:
        names = ((where, path.name.lower()) for where in (split, ""))
        same = next((held[name] for name in names if name in held), [])
        found.append(path if is_there(path) or len(same) != 1 else same[0])
    return found


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
    third = {"project", "metadata", "file"} <= set(content)  # VIA 3, to be told
    if "_via_img_metadata" in content or third or any("regions" in item for item in values):
        return "via"
    if {"points", "human_num", "img_id"} <= set(content):
        return ""  # one of NWPU-Crowd's
    pictures = all(Path(key).suffix.lower() in SUFFIXES for key in content)
    return "json" if pictures else unknown


def uploaded_name(address: str, base: Path) -> str:
    """The file behind Label Studio's address of a picture: ?d=PATH, or an upload's own name, which
    it stores with underscores for blanks and without brackets and the like."""
    parts = urlsplit(address)
    path = parse_qs(parts.query).get("d", [unquote(parts.path) or address])[0]
    name = PureWindowsPath(path).name
    stripped = UPLOADED.sub("", name)
    for candidate in (path.lstrip("/\\"), name, stripped):
        if is_there(_photo(base, candidate)):
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
    """A photograph's name in a file, or where none is there and one of that upload is, its own."""
    if is_there(_photo(base, name)) or not UPLOADED.match(PureWindowsPath(name).name):
        return name
    own = uploaded_name(name, base)
    return own if is_there(_photo(base, own)) else name


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
