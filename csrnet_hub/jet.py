"""Draws a photo's density map in jet colours, strip by strip, and checks what can be drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from .regions import CELL

Map = NDArray[np.float32]
Photo = NDArray[np.uint8]
Size = tuple[int, int]  # width, height in pixels
Strip = tuple[int, Map, Photo]  # first row, values (rows, width) in 0..1, their jet colours
STRIP = 256  # rows drawn at a time, so that memory is little more than the result
LEAST_TOP = 0.02  # heads per cell: a lower maximum would draw the noise of an empty scene in red
LEAST_SCALE = 0.01  # keeps the value drawn dark red above 0
LEAST_CELLS = 2**14  # a megapixel's; in a larger map the same heads are spread over more cells


def strips(cells: Map, vmax: float, size: Size, photo_size: Size) -> Iterator[Strip]:
    """Draw a photo's map at `size`, from the top, bilinear between the cells' centres."""
    from matplotlib import colormaps

    source = Image.fromarray(np.maximum(cells, 0) / np.float32(vmax))
    for top in range(0, size[1], STRIP):
        bottom = min(top + STRIP, size[1])
        first, last = (row * photo_size[1] / (size[1] * CELL) for row in (top, bottom))
        box = (0.0, first, photo_size[0] / CELL, last)  # in cells and fractions of cells
        strip = source.resize((size[0], bottom - top), Image.Resampling.BILINEAR, box=box)
        values = np.clip(np.asarray(strip), 0, 1)
        yield top, values, colormaps["jet"](values, bytes=True)[..., :3]


def jet_picture(cells: Map, vmax: float, size: Size, photo_size: Size) -> Image.Image:
    """Draw a photo's map as a picture of `size`."""
    picture = np.empty((size[1], size[0], 3), np.uint8)
    for top, values, colours in strips(cells, vmax, size, photo_size):
        picture[top : top + len(values)] = colours
    return Image.fromarray(picture)


def resized(photo: Photo, size: Size) -> Image.Image:
    """Scale a photo; a large one is first reduced in strips, without copying the whole."""
    height, width = photo.shape[:2]
    across, down = (max(1, own // new // 2) for own, new in zip((width, height), size))
    parts = (photo[top : top + STRIP * down] for top in range(0, height, STRIP * down))
    pictures = (Image.fromarray(part).reduce((across, down)) for part in parts)
    reduced = np.concatenate([np.asarray(picture) for picture in pictures])
    box = (0.0, 0.0, width / across, height / down)
    return Image.fromarray(reduced).resize(size, Image.Resampling.LANCZOS, box=box)


def fitting(size: Size, side: int, least: int = 1) -> Size:
    """Scale a size so that its longer side is `side` pixels and no side is under `least`."""
    if side < 1:
        raise ValueError(f"max_side must be at least 1 pixel, not {side}.")
    scale = side / max(size)
    return max(least, round(size[0] * scale)), max(least, round(size[1] * scale))


def grid(size: Size) -> tuple[int, int]:
    """The size (h, w) in cells of a photo's map."""
    return math.ceil(size[1] / CELL), math.ceil(size[0] / CELL)


def least_top(cells: Map, scale: float = 1.0) -> float:
    """Minimum density, in heads per cell, drawn dark red; `scale` as in `render.colour_top`."""
    return LEAST_TOP * min(1.0, LEAST_CELLS / cells.size, max(scale, LEAST_SCALE) ** 2)


def checked_map(
    density: ArrayLike, vmax: float | None = None, scale: float = 1.0
) -> tuple[Map, float]:
    """A map as float32 and its `vmax` (None: its own); ValueError if either is invalid."""
    cells = np.asarray(density)
    if cells.ndim != 2 or cells.size == 0 or cells.dtype.kind not in "fiu":
        raise ValueError(
            f"A density map is a non-empty (h, w) array, not {cells.dtype} {cells.shape}."
        )
    cells = cells.astype(np.float32, copy=False)
    if not np.isfinite(cells).all():
        raise ValueError("The density map holds NaN or infinite values and cannot be drawn.")
    limits = np.finfo(np.float32)
    if vmax is None:
        vmax = max(float(cells.max()), least_top(cells, scale))
    if not limits.tiny <= vmax <= limits.max:
        raise ValueError(f"vmax must be a positive number of heads per cell, not {vmax}.")
    return cells, float(vmax)


def checked_photo(
    image: ArrayLike, cells: Map, photo_size: Size | None = None
) -> tuple[Photo, Size]:
    """A photo and its size (or `photo_size`); ValueError if the map does not match it."""
    photo = checked_pixels(image)
    size = (photo.shape[1], photo.shape[0])
    own = photo_size or size
    if min(photo.shape) < 1 or grid(own) != cells.shape:
        sizes = f"(H, W) {own[::-1]} has a density map (h, w) of {grid(own)} cells"
        raise ValueError(f"A photo of {sizes}, not {cells.shape}: give the map of this photo.")
    return photo, size


def checked_pixels(image: ArrayLike) -> Photo:
    """A photo (H, W, 3) uint8; ValueError for any other array."""
    photo = np.asarray(image)
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
        raise ValueError(f"A photo is (H, W, 3) uint8, not {photo.dtype} {photo.shape}.")
    return photo
