"""JHU-CROWD++ (Sindagi et al., PAMI 2020) and NWPU-Crowd (Wang et al., PAMI 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..paths import is_file
from .files import actual, is_folder, photos
from .sample import DatasetError, Entry, Heads, as_heads
from .text import read_json, read_text, rows_of_numbers
from .ucf import points

SPLITS = ("train", "val", "test")


def jhu_splits(folder: Path) -> list[str]:
    """Those of train, val and test that contain folders images and gt."""
    return [s for s in SPLITS if all(is_folder(folder / s / sub) for sub in ("images", "gt"))]


def jhu_entries(folder: Path, split: str) -> Iterator[Entry]:
    """images/0001.jpg and gt/0001.txt, one line per head: x y width height occlusion blur, where x
    and y are the head's centre. An empty file means a picture without people."""
    for path in photos(folder / split / "images"):
        label = folder / split / "gt" / f"{path.stem}.txt"
        yield Entry(path.stem, path, partial(rows_of_numbers, label, 6))


def nwpu_splits(folder: Path) -> list[str]:
    """Those of train and val that have a list; the annotation of test was never published."""
    if not any(is_folder(folder / sub) for sub in ("jsons", "mats")):
        return []
    return [split for split in SPLITS[:2] if actual(folder / f"{split}.txt").is_file()]


def nwpu_entries(folder: Path, split: str) -> Iterator[Entry]:
    """images/0001.jpg (or images_part1 to 5, as distributed), jsons/0001.json with points
    and boxes, or mats/0001.mat with annPoints; train.txt starts each line with a number."""
    if split not in nwpu_splits(folder):
        raise DatasetError(f"{folder} has no annotated split {split!r}; choose train or val.")
    parts = (path for path in folder.iterdir() if path.name.lower().startswith("images_part"))
    homes = [folder / "images", *sorted(parts)]
    for line in read_text(folder / f"{split}.txt").splitlines():
        if not line.strip():
            continue
        name = line.split()[0]
        files = [actual(home / f"{name}.jpg") for home in homes]
        label = actual(folder / "jsons" / f"{name}.json")
        other = actual(folder / "mats" / f"{name}.mat")
        read = partial(_nwpu_heads, label)
        if not is_file(label) and is_file(other):
            read = partial(points, other)
        yield Entry(name, next((file for file in files if is_file(file)), files[0]), read)


def _nwpu_heads(path: Path) -> Heads:
    content = read_json(path)
    if not isinstance(content, dict) or not {"points", "boxes"} & set(content):
        raise DatasetError(f"{path} has neither points nor boxes.")
    if "points" in content:
        return as_heads(content["points"], path)
    boxes = content["boxes"]  # left, top, right, bottom
    try:
        corners = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        corners = np.zeros(1)
    if corners.shape[1:] != (4,) and corners.shape != (0,):
        raise DatasetError(f"{path}: the boxes are not four numbers each.")
    corners = corners.reshape(-1, 2, 2)  # (N, corner, axis)
    return as_heads(corners.mean(axis=1), path)
