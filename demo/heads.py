"""Uploaded annotations: their heads, and whether they belong to another photo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csrnet_hub.annotations import photos_in, read_annotation, stem
from csrnet_hub.datasets.matlab import is_hdf5
from csrnet_hub.datasets.text import read_json
from csrnet_hub.density import adaptive_sigma

from .canvas import LARGEST, MOST_POINTS
from .files import file_name
from .shared import VisitorError, is_formula, uploaded_path

NO_ANNOTATION = "There is no annotation yet. Choose a .mat, .csv or .json file with the heads."
MATLAB_7_3 = (
    "This .mat file is in MATLAB 7.3 (HDF5) format, which cannot be read here. Save it with -v7, "
    "or use a CSV table with columns x,y."
)
EMPTY = "The annotation is empty (0 bytes). Save it again, then choose it again."


def read_heads(upload: Any, photo_name: str) -> tuple[Path, NDArray[np.float32]]:
    """The path of an uploaded annotation, and its heads (N, 2) for the photo of that name."""
    path = uploaded_path(upload, NO_ANNOTATION)
    size = path.stat().st_size
    if not size:  # as a table it would mean that nobody is there
        raise VisitorError(EMPTY)
    if size > LARGEST:  # reading millions of rows would keep others waiting
        raise VisitorError(
            f"The annotation is {size / 2**20:.1f} MB; the limit is {LARGEST // 2**20} MB. "
            "Choose an annotation of this photo only."
        )
    if is_hdf5(path):  # a format too complex to read safely from strangers
        raise VisitorError(MATLAB_7_3)
    heads = read_annotation(path, photo_name)
    if len(heads) > MOST_POINTS:
        raise VisitorError(f"The file has {len(heads):,} heads; the limit is {MOST_POINTS:,}.")
    return path, heads


def of_another(path: Path, name: str, size: tuple[int, int]) -> list[str]:
    """Warnings if the name or size in an annotation does not match the photo's `name` and `size`
    (width, height); the file has been read before."""
    sized: tuple[Any, Any] = size
    if path.suffix.lower() == ".json" and isinstance(content := read_json(path), dict):
        sized = (content.get("width"), content.get("height"))
    found = []
    names = photos_in(path)
    own = {stem(one).casefold() for one in (name, kept_name(name))}
    if names and own.isdisjoint(stem(one).casefold() for one in names):
        found.append(
            f"The annotation names {min(names)}, but this photo is called {name}. Is it the right "
            "annotation?"
        )
    if sized != size and all(isinstance(side, int) for side in sized):
        found.append(
            f"The annotation is for a photo of {sized[0]} × {sized[1]} pixels; this one has "
            f"{size[0]} × {size[1]}, so its heads will be misplaced."
        )
    return found


def kernel_widths(heads: NDArray[Any]) -> NDArray[np.float64]:
    """The sigmas (N,) of heads (N, 2), in pixels of the photo as used in training."""
    return np.clip(adaptive_sigma(heads), 2.0, 15.0)


def kept_name(name: str) -> str:
    """A photo's name for the files of its heads: valid on every file system, and not run as a
    formula by any spreadsheet."""
    plain = Path(f"_{name}" if is_formula(name) else name).stem or "photo"
    kept = file_name(f"GT_{plain}.mat").removeprefix("GT_").removesuffix(".mat")
    return kept + Path(name).suffix
