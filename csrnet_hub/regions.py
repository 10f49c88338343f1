"""The count in part of a picture: a drawn outline or a grid.

Each cell of a density map is spread evenly over its pixels inside the picture, and a part gets the
share of the cell that its pixels make up. Parts that cover the picture without overlap therefore
add up to the whole count.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
CELL = 8  # pixels a side: the network's stride
FARTHEST = 1e9  # pixels that a corner may be from the origin, so that nothing overflows


def count_inside(density: ArrayLike, outline: ArrayLike, height: int, width: int) -> float:
    """The heads inside an outline: the sum of a density map (h, w) times `outline_share`.

    Raises:
        ValueError: as for `outline_share`, or if h, w are not ceil(height / 8), ceil(width / 8).
    """
    cells = as_cells(density, height, width)
    return float((cells * outline_share(outline, height, width)).sum())


def outline_share(outline: ArrayLike, height: int, width: int) -> FloatArray:
    """How much of each cell a closed outline encloses, in pixels whose centres lie inside.

    The nonzero winding rule applies, so a line that crosses itself encloses everything it goes
    around. A pixel centre on a border shared by two outlines belongs to only one of them.

    Args:
        outline: (N, 2) corners x, y in pixels of the picture, in order; the last joins the first.
            They may lie outside the picture. Fewer than three enclose nothing.
        height, width: of the picture in pixels.

    Returns:
        (ceil(height / 8), ceil(width / 8)) shares from 0 to 1 of a cell's pixels in the picture.

    Raises:
        ValueError: if the outline is not (N, 2) or not finite, a coordinate exceeds a billion
            pixels (`FARTHEST`), or the picture has no pixels.
    """
    corners = np.asarray(outline, dtype=np.float64)
    corners = corners.reshape(0, 2) if corners.size == 0 else corners
    if corners.ndim != 2 or corners.shape[1] != 2 or not np.isfinite(corners).all():
        raise ValueError(f"an outline must be an (N, 2) array of finite x, y, not {corners.shape}")
    if corners.size and np.abs(corners).max() > FARTHEST:
        raise ValueError(f"the corners of an outline must lie within {FARTHEST:,.0f} pixels")
    if height < 1 or width < 1:
        raise ValueError(f"a picture must have at least one pixel, not {width} x {height}")
    rows, columns = -(-height // CELL), -(-width // CELL)
    shares = np.zeros((rows, columns))
    for i, edges in _bands(_edges(corners, height), rows):
        winding = _turns(edges, np.arange(i * CELL, min(i * CELL + CELL, height)), width)
        inside = np.cumsum(winding, axis=1, out=winding)[:, :width] != 0  # (up to 8, width)
        per_column = np.add.reduceat(inside.sum(axis=0), np.arange(0, width, CELL))  # (w,)
        shares[i] = per_column / _pixels(width) / len(winding)
    return shares


def grid_counts(density: ArrayLike, height: int, width: int, rows: int, columns: int) -> FloatArray:
    """The heads in each field of an even grid over the picture; their sum is the map's.

    Args:
        density: (ceil(height / 8), ceil(width / 8)) heads per cell.
        height, width: of the picture in pixels.
        rows, columns: of the grid, at least 1.

    Returns:
        (rows, columns) heads.

    Raises:
        ValueError: if the map does not have that shape, or the grid has no fields.
    """
    cells = as_cells(density, height, width)
    if rows < 1 or columns < 1:
        raise ValueError(f"a grid must have at least one field, not {rows} x {columns}")
    fields: FloatArray = _overlap(height, rows) @ cells @ _overlap(width, columns).T
    return fields


def _edges(corners: FloatArray, height: int) -> FloatArray:
    """(E, 7): left, top, right, bottom, first row, row after the last, turn; sorted by first row.

    Each edge of the outline from its upper to its lower end, if it passes the height of a pixel
    centre. It is thus the same in either direction, and neighbours round alike.
    """
    after = np.roll(corners, -1, axis=0)
    down = (corners[:, 1] < after[:, 1])[:, None]
    ends = np.hstack([np.where(down, corners, after), np.where(down, after, corners)])
    rows = np.clip(np.ceil(ends[:, [1, 3]] - 0.5), 0, height)
    edges = np.hstack([ends, rows, np.where(down, 1.0, -1.0)])
    edges = edges[rows[:, 0] < rows[:, 1]]
    return edges[np.argsort(edges[:, 4], kind="stable")]


def _bands(edges: FloatArray, rows: int) -> Iterator[tuple[int, FloatArray]]:
    """Each row of cells that edges cross, with those edges."""
    starts = np.searchsorted(edges[:, 4], np.arange(rows + 1) * CELL)
    open_ = edges[:0]
    for i in range(rows):
        open_ = np.concatenate([open_[open_[:, 5] > i * CELL], edges[starts[i] : starts[i + 1]]])
        if len(open_):
            yield i, open_


def _turns(edges: FloatArray, rows: NDArray[np.int64], width: int) -> FloatArray:
    """(rows, width + 1): the change of the winding number at each pixel of some rows."""
    left, top, right, bottom, first, last, turn = edges.T[:, None]  # (1, E) each
    row = rows[:, None]
    x = left + (row + 0.5 - top) * ((right - left) / (bottom - top))
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    passed = (first <= row) & (row < last)  # (rows, E)
    place = ((row - rows[0]) * (width + 1) + column)[passed]
    weights = np.broadcast_to(turn, passed.shape)[passed]
    turns = np.bincount(place, weights, len(rows) * (width + 1)).astype(np.float64, copy=False)
    return turns.reshape(len(rows), width + 1)


def _overlap(side: int, parts: int) -> FloatArray:
    """(parts, cells): the share of each cell of a side in pixels that lies in each even part."""
    cells = np.arange(-(-side // CELL)) * float(CELL)
    edges = np.arange(parts + 1) * (side / parts)
    begin = np.maximum(cells, edges[:-1, None])
    end = np.minimum(np.minimum(cells + CELL, side), edges[1:, None])
    share: FloatArray = np.clip(end - begin, 0, None) / _pixels(side)
    return share


def _pixels(side: int) -> FloatArray:
    """(cells,): the number of pixels of a side in each cell; the last may pass the edge."""
    starts = np.arange(0, side, CELL)
    return np.minimum(CELL, side - starts).astype(np.float64)


def as_cells(density: ArrayLike, height: int, width: int) -> FloatArray:
    """The map of a picture of this size as (ceil(height / 8), ceil(width / 8)) float64.

    Raises:
        ValueError: if it does not have that shape.
    """
    cells = np.asarray(density, dtype=np.float64)
    expected = (-(-height // CELL), -(-width // CELL))
    if cells.shape != expected:
        raise ValueError(f"a picture of {width} x {height} has {expected} cells, not {cells.shape}")
    return cells
