"""Scenes of fixed cameras: WorldExpo'10, UCSD, Mall, Beijing-BRT and TRANCOS, with their ROI."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..paths import is_file
from .files import actual, is_folder, listed, photos
from .matlab import load_mat
from .sample import DatasetError, Entry, Heads, Mask, as_heads, as_mask, polygon
from .text import read_text, rows_of_numbers
from .ucf import points

TRAIN_TEST = ("train", "test")
TRANCOS_SETS = {"train": "training", "val": "validation", "trainval": "trainval", "test": "test"}
UCSD_TRAIN = range(600, 1400)  # frames 601 to 1400 of the 2000 (Chan et al., CVPR 2008)
MALL_TRAIN = 800  # the first of the 2000 frames (Chen et al., BMVC 2012)


def worldexpo_splits(folder: Path) -> list[str]:
    """WorldExpo'10 (Zhang et al., CVPR 2015): train_frame with train_label, test_* alike."""
    return [name for name in TRAIN_TEST if is_folder(folder / f"{name}_label")]


def worldexpo_entries(folder: Path, split: str) -> Iterator[Entry]:
    """FRAME.jpg, flat or in one folder per scene; SCENE/FRAME.mat with point_position, and beside
    it roi.mat with the vertices of the region of interest. The group is the scene."""
    labels = folder / f"{split}_label"
    frames = folder / f"{split}_frame"
    if not is_folder(labels) or not is_folder(frames):
        raise DatasetError(f"{folder} has no folders {frames.name} and {labels.name}.")
    found = {path.stem: path for path in listed(labels, "*.mat", deep=True)}
    for path in listed(frames, "*.jpg", deep=True):
        label = found.get(path.stem, labels / path.stem[:6] / f"{path.stem}.mat")
        read = partial(points, label, "point_position")
        mask = partial(_worldexpo_roi, label.with_name("roi.mat"))
        yield Entry(path.stem, path, read, mask, group=label.parent.name)


def _worldexpo_roi(path: Path, height: int, width: int) -> NDArray[np.bool_]:
    found = [load_mat(path, f"maskVertices{axis}Coordinates") for axis in "XY"]
    if not all(isinstance(side, np.ndarray) for side in found):  # see as_mask
        raise DatasetError(f"{path}: the polygon's vertices are not an array of numbers.")
    sides = [np.ravel(side) for side in found]
    if len(sides[0]) != len(sides[1]) or len(sides[0]) < 3:
        raise DatasetError(f"{path}: {len(sides[0])} x and {len(sides[1])} y are not a polygon.")
    return polygon(as_heads(np.stack(sides, axis=1), path), height, width)


def ucsd_splits(folder: Path) -> list[str]:
    """UCSD (Chan et al., CVPR 2008): vidf1_33_000_frame_full.mat and folders of its frames."""
    inside = (path for depth in ("*", "*/*") for path in folder.glob(depth))
    homes = [folder, *(path for path in inside if os.access(path, os.R_OK))]  # not lost+found
    return list(TRAIN_TEST) if any(listed(home, "vidf*_frame_full.mat") for home in homes) else []


def ucsd_entries(folder: Path, split: str) -> Iterator[Entry]:
    """vidf1_33_00c.y/vidf1_33_00c_fNNN.png, 200 frames per clip; clips 3 to 6 train, the other six
    of the first ten test. The mask is from vidf1_33_roi_mainwalkway.mat; the group is the clip."""
    if split not in TRAIN_TEST:
        raise DatasetError(f"There is no split {split!r}; choose train or test.")
    clips = {path.name[: -len("_frame_full.mat")]: path for path in _all(folder, "_frame_full.mat")}
    roi = next(
        (path for path in _all(folder, "_roi_mainwalkway.mat") if "_count_" not in path.name), None
    )
    mask = None if roi is None else partial(_field_mask, roi)
    for path in listed(folder, "vidf*_f*.png", deep=True):
        numbers = re.fullmatch(r"(vidf.*_(\d+))_f(\d+)", path.stem)
        if numbers is None or int(numbers[2]) >= 10:
            continue
        clip, frame = numbers[1], int(numbers[3]) - 1
        if (int(numbers[2]) * 200 + frame in UCSD_TRAIN) == (split == "train"):
            label = clips.get(clip, folder / f"{clip}_frame_full.mat")
            yield Entry(path.stem, path, partial(_ucsd_heads, label, frame), mask, group=clip)


