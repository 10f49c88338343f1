"""Prediction intervals of counts by split conformal prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

POWER = 0.75  # between the spread of a Poisson count (1/2) and a fixed relative error (1)


def spread(count: ArrayLike) -> NDArray[np.float64]:
    """How errors grow with the predicted count, in heads, up to a factor that calibration finds."""
    predicted: NDArray[np.float64] = np.clip(np.asarray(count, dtype=np.float64), 0, None)
    return (predicted + 1) ** POWER


@dataclass(frozen=True)
class PredictionInterval:
    """The interval around a count that holds the true number with probability ``level``.

    Attributes:
        level: share of pictures like the calibration's whose number lies inside.
        quantile: half the interval's width over ``spread(count)``.
        images: number of pictures that it was calibrated on.
    """

    level: float
    quantile: float
    images: int

    def __post_init__(self) -> None:
        numbers = (self.level, self.quantile, self.images)
        if not all(isinstance(number, (int, float)) for number in numbers):
            raise ValueError("an interval needs three numbers: level, quantile, images")
        if not (0 < self.level < 1 and 0 <= self.quantile < math.inf and self.images >= 1):
            raise ValueError("an interval needs 0 < level < 1, quantile >= 0 and images >= 1")

    @classmethod
    def calibrate(
        cls, counts: ArrayLike, heads: ArrayLike, level: float = 0.9
    ) -> PredictionInterval:
        """From predicted counts (n,) and numbers of heads (n,) of pictures not trained on.

        The quantile is the ceil((n + 1) level)-th smallest of the errors over their spreads, which
        covers a new picture of the same kind with probability ``level`` or more (Lei et al., 2018,
        arXiv:1604.04173, algorithm 2 and theorem 2).

        Raises:
            ValueError: if there are too few pictures for that: 9 for a level of 0.9.
        """
        predicted = np.asarray(counts, dtype=np.float64)
        true = np.asarray(heads, dtype=np.float64)
        rank = math.ceil((len(true) + 1) * level)
        if predicted.shape != true.shape or predicted.ndim != 1 or rank > len(true):
            raise ValueError(f"{len(true)} pictures are too few for an interval of level {level}")
        scores = np.sort(np.abs(predicted - true) / spread(predicted))
        return cls(level, float(scores[rank - 1]), len(true))

    def around(self, count: float) -> tuple[float, float]:
        """Lower and upper end in heads, the lower at least 0."""
        half = self.quantile * float(spread(count))
        return max(0.0, count - half), max(0.0, count + half)
