"""ShanghaiTech parts A and B (Zhang et al., CVPR 2016): images/IMG_n.jpg and GT_IMG_n.mat."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .files import actual, photos
from .matlab import load_mat
from .sample import DatasetError, Entry, Heads, Sample, as_heads

SPLITS = {"train": "train_data", "test": "test_data"}
ANNOTATIONS = ("ground-truth", "ground_truth")  # copies of the data set differ


def splits(part: Path) -> list[str]:
    """The splits that the folder of a part holds; none if it is no such folder."""
    return [name for name in SPLITS if actual(part / SPLITS[name] / "images").is_dir()]


def entries(part: Path, split: str) -> Iterator[Entry]:
    """The photographs of one split, in the order of their numbers."""
    if split not in SPLITS:
        raise DatasetError(f"There is no split {split!r}; choose train or test.")
    folder = actual(part / SPLITS[split])
    if not actual(folder / "images").is_dir():
        raise DatasetError(f"{folder / 'images'} is not a folder: give the folder of a part.")
    found = [name for name in ANNOTATIONS if actual(folder / name).is_dir()]
    if not found:
        raise DatasetError(f"{folder} has neither a folder {' nor '.join(ANNOTATIONS)}.")
    for path in photos(actual(folder / "images")):
        annotation = folder / found[0] / f"GT_{path.stem}.mat"
        yield Entry(path.stem, path, partial(read_heads, annotation))


def read_shanghaitech(part: str | Path, split: str) -> list[Sample]:
    """The samples of one split, in the order of their numbers.

    Args:
        part: folder ``part_A`` or ``part_B``, holding ``train_data`` and ``test_data``.
        split: ``"train"`` or ``"test"``.

    Raises:
        DatasetError: if a folder or an annotation is missing or cannot be read.
    """
    return [
        Sample(entry.name, entry.path, entry.heads(), split=split)
        for entry in entries(Path(part), split)
    ]


def read_heads(path: Path) -> Heads:
    """The heads (N, 2) of one .mat annotation, x and y in pixels.

    Raises:
        DatasetError: naming the file and what is wrong with it.
    """
    info = load_mat(path, "image_info")
    try:
        points = info[0]["location"]
    except (IndexError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: image_info is not laid out as in ShanghaiTech.") from error
    return as_heads(points, path)
