"""Chooses the size at which a picture is counted, and maps the result back to its own cells.

A network only knows heads of the sizes that it was trained on. In a phone photograph heads are
several times as large as in most data sets, and the network misses many of them; in a thumbnail
they are smaller than any it has seen; and it takes parts of a face that fills the picture for
heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .model import STRIDE, CSRNet
from .tiles import Mapped

WIDE = 16 / 9  # aspect ratio above which a picture is a panorama
NEARLY = 0.9  # factor for the sides: shrinking by less would blur more than it would help
MEGAPIXEL = 2**20
ENLARGED = 2.0  # largest factor for the sides
CROWDED = 0.1  # heads in the cell of a head; docs/training.md says how it was found
FALLS = 1.25  # power of the size with which it falls: not 2, a larger picture shows more heads
STEP = math.sqrt(2)  # ratio between the sizes at which large heads are looked for
SMALL = STEP**-5  # of a scale: where the search for large heads starts

Size = tuple[int, int]  # height, width in pixels
Heads = NDArray[np.float64]
Pixels = NDArray[np.uint8]  # (H, W, 3)
Density = Callable[[Pixels], Mapped]


def mapped_at(
    scale: float | None, model: CSRNet, density: Density, pixels: Pixels
) -> tuple[Mapped, float]:
    """The map of a picture in the picture's own cells, and the scale at which it was counted.

    Args:
        scale: factor for its sides; None: chosen as the model's training requires.
        density: computes the map of a picture in that picture's cells.
    """
    if scale is None:
        found, scale = _as_in_training(model, density, pixels)
    else:
        found = density(resized(pixels, scale))
    size = height, width = pixels.shape[:2]
    own = in_cells_of(found.density, scaled(height, width, scale), size)
    return found._replace(density=own), scale


def _as_in_training(model: CSRNet, density: Density, pixels: Pixels) -> tuple[Mapped, float]:
    scale = first_scale(model, *pixels.shape[:2])
    found = density(resized(pixels, scale))
    if may_be_large(model, found.density):
        found, scale = _from_small(model, density, pixels, scale) or (found, scale)
    if (larger := larger_scale(found.density, scale)) > scale:
        again = density(resized(pixels, larger))
        # if it shows no more heads than before, the photo is large but not sharp
        if again.density.sum() > found.density.sum():
            found, scale = again, larger
    return found, scale


def _from_small(
    model: CSRNet, density: Density, pixels: Pixels, most: float
) -> tuple[Mapped, float] | None:
    """The map at the smallest scale at which heads have no more crowding than the largest training
    heads alone; None if that scale is (almost) ``most`` or the map shows nobody."""
    scale = most * SMALL
    while scale * STEP < NEARLY * most:
        found = density(resized(pixels, scale))
        larger = next_step(found.density, scale, roomy(model), most)
        if larger == scale:
            return (found, scale) if shows_heads(found.density) else None
        scale = larger
    return None


def first_scale(model: CSRNet, height: int, width: int) -> float:
    """The factor for a picture's sides when it is counted for the first time.

    Large pictures are shrunk to ``working_pixels`` as in `shrinking`. A side shorter than the
    model's ``min_side`` is enlarged to it, but at most twofold and within ``working_pixels``.
    """
    area = height * width
    most = model.working_pixels or max(area, MEGAPIXEL)
    smaller = shrinking(height, width, most)
    if smaller < 1:
        return smaller
    return max(min(model.min_side / min(height, width), ENLARGED, math.sqrt(most / area)), 1.0)


def shrinking(height: int, width: int, pixels: int) -> float:
    """The factor for the sides that shrinks a larger picture to ``pixels``; for a panorama, that of
    its middle, with sides of 16 to 9; 1 for a picture with hardly more pixels."""
    short, long = sorted((height, width))
    scale = math.sqrt(pixels / (short * min(long, WIDE * short)))
    return scale if scale < NEARLY else 1.0


def larger_scale(density: NDArray[np.float32], scale: float) -> float:
    """The scale, up to 1, at which the crowding of a picture counted at ``scale`` should have
    fallen to CROWDED; ``scale`` itself if it is already no higher, since then the whole crowd is
    visible. It changes little where crowding does, so nearly equal pictures have nearly equal
    counts."""
    needed = scale * math.pow(crowding(density) / CROWDED, 1 / FALLS)
    return max(scale, min(needed, 1.0))


def next_step(density: NDArray[np.float32], scale: float, allowed: float, most: float) -> float:
    """The next scale, by steps up to ``most``, if heads alone have more crowding than is allowed;
    otherwise the same scale."""
    needed = scale * math.sqrt(crowding(density) / allowed)
    while scale < min(needed, most):
        scale = min(scale * STEP, most)
    return scale


def roomy(model: CSRNet) -> float:
    """Crowding of the largest training heads with nobody near, at most a quarter of CROWDED; 0 if
    their size is not known."""
    if model.largest_sigma == 0:
        return 0.0
    return min(alone(model.largest_sigma), CROWDED / 4)  # crowded heads are not large


def may_be_large(model: CSRNet, density: NDArray[np.float32]) -> bool:
    """Whether a map's heads may be larger than those of training: their crowding is below four
    times `roomy`, the crowding of heads half as large as the largest of training."""
    return bool(np.isfinite(density).all()) and crowding(density) < 4 * roomy(model)


def shows_heads(density: NDArray[np.float32]) -> bool:
    """Whether a map contains at least half a head: small heads vanish in a smaller picture."""
    return bool(np.isfinite(density).all() and density.sum(dtype=np.float64) >= 0.5)


def alone(sigma: float) -> float:
    """Crowding of a head with nobody near, whose kernel has a standard deviation of ``sigma``
    pixels: the sum of the squares of its cells."""
    return STRIDE**2 / (4 * math.pi * sigma**2)


def crowding(density: NDArray[np.float32]) -> float:
    """Heads in the cell that contains a head, averaged over the heads of a map (h, w)."""
    heads = density.clip(min=0).astype(np.float64)
    total = float(heads.sum())
    return float(np.square(heads).sum()) / total if total > 0 else 0.0


def scaled(height: int, width: int, scale: float) -> Size:
    """Multiply the sides by ``scale``; each stays at least one pixel."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def resized(pixels: Pixels, scale: float) -> Pixels:
    """Resize a picture (H, W, 3), multiplying its sides by ``scale``."""
    height, width = scaled(pixels.shape[0], pixels.shape[1], scale)
    if (height, width) == pixels.shape[:2]:
        return pixels
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(picture)  # a writable copy, which torch requires


