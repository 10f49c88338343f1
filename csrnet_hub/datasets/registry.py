"""The formats by name, and reading a folder in any of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import cameras, crowds, label_studio, own, shanghaitech, tables, tools, ucf
from .sample import DatasetError, Entry, Sample
from .splits import Accept, candidates


@dataclass(frozen=True)
class Format:
    """A format of annotated photographs.

    Attributes:
        title: name of the data set or the tool.
        splits: gives a folder's splits, in order; none if the folder is not of this format.
        entries: gives the photographs of one split.
        sigma: kernel width in pixels that the CSRNet paper uses (table 2 and section 4), or None
            for geometry-adaptive kernels.
        subject: what is counted.
        suffix: suffix of the annotation files, for one's own formats.
        video: whether the photographs are frames of fixed cameras, where neighbours look alike.
        one_camera: whether all are from one camera, so that even its scenes look alike.
    """

    title: str
    splits: Callable[[Path], list[str]]
    entries: Callable[[Path, str], Iterator[Entry]]
    sigma: float | None = None
    subject: str = "people"
    suffix: str = ""
    video: bool = False
    one_camera: bool = False


def _own(
    title: str,
    parse: own.Parse,
    kind: str = "",
    suffix: str = ".json",
    accept: Accept | None = None,
    each: bool = False,
) -> Format:
    if accept is None:
        accept = partial(own.json_kind, kind) if kind else partial(own.by_suffix, suffix)
    splits = partial(own.file_splits, accept, each, parse)
    return Format(title, splits, partial(own.file_entries, accept, each, parse), suffix=suffix)


FORMATS: dict[str, Format] = {
    "shanghaitech": Format("ShanghaiTech A and B", shanghaitech.splits, shanghaitech.entries),
    "ucf-cc-50": Format("UCF_CC_50", ucf.cc50_splits, ucf.cc50_entries),
    "ucf-qnrf": Format("UCF-QNRF", ucf.qnrf_splits, ucf.qnrf_entries),
    "worldexpo": Format(
        "WorldExpo'10", cameras.worldexpo_splits, cameras.worldexpo_entries, 3.0, video=True
    ),
    "ucsd": Format(
        "UCSD", cameras.ucsd_splits, cameras.ucsd_entries, 3.0, video=True, one_camera=True
    ),
    "mall": Format("Mall", cameras.mall_splits, cameras.mall_entries, video=True, one_camera=True),
    "beijing-brt": Format("Beijing-BRT", cameras.brt_splits, cameras.brt_entries, video=True),
    "trancos": Format(
        "TRANCOS", cameras.trancos_splits, cameras.trancos_entries, 10.0, "vehicles", video=True
    ),
    "jhu-crowd": Format("JHU-CROWD++", crowds.jhu_splits, crowds.jhu_entries),
    "nwpu": Format("NWPU-Crowd", crowds.nwpu_splits, crowds.nwpu_entries),
    "csv": _own(
        "table of image, x, y", tables.parse_csv, suffix=".csv", accept=tables.is_points_table
    ),
    "json": _own("points an image", tables.parse_json, "json"),
    "coco": _own("COCO", tools.parse_coco, "coco"),
    "via": _own("VGG Image Annotator", tools.parse_via, "via"),
    "labelme": _own("LabelMe", tools.parse_labelme, "labelme", each=True),
    "cvat": _own("CVAT for images", tools.parse_cvat, suffix=".xml"),
    "label-studio": _own("Label Studio", label_studio.parse, "label-studio"),
    "mat": _own(
        "ShanghaiTech's .mat beside the photographs",
        shanghaitech.parse_beside,
        suffix=".mat",
        accept=shanghaitech.is_annotation,
        each=True,
    ),
}

OWN = (
    " Photographs of your own need annotations beside them: a .csv table of image,x,y with one row "
    "per head, or GT_NAME.mat for each NAME.jpg."
)


def guess_format(folder: Path) -> str:
    """Guess the name of a folder's or file's format from its content.

    Raises:
        DatasetError: if there is no such folder, or it matches none of the formats.
    """
    if not folder.exists():
        raise DatasetError(f"There is no folder {folder}.")
    for name, kind in FORMATS.items():
        if kind.splits(folder):
            return name
    parts = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    inside = next((part for part in sorted(parts) if shanghaitech.splits(folder / part)), None)
    hint = f" Give the folder of one part, such as {folder / inside}." if inside else ""
    raise DatasetError(
        f"{folder} looks like none of the formats {', '.join(FORMATS)}: name one with --format."
        f"{hint or OWN}"
    )


def find_format(folder: str | Path, format: str | None = None) -> tuple[str, Format]:
    """A format by name, or guessed.

    Raises:
        DatasetError: if there is no format of that name, or none can be guessed.
    """
    name = format or guess_format(Path(folder))
    if name not in FORMATS:
        raise DatasetError(f"There is no format {name!r}; choose one of {', '.join(FORMATS)}.")
    return name, FORMATS[name]


def find_splits(folder: str | Path, format: str | None = None) -> list[str]:
    """The splits that a folder holds: train, val, test, or all if it is not split.

    Raises:
        DatasetError: if it has none.
    """
    name, kind = find_format(folder, format)
    found = kind.splits(Path(folder))
    if not found:
        others = candidates(kind.suffix, Path(folder)) if kind.suffix else []
        hint = f": {others[0].name} is in another format, or damaged" if others else ""
        raise DatasetError(f"{folder} holds nothing in the format {name} ({kind.title}){hint}.")
    return found


def pick_split(folder: str | Path, wanted: str, format: str | None = None) -> str:
    """The split `wanted`, such as train, or ``all`` for a folder that is not split.

    Raises:
        DatasetError: if the folder is split, but lacks that one.
    """
    held = find_splits(folder, format)
    if wanted not in held and "all" not in held:
        raise DatasetError(
            f"{folder} has no split {wanted}; choose {' or '.join(held)} with --split."
        )
    return wanted if wanted in held else "all"


def read_dataset(
    folder: str | Path,
    format: str | None = None,
    split: str | None = None,
    bad: list[DatasetError] | None = None,
) -> list[Sample]:
    """The samples of a folder (or of one annotation file) in any of the formats.

    Args:
        format: a key of ``FORMATS``; None: guessed from the folder's content.
        split: one of ``find_splits``; None: all of it, or all of its splits, one after another.
        bad: a list that collects errors of unreadable annotations while reading continues;
            None: the first error is raised.

    Raises:
        DatasetError: naming the file and what is wrong with it.
    """
    name, kind = find_format(folder, format)
    if split is None:
        held = find_splits(folder, name)
        chosen = ["all"] if "all" in held else held
    else:
        chosen = [split]
    samples = []
    seen: dict[str, str] = {}
    for one in chosen:
        for entry in kind.entries(Path(folder), one):
            before = seen.get(path := os.path.normpath(entry.path))
            if before == one or (before and "trainval" in (before, one)):  # TRANCOS' own, of both
                continue
            seen[path] = one
            try:
                if before:
                    raise DatasetError(
                        f"{entry.path} is in two splits, {before} and {one}: keep it in one."
                    )
                heads = entry.heads()
            except DatasetError as error:
                if bad is None:
                    raise
                bad.append(error)
                continue
            samples.append(
                Sample(
                    entry.name,
                    entry.path,
                    heads,
                    entry.mask,
                    one,
                    entry.group,
                    size=entry.size,
                    scene=entry.group if kind.video else "",
                )
            )
    if not samples and not bad:
        raise DatasetError(f"{folder} holds no photographs in split {', '.join(chosen)}.")
    return samples


def paper_sigma(folder: str | Path, format: str | None = None) -> float | None:
    """The kernel width in pixels that the CSRNet paper uses for a data set; None: adaptive.

    ShanghaiTech's two parts differ only in their names: the folder called B, or with part_B in its
    name, is the one with 15 pixels.
    """
    name, kind = find_format(folder, format)
    path = Path(folder).resolve()
    inside = path.name.lower() in ("train_data", "test_data")
    part = (path.parent if inside else path).name.lower()
    return 15.0 if name == "shanghaitech" and (part == "b" or "part_b" in part) else kind.sigma
