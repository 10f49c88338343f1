"""Errors against annotated heads, never against a density map's sum; similarity of maps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from .density import as_points
from .regions import CELL, as_cells, grid_counts

FloatArray = NDArray[np.float64]
RANGES = {"0": 0, "1-9": 9, "10-30": 30, "31-100": 100, "101-500": 500, "more": math.inf}
RESAMPLES = 2000  # bootstrap resamples
COVERAGE = 0.95  # of the bootstrap intervals


def counting_errors(counts: ArrayLike, heads: ArrayLike) -> dict[str, float | None]:
    """Errors of predicted counts (n,) against true numbers of heads (n,), n >= 1.

    Returns:
        ``images``; ``mae`` and ``rmse`` (section 4.1 of the CSRNet paper, which calls the second
        "MSE"); ``nae``, the mean of error / heads over images with heads (None if there are none);
        ``bias``, the mean signed error.

    Raises:
        ValueError: if there are no images or the lengths differ.
    """
    predicted, true = _same_length(counts, heads)
    error = predicted - true
    crowded = true > 0
    nae = np.abs(error[crowded]) / true[crowded]
    return {
        "images": len(true),
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "nae": float(nae.mean()) if len(nae) else None,
        "bias": float(error.mean()),
    }


def errors_by_range(counts: ArrayLike, heads: ArrayLike) -> dict[str, Any]:
    """`counting_errors` by range of the number of heads: 0, 1-9, 10-30, 31-100, 101-500 and more;
    ranges without images are left out.

    Returns:
        For each range its errors and ``mae_interval``, the 95 % percentile bootstrap interval of
        the MAE over images (Efron, 1979; 2000 resamples, seeded). With few images it is too narrow;
        with one image it is just the error itself.

    Raises:
        ValueError: as for `counting_errors`.
    """
    predicted, true = _same_length(counts, heads)
    place = np.searchsorted(list(RANGES.values()), true)
    result = {}
    for index, name in enumerate(RANGES):
        of_range = place == index
        if of_range.any():
            errors = counting_errors(predicted[of_range], true[of_range])
            interval = mae_interval(predicted[of_range], true[of_range])
            result[name] = {**errors, "mae_interval": interval}
    return result


def mae_interval(counts: ArrayLike, heads: ArrayLike) -> list[float]:
    """The 95 % percentile bootstrap interval [low, high] of the MAE over images.

    Raises:
        ValueError: as for `counting_errors`.
    """
    predicted, true = _same_length(counts, heads)
    error = np.abs(predicted - true)
    rng = np.random.default_rng(0)
    means = [rng.choice(error, len(error)).mean() for _ in range(RESAMPLES)]
    tail = (1 - COVERAGE) / 2
    return [float(end) for end in np.quantile(means, [tail, 1 - tail])]


def game(density: ArrayLike, heads: ArrayLike, height: int, width: int, level: int) -> float:
    """Grid average mean absolute error of one picture (Guerrero-Gomez-Olmedo et al., 2015): the
    sum of the absolute counting errors in 2^level x 2^level equal parts. GAME(0) is the error.

    Args:
        density: (ceil(height / 8), ceil(width / 8)) heads per cell. A cell cut by the edge of a
            part is divided in proportion to the area inside the frame.
        heads: (N, 2) x, y in pixels; those outside the frame count in the nearest part.

    Raises:
        ValueError: if the map does not have that shape, or the heads are not (N, 2).
    """
    points = as_points(heads)
    parts = 2**level
    predicted = grid_counts(density, height, width, parts, parts)
    place = np.floor(points / (width, height) * parts).clip(0, parts - 1).astype(np.int64)
    true = np.zeros((parts, parts))
    np.add.at(true, (place[:, 1], place[:, 0]), 1)
    return float(np.abs(predicted - true).sum())


def map_likeness(density: ArrayLike, truth: ArrayLike) -> tuple[float, float]:
    """PSNR in dB and SSIM of a predicted density map against the ground truth.

    The CSRNet paper (section 4.1) says only that the map is resized to the picture "with
    interpolation" and that both are normalised. Here: the map of cells is enlarged to the picture's
    pixels by bilinear interpolation between cell centres; negative values become 0; each map is
    divided by its own maximum, so that both lie in [0, 1] (an all-zero map stays zero); the data
    range is 1. SSIM follows Wang et al. (2004): Gaussian window of 11 x 11 pixels and sigma
    1.5, K1 0.01, K2 0.03, averaged over all pixels whose window lies inside.

    Args:
        density: (ceil(H / 8), ceil(W / 8)) heads per cell.
        truth: (H, W) heads per pixel.

    Returns:
        PSNR (infinite for equal maps) and SSIM (at most 1).

    Raises:
        ValueError: if the shapes do not fit, or H or W is under 11.
    """
    true = np.asarray(truth, dtype=np.float64)
    height, width = true.shape
    cells = as_cells(density, height, width).astype(np.float32)
    box = (0.0, 0.0, width / CELL, height / CELL)  # in cells: the last may extend past the edge
    enlarged = Image.fromarray(cells).resize((width, height), Image.Resampling.BILINEAR, box=box)
    one, other = _normalised(np.asarray(enlarged, dtype=np.float64)), _normalised(true)
    return psnr(one, other), ssim(one, other)


def psnr(one: FloatArray, other: FloatArray) -> float:
    """Peak signal-to-noise ratio in dB of two maps (H, W) with values in [0, 1]."""
    error = float(((one - other) ** 2).mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(one: FloatArray, other: FloatArray) -> float:
    """Mean structural similarity (Wang et al., 2004) of two maps (H, W) with values in [0, 1].

    Raises:
        ValueError: if a side is shorter than the window, 11 pixels.
    """
    if min(one.shape) < 11:
        raise ValueError(f"SSIM needs at least 11 x 11 pixels, not {one.shape}")

    def mean(values: FloatArray) -> FloatArray:
        blurred: FloatArray = gaussian_filter(values, 1.5, radius=5)
        return blurred

    mean_one, mean_other = mean(one), mean(other)
    variances = mean(one**2) - mean_one**2 + mean(other**2) - mean_other**2
    covariance = mean(one * other) - mean_one * mean_other
    c1, c2 = 0.01**2, 0.03**2
    alike = (2 * mean_one * mean_other + c1) * (2 * covariance + c2)
    alike /= (mean_one**2 + mean_other**2 + c1) * (variances + c2)
    return float(alike[5:-5, 5:-5].mean())


def _same_length(counts: ArrayLike, heads: ArrayLike) -> tuple[FloatArray, FloatArray]:
    predicted = np.asarray(counts, dtype=np.float64)
    true = np.asarray(heads, dtype=np.float64)
    if predicted.ndim != 1 or predicted.shape != true.shape or not len(true):
        raise ValueError("counts and heads must be two lists of the same length, at least one")
    return predicted, true


def _normalised(values: FloatArray) -> FloatArray:
    positive = np.maximum(values, 0)
    top = positive.max()
    return positive / top if top > 0 else positive
