"""ShanghaiTech parts A and B (Zhang et al., CVPR 2016): images/IMG_n.jpg and GT_IMG_n.mat."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from .sample import DatasetError, Sample

SPLITS = {"train": "train_data", "test": "test_data"}
ANNOTATIONS = ("ground-truth", "ground_truth")  # copies of the data set differ


def read_shanghaitech(part: str | Path, split: str) -> list[Sample]:
    """The samples of one split, in the order of their numbers.

    Args:
        part: folder ``part_A`` or ``part_B``, holding ``train_data`` and ``test_data``.
        split: ``"train"`` or ``"test"``.

    Raises:
        DatasetError: if a folder or an annotation is missing or cannot be read.
    """
    if split not in SPLITS:
        raise DatasetError(f"There is no split {split!r}; choose train or test.")
    folder = Path(part) / SPLITS[split]
    if not (folder / "images").is_dir():
        raise DatasetError(f"{folder / 'images'} is not a folder: give the folder of a part.")
    found = [name for name in ANNOTATIONS if (folder / name).is_dir()]
    if not found:
        raise DatasetError(f"{folder} has neither a folder {' nor '.join(ANNOTATIONS)}.")
    images = sorted((folder / "images").glob("*.jpg"), key=_number)
    if not images:
        raise DatasetError(f"{folder / 'images'} holds no .jpg files.")
    return [
        Sample(path.stem, path, read_heads(folder / found[0] / f"GT_{path.stem}.mat"))
        for path in images
    ]


def read_heads(path: Path) -> NDArray[np.float32]:
    """The heads (N, 2) of one .mat annotation, x and y in pixels.

    Raises:
        DatasetError: naming the file and what is wrong with it.
    """
    if not path.is_file():
        raise DatasetError(f"The annotation {path} is missing.")
    try:
        content: dict[str, Any] = loadmat(path)
    except Exception as error:  # scipy raises many kinds on damaged files
        raise DatasetError(f"{path} cannot be read as a .mat file: {error}.") from error
    if "image_info" not in content:
        raise DatasetError(f"{path} has no entry image_info.")
    try:
        points = np.asarray(content["image_info"][0, 0][0, 0][0], dtype=np.float64)
    except (IndexError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: image_info is not laid out as in ShanghaiTech.") from error
    if points.size == 0:
        return np.zeros((0, 2), dtype=np.float32)
    if points.ndim != 2 or points.shape[1] != 2:
        raise DatasetError(f"{path}: heads of shape {points.shape} in place of (N, 2).")
    if not np.isfinite(points).all():
        raise DatasetError(f"{path}: heads that are not finite numbers.")
    return points.astype(np.float32)


def _number(path: Path) -> tuple[int, str]:
    digits = re.findall(r"\d+", path.stem)
    return (int(digits[-1]) if digits else 0, path.stem)
