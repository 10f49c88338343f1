"""Splits of one's own photographs, from the names of folders and annotation files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from ..images import SUFFIXES
from ..paths import is_file
from .files import actual, listed, plain
from .sample import DatasetError

# names of folders of annotations, and what stands beside a split in testset or images_test
ANNOTATIONS = "ann|coco|csv|cvat|export|gt|ground|head|json|label|mats?$|point|via$|xml"
PICTURES = "(images?|imgs?|photos?|pictures?|data|set|split)"
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


def where_photos_lie(root: Path) -> dict[str, set[str]]:
    """Maps the names of the photographs in a folder to the splits that their folders are named
    after, "" for none; empty if no folder is named after a split."""
    lies: dict[str, set[str]] = {}
    for path in listed(root, "*", deep=True):
        if path.suffix.lower() in SUFFIXES:
            split = of_folder(path.relative_to(root).parts[:-1])
            lies.setdefault(plain(path.name), set()).add(split)
    return lies if any(map(any, lies.values())) else {}


def of_folder(parts: Iterable[str]) -> str:
    """The split that the innermost of the folders is named after, such as train or train2017."""
    named = chain.from_iterable(_named(re.sub(r"[\W\d_]+$", "", part.lower())) for part in parts)
    return next(reversed([*named]), "")


def _named(word: str) -> list[str]:
    words = {word, re.sub(rf"^{PICTURES}[\W_]+|[\W_]*{PICTURES}$", "", word)}
    return [split for split, names in SPLITS.items() if words & {*names}]


def homes_of(base: Path) -> list[Path]:
    """The folders to search for the photographs of an annotation file in ``base``: beside it and,
    if its folder is one of annotations or of a split, beside that. Elsewhere photographs of the
    same name are others."""
    homes, name = [base, base / "images"], base.name or base.resolve().name
    if re.match(ANNOTATIONS, name.lower()) or of_folder([name]):
        parent = base.parent if base.name else base / ".."
        homes += [parent, parent / "images"]
    return homes


def none_beside(splits: list[str], strangers: list[str], told_by: str = "name") -> None:
    """Refuse files beside splits whose own names (or photographs whose folders) indicate none.

    Raises:
        DatasetError: if there are such strangers.
    """
    if strangers:  # their split is unknown; a wrong one would be trained on
        one, more = (
            ("lies", f"its {told_by} indicates", "it"),
            ("lie", f"their {told_by}s indicate", "them"),
        )
        lies, own, them = one if len(strangers) == 1 else more
        many = "splits" if len(splits) > 1 else "split"
        mend = f"rename {them} or move {them}" if told_by == "name" else f"move {them}"
        raise DatasetError(
            f"{', '.join(strangers[:3])} {lies} beside the {many} {' and '.join(splits)}, but "
            f"{own} none: {mend}."
        )


def candidates(suffix: str, folder: Path) -> list[Path]:
    """The files that may hold annotations: those with a suffix, in the places searched."""
    homes = [folder, folder / "annotations", *(folder / name for name in sum(SPLITS.values(), ()))]
    return [file for home in homes for file in listed(actual(home), f"*{suffix}")]


def files_of_splits(accept: Accept, each: bool, folder: Path) -> dict[str, list[Path]]:
    """The files of each split: in a folder named after it, or so named themselves; else ``all``."""
    if folder.is_file():
        return {"all": [folder]} if accept(folder) else {}
    homes = (folder, actual(folder / "annotations"))
    here = [file for home in homes for file in _accepted(accept, home)]
    if not here:
        found: dict[str, list[Path]] = {split: [] for split in SPLITS}
        for home in listed(folder, "*"):
            if split := of_folder([home.name]):
                found[split] += _accepted(accept, home)
        return {split: files for split, files in found.items() if files}
    # a photograph's own name indicates no split: test match.jpg
    each = each or all(map(_of_one_photo, here))
    words = {file: [] if each else _split_words(file) for file in here}
    named = {split: [file for file in here if words[file] == [split]] for split in SPLITS}
    named = {split: files for split, files in named.items() if files}
    others = [file.name for file in here if len(words[file]) != 1]
    if not named or (len(here) == 1 and "train" in named):  # nothing is held out
        return {"all": here}
    none_beside(list(named), others)
    return named


def _of_one_photo(file: Path) -> bool:
    """Whether a file is named after a photograph, like those that the page's Annotate tab saves."""
    named = (home / f"{file.stem}{end}" for home in homes_of(file.parent) for end in SUFFIXES)
    return any(is_file(actual(path)) for path in named)


def _split_words(file: Path) -> list[str]:
    words = re.findall("hold[-_]out|[a-z]+", file.stem.lower())
    return [*dict.fromkeys(split for word in words for split in _named(word))]


def _accepted(accept: Accept, folder: Path) -> list[Path]:
    return [file for file in listed(folder, "*") if file.is_file() and accept(file)]


def found_inside(root: Path, paths: list[Path], split: str) -> list[Path]:
    """Find photographs that are not where expected, anywhere in a folder where only one has that
    name, as in COCO's own train2017 beside annotations. For a split, it is the only one in a folder
    named after it or, if there is none, the only one in a folder of no split."""
    held: dict[tuple[str, str], list[Path]] = {}
    for path in listed(root, "*", deep=True):
        if path.suffix.lower() in SUFFIXES:
            where = of_folder(path.relative_to(root).parts[:-1]) if split in SPLITS else ""
            held.setdefault((where, plain(path.name)), []).append(path)
    found = []
    for path in paths:
        names = ((where, plain(path.name)) for where in (split, ""))
        same = next((held[name] for name in names if name in held), [])
        found.append(path if is_file(path) or len(same) != 1 else same[0])
    return found
