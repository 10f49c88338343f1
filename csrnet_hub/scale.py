"""The size at which a picture is counted, and its map brought back to the picture's own cells.

A network knows heads of the sizes that it was trained on. In a photograph of a phone heads are
several times as large as in most data sets, and a network that sees them so misses many; in a
thumbnail they are smaller than any it has seen.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .model import STRIDE, CSRNet

WIDE = 16 / 9  # sides of a picture that is no panorama
ENLARGED = 2.0  # times as long sides, at the most
CROWDED = 0.15  # heads in the cell of a head; docs/training.md says how it was found
STEP = math.sqrt(2)  # a coarse ladder: rounding on some device seldom leads to another rung

Size = tuple[int, int]  # height, width in pixels
Heads = NDArray[np.float64]


def first_scale(model: CSRNet, height: int, width: int) -> float:
    """What the sides of a picture are multiplied by before it is counted for the first time.

    A side shorter than the model's ``min_side`` is enlarged to it, or twice; a picture of more than
    ``working_pixels`` is shrunk to so many, a panorama as its middle would be.
    """
    short, long = sorted((height, width))
    larger = min(max(model.min_side / short, 1.0), ENLARGED)
    if not model.working_pixels:
        return larger
    middle = short * min(long, WIDE * short)
    if middle > model.working_pixels:
        return math.sqrt(model.working_pixels / middle)
    return min(larger, max(math.sqrt(model.working_pixels / (short * long)), 1.0))


def next_scale(density: NDArray[np.float32], scale: float) -> float:
    """The scale for a picture that was counted at one: the same, or a larger one, at most 1, for a
    shrunk picture whose crowd is so dense that some of it does not show."""
    needed = scale * math.sqrt(crowding(density) / CROWDED)
    while scale < min(needed, 1.0):
        scale = min(scale * STEP, 1.0)
    return scale


def crowding(density: NDArray[np.float32]) -> float:
    """Heads in the cell that a head is in, the mean over the heads of a map (h, w)."""
    heads = density.clip(min=0).astype(np.float64)
    total = float(heads.sum())
    return float(np.square(heads).sum()) / total if total > 0 else 0.0


def scaled(height: int, width: int, scale: float) -> Size:
    """Sides multiplied by ``scale``, each at least one pixel."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def resized(pixels: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """A picture (H, W, 3) with its sides multiplied by ``scale``."""
    height, width = scaled(pixels.shape[0], pixels.shape[1], scale)
    if (height, width) == pixels.shape[:2]:
        return pixels
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(picture)  # one that may be written to, which torch asks for


def in_cells_of(density: NDArray[np.float32], counted: Size, size: Size) -> NDArray[np.float32]:
    """The map of a resized picture as a map of the picture itself, with the same sum.

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
        heads = _along(heads, STRIDE * own / length, -(-own // STRIDE)).T
    return heads.astype(np.float32)


def _along(heads: Heads, height: float, count: int) -> Heads:
    """Rows of cells so many pixels high as ``count`` rows of 8 pixels; columns keep their sums.

    Density runs straight from the centre of each row to the next one's: new rows get its integral.
    """
    edges = np.arange(count + 1) * (STRIDE / height)  # in old rows
    edges[-1] = max(edges[-1], len(heads))  # a last row may reach past the picture
    places = (edges - 0.5).clip(-0.5, len(heads) - 0.5)  # centre i is at i
    before = places.clip(0).astype(np.int64)
    beyond = (places - before)[:, None]
    slope = np.diff(heads, axis=0, append=heads[-1:])[before]
    until_centre = (heads.cumsum(axis=0) - heads / 2)[before]
    until = until_centre + beyond * heads[before] + beyond.clip(0) ** 2 / 2 * slope
    return np.diff(until, axis=0)
