"""ShanghaiTech parts A and B (Zhang et al., CVPR 2016): images/IMG_n.jpg and GT_IMG_n.mat.

One's own photographs in such folders, for which the page saves annotations, need not be split, and
each GT_NAME.mat may be next to its photograph.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..images import SUFFIXES
from ..paths import is_file
from . import own
from .files import actual, is_folder, photos
from .matlab import load_mat
from .sample import DatasetError, Entry, Heads, as_heads
from .splits import homes_of
from .tables import in_pixels

SPLITS = {"train": "train_data", "test": "test_data"}
ANNOTATIONS = ("ground-truth", "ground_truth")  # copies of the data set differ


def splits(part: Path) -> list[str]:
    """The splits in the folder of a part; ``all`` if it directly contains the images; none if it is
    not such a folder."""
    found = [name for name in SPLITS if is_folder(part / SPLITS[name] / "images")]
    if not found and is_folder(part / "images") and _annotations(part):
        return ["all"]
    return found


def _annotations(folder: Path) -> Path | None:
    return next((folder / name for name in ANNOTATIONS if is_folder(folder / name)), None)


def entries(part: Path, split: str) -> Iterator[Entry]:
    """The photographs of one split, in numerical order."""
    if split not in (*SPLITS, "all"):
        raise DatasetError(f"There is no split {split!r}; choose train or test.")
    folder = part if split == "all" else part / SPLITS[split]
    if not is_folder(folder / "images"):
        raise DatasetError(f"There is no folder {folder / 'images'}: give the folder of a part.")
    annotations = _annotations(folder)
    if annotations is None:
        raise DatasetError(f"{folder} has no folder {' or '.join(ANNOTATIONS)}.")
    for path in photos(folder / "images"):
        annotation = annotations / f"GT_{path.stem}.mat"
        yield Entry(path.stem, path, partial(read_heads, annotation))


def is_annotation(file: Path) -> bool:
    """Whether a file has the name of an annotation, GT_NAME.mat."""
    return file.suffix.lower() == ".mat" and file.name.lower().startswith("gt_")


def parse_beside(file: Path) -> own.Listing:
    """The photograph NAME for a GT_NAME.mat, with any suffix, wherever `places` looks for one."""
    stem = file.stem[len("GT_") :]
    for home in homes_of(file.parent):
        found = [stem + end for end in sorted(SUFFIXES) if is_file(actual(home / (stem + end)))]
        if len(found) > 1:
            trouble = f"{file} may belong to {' or '.join(found)}: keep one of them in {home}."
            return [own.Annotated(found[0], own.fails(DatasetError(trouble)))]
        if found:
            return [own.Annotated(found[0], partial(_own_heads, file))]
    return [own.Annotated(f"{stem}.jpg", partial(_own_heads, file))]


def _own_heads(file: Path) -> Heads:
    return in_pixels(read_heads(file), str(file))


def read_heads(path: Path) -> Heads:
    """The heads (N, 2) of one .mat annotation, x and y in pixels.

    Raises:
        DatasetError: naming the file and what is wrong with it.
    """
    info = load_mat(path, "image_info")
    try:
        points = info[0]["location"]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: image_info is not laid out as in ShanghaiTech.") from error
    return as_heads(points, path)
