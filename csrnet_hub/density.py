"""Heads to density maps: fixed and geometry-adaptive kernels, each of mass one in the frame.

A separable Gaussian clipped to a rectangular frame is still a product of two one-dimensional ones.
So the map of N heads is one product of an (h, N) and an (N, w) matrix, and no head's kernel is
ever filtered over the whole picture.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from scipy.special import ndtr

FloatArray = NDArray[np.float64]
LONELY = 15.0  # pixels: the adaptive width of a head without neighbours
LEAST = 0.5  # pixels: minimum adaptive width, so that duplicate heads keep a kernel
_SIGMA = (1e-6, 1e9)  # pixels: beyond these, widths make no difference
_HEADS_AT_ONCE = 2048
_LARGEST = 2**22  # numbers in the two matrices: 32 MB, with up to four copies


def as_points(heads: ArrayLike) -> FloatArray:
    """Convert heads of any numeric type to (N, 2) float64; an empty array of any shape to (0, 2).

    Raises:
        ValueError: if the array is not (N, 2).
    """
    points = np.asarray(heads, dtype=np.float64)
    if points.size == 0:
        points = points.reshape(0, 2)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"heads must be an (N, 2) array of x, y in pixels, not {points.shape}")
    return points


def heads_in_frame(heads: ArrayLike, height: float, width: float) -> tuple[FloatArray, int]:
    """Keep heads (N, 2) x, y in pixels with 0 <= x < width, 0 <= y < height; count the others.

    Raises:
        ValueError: if the array is not (N, 2).
    """
    points = as_points(heads)
    x, y = points[:, 0], points[:, 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)  # NaN compares false: outside
    return points[inside], int(len(points) - inside.sum())


def adaptive_sigma(heads: ArrayLike, beta: float = 0.3, k: int = 3) -> FloatArray:
    """Geometry-adaptive kernel widths: beta times the mean distance to the k nearest heads.

    Args:
        heads: (N, 2) x, y in pixels.
        beta, k: 0.3 and 3 in the CSRNet paper (section 3.2, ground truth generation).

    Returns:
        (N,) standard deviations in pixels. With fewer than k neighbours, the mean over those that
        exist; `LONELY` without any.

    Raises:
        ValueError: if the array is not (N, 2).
    """
    points = as_points(heads)
    if len(points) < 2:
        return np.full(len(points), LONELY)
    neighbours = min(k, len(points) - 1)
    places, place, times = np.unique(points, axis=0, return_inverse=True, return_counts=True)
    # Further copies of a place change nothing, but thousands make the tree extremely slow.
    copies = np.repeat(places, np.minimum(times, neighbours + 1), axis=0)
    distance, _ = cKDTree(copies).query(places, k=neighbours + 1)  # the first is the head itself
    widths: FloatArray = np.maximum(beta * distance[:, 1:].mean(axis=1), LEAST)
    return widths[place.ravel()]


def density_map(
    heads: ArrayLike,
    height: int,
    width: int,
    sigma: float | ArrayLike | None = None,
    stride: int = 1,
) -> FloatArray:
    """The density map of a picture, whose sum is the number of heads inside the frame.

    Each kernel is integrated exactly over the cells and normalised inside the frame, so mass is
    kept at the borders, at any stride and for any width.

    Args:
        heads: (N, 2) x, y in pixels; those outside the frame are dropped with a warning.
        height, width: of the picture in pixels.
        sigma: standard deviation in pixels, shared or one per head; None: geometry-adaptive.
        stride: pixels per cell, 1 (full resolution) or 8 (the network's).

    Returns:
        (ceil(height / stride), ceil(width / stride)) heads per cell.

    Raises:
        ValueError: if heads are not (N, 2), or sigma is not positive and finite or has the wrong
            length.
    """
    points, dropped = heads_in_frame(heads, height, width)
    if dropped:
        warnings.warn(f"{dropped} heads lie outside the frame and were dropped", stacklevel=2)
    if sigma is None:
        widths = adaptive_sigma(points)
    else:
        widths = np.asarray(sigma, dtype=np.float64)
        if widths.ndim and dropped:
            raise ValueError("with one sigma a head, drop the heads outside the frame first")
        widths = np.broadcast_to(widths, len(points))
    if not ((widths > 0) & np.isfinite(widths)).all():
        raise ValueError("sigma must be a positive number of pixels")
    rows, columns = -(-height // stride), -(-width // stride)
    total = np.zeros((rows, columns))
    at_once = max(1, min(_HEADS_AT_ONCE, _LARGEST // max(1, rows + columns)))
    for start in range(0, len(points), at_once):
        part = slice(start, start + at_once)
        across = _cell_mass(points[part, 0], widths[part], width, columns, stride)  # (n, w)
        down = _cell_mass(points[part, 1], widths[part], height, rows, stride)  # (n, h)
        total += down.T @ across  # (h, w)
    return total


def _cell_mass(
    position: FloatArray, sigma: FloatArray, length: int, cells: int, stride: int
) -> FloatArray:
    # (n, cells): the share of each head's mass inside the frame, on one axis, that a cell gets.
    sigma = np.clip(sigma, *_SIGMA)  # outside these bounds rounding gives NaN
    edges = np.minimum(np.arange(cells + 1) * float(stride), length)
    reached = ndtr((edges - position[:, None]) / sigma[:, None])
    begin = ndtr(-position / sigma)
    end = ndtr((length - position) / sigma)
    share: FloatArray = np.diff(reached, axis=1) / (end - begin)[:, None]
    return share
