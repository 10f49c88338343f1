"""Counting errors against the number of heads, never against a density map's sum."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def counting_errors(counts: ArrayLike, heads: ArrayLike) -> dict[str, float | None]:
    """Errors of predicted counts (n,) against numbers of heads (n,), n >= 1.

    Returns:
        ``images``; ``mae`` and ``rmse`` (section 4.1 of the CSRNet paper, which calls the second
        "MSE"); ``nae``, the mean of error / heads over images with heads (None if none has);
        ``bias``, the mean error with its sign.

    Raises:
        ValueError: if there is no image or the lengths differ.
    """
    predicted = np.asarray(counts, dtype=np.float64)
    true = np.asarray(heads, dtype=np.float64)
    if predicted.ndim != 1 or predicted.shape != true.shape or not len(true):
        raise ValueError("counts and heads must be two lists of the same length, at least one")
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
