"""UCF_CC_50 (Idrees et al., CVPR 2013) and UCF-QNRF (Idrees et al., ECCV 2018): annPoints."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .files import actual, listed, photos
from .matlab import load_mat
from .sample import DatasetError, Entry, Heads, as_heads

FOLDS = 5
QNRF_SPLITS = {"train": "Train", "test": "Test"}


def cc50_splits(folder: Path) -> list[str]:
    """``all``, the five folds ``fold1`` to ``fold5``, and their complements ``but1`` to ``but5``:
    the protocol is five-fold cross-validation (section 4.3.2 of the CSRNet paper)."""
    if not listed(folder, "*_ann.mat"):
        return []
    folds = range(1, FOLDS + 1)
    return ["all", *(f"fold{i}" for i in folds), *(f"but{i}" for i in folds)]


def cc50_entries(folder: Path, split: str) -> Iterator[Entry]:
    """n.jpg and n_ann.mat, in numerical order. The folds were never published; here, as is usual,
    they are the fifths of that order."""
    if split != "all" and split not in cc50_splits(folder):
        raise DatasetError(
            f"There is no split {split!r}; choose all, fold1 to fold5 or but1 to but5."
        )
    pictures = photos(folder)
    for index, path in enumerate(pictures):
        fold = index * FOLDS // len(pictures) + 1
        if split in ("all", f"fold{fold}") or (split[:3] == "but" and split != f"but{fold}"):
            yield Entry(path.stem, path, partial(points, annotation(path)), group=f"fold{fold}")


def qnrf_splits(folder: Path) -> list[str]:
    """Those of Train and Test that are in the folder."""
    return [name for name in QNRF_SPLITS if listed(_qnrf_folder(folder, name), "*_ann.mat")]


def _qnrf_folder(folder: Path, split: str) -> Path:
    return actual(folder / QNRF_SPLITS[split])


def qnrf_entries(folder: Path, split: str) -> Iterator[Entry]:
    """img_0001.jpg and img_0001_ann.mat, side by side."""
    if split not in QNRF_SPLITS:
        raise DatasetError(f"There is no split {split!r}; choose train or test.")
    for path in photos(_qnrf_folder(folder, split)):
        yield Entry(path.stem, path, partial(points, annotation(path)))


def annotation(photo: Path) -> Path:
    return photo.with_name(f"{photo.stem}_ann.mat")


def points(path: Path, key: str = "annPoints") -> Heads:
    """The heads (N, 2) of a .mat file that stores them as one array."""
    return as_heads(load_mat(path, key), path)
