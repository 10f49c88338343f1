"""The samples that every reader yields, and the checks on every annotation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..density import as_points, heads_in_frame

Heads: TypeAlias = NDArray[np.float32]  # (N, 2) x and y in pixels
Mask: TypeAlias = Callable[[int, int], NDArray[np.bool_]]  # height, width -> (H, W)


class DatasetError(ValueError):
    """An annotation or a data folder that cannot be used; names the file and the fault."""


class Stated(NamedTuple):
    """The size of a photograph in pixels, as stated by its annotation; ``relative`` says that the
    heads' positions are shares of it."""

    width: float
    height: float
    relative: bool = False


@dataclass(frozen=True)
class Sample:
    """One annotated photograph.

    Attributes:
        name: unique in its split, such as IMG_12.
        path: file of the photograph.
        heads: (N, 2) float32, x and y in pixels, as annotated (some may lie outside the frame).
        mask: the region of interest, as a function of the photograph's height and width that
            returns (H, W) bool and reads nothing until called; None: the whole photograph.
        split: the split that it comes from, such as train.
        group: the unit that the data set's protocol distinguishes: the fold, scene or clip.
        part: the source folder, where several are read as one set.
        size: the size that the annotation states, if any.
        scene: the scene or clip of a fixed camera, whose frames look alike; empty for photographs.
    """

    name: str
    path: Path
    heads: Heads
    mask: Mask | None = None
    split: str = ""
    group: str = ""
    part: str = ""
    size: Stated | None = None
    scene: str = ""

    def placed(self, height: int, width: int) -> Heads:
        """The heads (N, 2) on the photograph as read, which has the given size.

        Raises:
            DatasetError: if the annotation is for another size.
        """
        if self.size is None or self.size[:2] == (width, height):
            self._check_inside(height, width)
            return self.heads
        wide, high, relative = self.size
        if relative:
            return np.asarray(self.heads * (width / wide, height / high), np.float32)
        turned = (high, wide) == (width, height)
        # for a file displayed rotated, some tools state the sides as stored
        if turned and _fit(self.heads, height, width) and not _fit(self.heads, width, height):
            return self.heads
        hint = (
            "EXIF rotates this photo: swap width and height in the annotation if its points are "
            "right, otherwise annotate it again"
            if turned
            else "annotate this file, or use the one that was annotated"
        )
        raise DatasetError(
            f"{self.path}: annotated at {wide:g} x {high:g} pixels, but it has {width} x {height}; "
            f"{hint}."
        )

    def _check_inside(self, height: int, width: int) -> None:
        margin = np.array([width, height]) / 10  # clicks may miss the edge
        outside = heads_in_frame(self.heads + margin, *(1.2 * np.array([height, width])))[1]
        if outside >= 3 and outside > len(self.heads) / 5:
            raise DatasetError(
                f"{self.path}: {outside} of {len(self.heads)} heads lie far outside its {width} x "
                f"{height} pixels: annotate this file, or use the one that was annotated."
            )

    def counted(self, height: int, width: int) -> Heads:
        """The heads that count: all annotated ones or, with a mask, those inside it.

        Raises:
            DatasetError: as `placed`.
        """
        heads = self.placed(height, width)
        if self.mask is None:
            return heads
        return heads[heads_in_mask(heads, self.mask(height, width))]


def _fit(heads: Heads, height: int, width: int) -> bool:
    return not heads_in_frame(heads, height, width)[1]


@dataclass(frozen=True)
class Entry:
    """A photograph listed by a data set; its annotation is read when ``heads`` is called."""

    name: str
    path: Path
    heads: Callable[[], Heads]
    mask: Mask | None = None
    group: str = ""
    size: Stated | None = None


def as_heads(points: ArrayLike, where: str | Path) -> Heads:
    """Points of any numeric type -> (N, 2) float32; an empty array of any shape -> (0, 2).

    Raises:
        DatasetError: naming `where` (a file and the position in it) and what is wrong.
    """
    if _has_text(points):
        raise DatasetError(f"{where}: heads are not numbers (text).")
    try:
        array = np.asarray(points)
    except (ValueError, OverflowError) as error:
        raise DatasetError(f"{where}: not every head is a pair of x and y.") from error
    if array.size == 0:
        return np.zeros((0, 2), dtype=np.float32)
    if array.dtype.kind not in "iuf":
        raise DatasetError(f"{where}: heads are not numbers ({array.dtype}).")
    if array.ndim != 2 or array.shape[1] != 2:
        raise DatasetError(f"{where}: heads have shape {array.shape}, not (N, 2).")
    with np.errstate(over="ignore"):  # overflow of float32 is reported below
        heads = array.astype(np.float32)
    if not np.isfinite(heads).all():
        raise DatasetError(f"{where}: some heads are not finite numbers.")
    return heads


def _has_text(values: Any) -> bool:
    """Whether nested lists contain a string: NumPy would make each cell of their array as wide as
    the longest one."""
    rest = [values]  # no recursion: a file's lists may be nested beyond Python's limit
    while rest:
        item = rest.pop()
        if isinstance(item, np.ndarray):
            if item.size and item.dtype.kind in "US":
                return True
        elif isinstance(item, (list, tuple)):
            rest += item
        elif isinstance(item, (str, bytes)):
            return True
    return False


def stated(width: Any, height: Any, relative: bool = False) -> Stated | None:
    """The size that an annotation states; None if it states none, or no valid one."""
    try:
        size = Stated(float(width), float(height), relative)
    except (TypeError, ValueError, OverflowError):
        return None
    return size if 0 < size.width < math.inf and 0 < size.height < math.inf else None


def heads_in_mask(heads: ArrayLike, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which heads (N, 2) lie on a pixel that is true in a mask (H, W): (N,) bool."""
    points = as_points(heads)
    height, width = mask.shape
    inside = np.asarray(((points >= 0) & (points < (width, height))).all(axis=1))
    column, row = points[inside].astype(np.int64).T  # none is negative, so this rounds down
    inside[inside] = mask[row, column]
    return inside


def polygon(vertices: NDArray[np.float32], height: int, width: int) -> NDArray[np.bool_]:
    """The interior of a polygon (V, 2) of x, y in pixels, including its edge, as (H, W) bool."""
    from PIL import Image, ImageDraw

    picture = Image.new("1", (width, height))
    ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in vertices], fill=1, outline=1)
    return np.array(picture, dtype=np.bool_)


def as_mask(values: Any, height: int, width: int, where: str | Path) -> NDArray[np.bool_]:
    """An array of zeros and other values as (H, W) bool.

    Raises:
        DatasetError: naming `where`, if it is not a picture of that size.
    """
    if not isinstance(values, np.ndarray):  # a cell array's texts would grow as wide as the longest
        raise DatasetError(f"{where}: the mask is not an array of numbers.")
    if values.dtype.kind not in "biuf" or values.shape != (height, width):
        raise DatasetError(
            f"{where}: the mask has shape {values.shape}, the photo (H, W) {(height, width)}."
        )
    return np.asarray(values != 0)
