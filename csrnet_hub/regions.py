"""The count in a part of a picture: a drawn outline, a grid.

Each cell of a density map is spread evenly over its pixels inside the picture, and a part gets the
share of a cell that its pixels are. Parts that cover the picture without overlap therefore add up
to the whole count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
CELL = 8  # pixels a side: the network's stride


def count_inside(density: ArrayLike, outline: ArrayLike, height: int, width: int) -> float:
    """The heads inside an outline: the sum of a density map (h, w) times `outline_share`.

    Raises:
        ValueError: as for `outline_share`, or h, w are not ceil(height / 8), ceil(width / 8).
    """
    cells = _checked(density, height, width)
    return float((cells * outline_share(outline, height, width)).sum())


def outline_share(outline: ArrayLike, height: int, width: int) -> FloatArray:
    """How much of each cell a closed outline encloses, in pixels whose centres lie inside.

    Inside is by the nonzero winding rule, so a line that crosses itself encloses all that it goes
    around. A pixel centre on a shared border belongs to one of two neighbouring outlines only.

    Args:
        outline: (N, 2) corners x, y in pixels of the picture, in order; the last joins the first.
            They may lie outside the picture. Fewer than three enclose nothing.
        height, width: of the picture in pixels.

    Returns:
        (ceil(height / 8), ceil(width / 8)) shares from 0 to 1 of a cell's pixels in the picture.

    Raises:
        ValueError: the outline is not (N, 2) or not finite, or the picture has no pixels.
    """
    corners = np.asarray(outline, dtype=np.float64)
    corners = corners.reshape(0, 2) if corners.size == 0 else corners
    if corners.ndim != 2 or corners.shape[1] != 2 or not np.isfinite(corners).all():
        raise ValueError(f"an outline is an (N, 2) array of finite x, y, not {corners.shape}")
    if height < 1 or width < 1:
        raise ValueError(f"a picture has at least one pixel, not {width} x {height}")
    rows, columns = -(-height // CELL), -(-width // CELL)
    row, column, turn = _crossings(corners, height, width)
    shares = np.zeros((rows, columns))
    starts = np.searchsorted(row, np.arange(rows + 1) * CELL)
    for i in np.flatnonzero(np.diff(starts)):
        part = slice(starts[i], starts[i + 1])
        winding = np.zeros((CELL, columns * CELL + 1), np.int32)
        np.add.at(winding, (row[part] - i * CELL, column[part]), turn[part])
        inside = winding.cumsum(axis=1)[:, :width] != 0  # (8, width)
        per_column = np.add.reduceat(inside.sum(axis=0), np.arange(0, width, CELL))  # (w,)
        shares[i] = per_column / _pixels(width) / min(CELL, height - i * CELL)
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
        ValueError: the map is not of that shape, or the grid has no field.
    """
    cells = _checked(density, height, width)
    if rows < 1 or columns < 1:
        raise ValueError(f"a grid has at least one field, not {rows} x {columns}")
    fields: FloatArray = _overlap(height, rows) @ cells @ _overlap(width, columns).T
    return fields


def _crossings(
    corners: FloatArray, height: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Where the outline crosses the lines through pixel centres: row, first column after, turn."""
    found = [(np.zeros(0, np.int64),) * 3]
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0)):
        (left, top), (right, bottom) = sorted(((x0, y0), (x1, y1)), key=lambda point: point[1])
        first, last = (int(np.clip(np.ceil(y - 0.5), 0, height)) for y in (top, bottom))
        if first >= last:  # it passes no pixel centre's height
            continue
        row = np.arange(first, last)
        # from the same end whatever the direction: neighbours round alike along a shared border
        x = left + (row + 0.5 - top) * ((right - left) / (bottom - top))
        column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
        found.append((row, column, np.full(len(row), 1 if y1 > y0 else -1)))
    row, column, turn = (np.concatenate(parts) for parts in zip(*found))
    order = np.argsort(row, kind="stable")
    return row[order], column[order], turn[order]


def _overlap(side: int, parts: int) -> FloatArray:
    """(parts, cells): the share of each cell of a side in pixels that lies in each even part."""
    cells = np.arange(-(-side // CELL)) * float(CELL)
    edges = np.arange(parts + 1) * (side / parts)
    begin = np.maximum(cells, edges[:-1, None])
    end = np.minimum(np.minimum(cells + CELL, side), edges[1:, None])
    share: FloatArray = np.clip(end - begin, 0, None) / _pixels(side)
    return share


def _pixels(side: int) -> FloatArray:
    """(cells,): how many pixels of a side each cell holds; the last may reach past the picture."""
    starts = np.arange(0, side, CELL)
    return np.minimum(CELL, side - starts).astype(np.float64)


def _checked(density: ArrayLike, height: int, width: int) -> FloatArray:
    cells = np.asarray(density, dtype=np.float64)
    expected = (-(-height // CELL), -(-width // CELL))
    if cells.shape != expected:
        raise ValueError(f"a picture of {width} x {height} has {expected} cells, not {cells.shape}")
    return cells
