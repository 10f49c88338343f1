"""Tiles of a picture and the surroundings that they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .model import STRIDE, CSRNet, receptive_field

Progress = Callable[[int, int], None]
Cells = tuple[int, int, int, int]  # top, bottom, left, right
Window = tuple[Cells, Cells]  # a tile, and the area it is computed from


class Mapped(NamedTuple):
    """A picture's map, in heads per cell (h, w), and how it was computed.

    Attributes:
        device, dtype: what the network ran on and in, such as ``cpu`` and ``float32``.
        tiles: number of pieces in which the picture was processed.
    """

    density: NDArray[np.float32]
    device: str
    dtype: str
    tiles: int


def halo(model: CSRNet) -> int:
    """Cells around a tile that affect its part of the density map."""
    first, last = receptive_field(model)
    reach = max(-first, last - (STRIDE - 1))
    return -(-reach // STRIDE)


def plan_tiles(rows: int, columns: int, tile: int) -> Iterator[Cells]:
    """Cells (top, bottom, left, right) of similar tiles, at most ``tile`` pixels a side."""
    limit = tile // STRIDE
    down, across = -(-rows // limit), -(-columns // limit)
    for i in range(down):
        for j in range(across):
            yield (
                rows * i // down,
                rows * (i + 1) // down,
                columns * j // across,
                columns * (j + 1) // across,
            )


def windows(rows: int, columns: int, tile: int, reach: int) -> Iterator[Window]:
    """Tiles, each with the window around it that its part of the map is computed from, in cells.

    Args:
        tile: maximum side in pixels.
        reach: cells that a window extends beyond its tile, up to the picture's edge.

    Yields:
        (top, bottom, left, right) of tile and window; all windows of a picture have one size.
    """
    tiles = list(plan_tiles(rows, columns, tile))
    high = min(max(bottom - top for top, bottom, _, _ in tiles) + 2 * reach, rows)
    wide = min(max(right - left for _, _, left, right in tiles) + 2 * reach, columns)
    for top, bottom, left, right in tiles:
        y, x = min(max(top - reach, 0), rows - high), min(max(left - reach, 0), columns - wide)
        yield (top, bottom, left, right), (y, y + high, x, x + wide)