def in_cells_of(density: NDArray[np.float32], counted: Size, size: Size) -> NDArray[np.float32]:
    """Convert the map of a resized picture to the picture's own cells, keeping the sum.

    Args:
        density: (ceil(H' / 8), ceil(W' / 8)) heads per cell of the picture as it was counted.
        counted: H', W'.
        size: H, W of the picture itself.

    Returns:
        (ceil(H / 8), ceil(W / 8)) float32 heads per cell.
    """
    if counted == size:
        return density
    heads = density.astype(np.float64)
    for length, own in zip(counted, size):  # rows, then columns
        heads = _along(heads, length, own).T
    return np.ascontiguousarray(heads, dtype=np.float32)


def _along(heads: Heads, counted: int, own: int) -> Heads:
    """Resample rows of 8 pixels from a side of ``counted`` pixels to a side of ``own`` pixels.

    Within each row the density is the parabola that has the row's heads and joins its neighbours at
    the ends (the piecewise parabolic method, Colella & Woodward, 1984); new rows get its integral.
    Columns keep their sums, an even crowd stays even, and no row becomes negative if none was.
    """
    old, new = (np.append(np.arange(0, side, STRIDE), side) / side for side in (counted, own))
    widths = np.diff(old)[:, None]  # the last row may have fewer than 8 pixels
    means = heads / widths
    ends = _at_ends(means)
    row = np.searchsorted(old[1:-1], new, side="right")  # row in which each new row begins
    first, mean, last = ends[row], means[row], ends[row + 1]
    at = (new - old[row])[:, None] / widths[row]  # from 0 to 1
    share = at * (first + at * (3 * mean - 2 * first - last + at * (first + last - 2 * mean)))
    above = np.vstack([np.zeros_like(heads[:1]), heads.cumsum(axis=0)])
    return np.diff(above[row] + share * widths[row], axis=0)


def _at_ends(means: Heads) -> Heads:
    """Density at row ends, (n + 1, m), from row means (n, m): that of the cubic through four rows,
    level at the borders of the picture."""
    around = np.vstack([means[:1], means, means[-1:]])
    low, high = np.minimum(means[:-1], means[1:]), np.maximum(means[:-1], means[1:])
    inner = (7 * (low + high) - around[:-3] - around[3:]) / 12
    # within these bounds a parabola never changes sign
    inner = inner.clip(3 * high.clip(max=0), 3 * low.clip(min=0))
    return np.vstack([means[:1], inner, means[-1:]])