def _all(folder: Path, end: str) -> list[Path]:
    return listed(folder, f"vidf*{end}", deep=True)


def _ucsd_heads(path: Path, frame: int) -> Heads:
    try:
        frames = _frames(path, "frame")
    except DatasetError as error:
        if "no entry" not in str(error):
            raise
        frames = _frames(path, "fgt")  # the other release has the frames one level down
    return _frame_heads(path, frames, frame)


def _frames(path: Path, key: str) -> list[Any]:
    path = actual(path)
    return _frames_of(path, key, path.stat().st_mtime_ns if is_file(path) else 0)


@lru_cache(maxsize=16)
def _frames_of(path: Path, key: str, modified: int) -> list[Any]:
    content = load_mat(path, key)
    content = content.get("frame", content) if isinstance(content, dict) else content
    return content if isinstance(content, list) else [content]


def _frame_heads(path: Path, frames: list[Any], index: int) -> Heads:
    where = f"{path}, frame {index + 1}"
    try:
        loc = frames[index]["loc"]
    except IndexError as error:
        raise DatasetError(
            f"{path} has no frame {index + 1}, only {len(frames)} frames."
        ) from error
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{where}: there is no loc.") from error
    if isinstance(loc, np.ndarray) and loc.ndim == 2 and loc.shape[1] == 3:
        loc = loc[:, :2]
    return as_heads(loc, where)


def _field_mask(path: Path, height: int, width: int) -> NDArray[np.bool_]:
    roi = load_mat(path, "roi")
    if not isinstance(roi, dict) or "mask" not in roi:
        raise DatasetError(f"{path}: roi has no mask.")
    return as_mask(roi["mask"], height, width, path)


def mall_splits(folder: Path) -> list[str]:
    """Mall (Chen et al., BMVC 2012): mall_gt.mat and frames from frames/seq_000001.jpg on."""
    return list(TRAIN_TEST) if actual(folder / "mall_gt.mat").is_file() else []


def mall_entries(folder: Path, split: str) -> Iterator[Entry]:
    """The first 800 frames train, the others test; the whole frame counts, as in the papers."""
    if split not in TRAIN_TEST:
        raise DatasetError(f"There is no split {split!r}; choose train or test.")
    for path in photos(folder / "frames"):
        frame = re.fullmatch(r"\D*(\d+)", path.stem)  # not a copy, "seq_000001 (2)"
        number = int(frame[1]) if frame else 0
        if number and (number <= MALL_TRAIN) == (split == "train"):
            yield Entry(path.stem, path, partial(_mall_heads, folder / "mall_gt.mat", number - 1))


def _mall_heads(path: Path, index: int) -> Heads:
    return _frame_heads(path, _frames(path, "frame"), index)


def brt_splits(folder: Path) -> list[str]:
    """Beijing-BRT (Ding et al., 2018): frame/NAME.jpg and ground_truth/NAME.mat with loc."""
    return [name for name in TRAIN_TEST if is_folder(folder / name / "frame")]


def brt_entries(folder: Path, split: str) -> Iterator[Entry]:
    """One file per frame, in train and test."""
    for path in photos(folder / split / "frame"):
        label = folder / split / "ground_truth" / f"{path.stem}.mat"
        yield Entry(path.stem, path, partial(points, label, "loc"))


def trancos_splits(folder: Path) -> list[str]:
    """TRANCOS (Guerrero-Gomez-Olmedo et al., IbPRIA 2015): vehicles; image_sets/training.txt."""
    sets = folder / "image_sets"
    return [name for name, file in TRANCOS_SETS.items() if actual(sets / f"{file}.txt").is_file()]


def trancos_entries(folder: Path, split: str) -> Iterator[Entry]:
    """images/NAME.jpg, NAME.txt with one line of x and y per vehicle, NAMEmask.mat with BW."""
    names = folder / "image_sets" / f"{TRANCOS_SETS.get(split, split)}.txt"
    for name in read_text(names).split():
        path = actual(folder / "images" / name)
        label = path.with_suffix(".txt")
        roi: Mask = partial(_trancos_mask, path.with_name(f"{path.stem}mask.mat"))
        yield Entry(path.stem, path, partial(rows_of_numbers, label, 2), roi)


def _trancos_mask(path: Path, height: int, width: int) -> NDArray[np.bool_]:
    return as_mask(load_mat(path, "BW"), height, width, path)
