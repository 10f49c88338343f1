"""Prediction intervals of counts by split conformal prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

POWER = 1.0  # errors are proportional to the count, in sparse and dense scenes alike
OLD_POWER = 0.75  # for models that do not record theirs


def spread(count: ArrayLike, power: float = POWER) -> NDArray[np.float64]:
    """How errors grow with the predicted count, in heads, up to a calibrated factor."""
    predicted: NDArray[np.float64] = np.clip(np.asarray(count, dtype=np.float64), 0, None)
    return (predicted + 1) ** power


@dataclass(frozen=True)
class PredictionInterval:
    """The interval around a count that contains the true number with probability ``level``.

    Attributes:
        level: fraction of pictures like the calibration's whose number lies inside.
        quantile: half the interval's width divided by ``spread(count, power)``.
        images: number of calibration pictures.
        power: power of the count with which errors grow.
    """

    level: float
    quantile: float
    images: int
    power: float = OLD_POWER

    def __post_init__(self) -> None:
        numbers = (self.level, self.quantile, self.images, self.power)
        if not all(isinstance(number, (int, float)) for number in numbers):
            raise ValueError("an interval needs numbers: level, quantile, images, power")
        if not (0 < self.level < 1 and 0 <= self.quantile <= 1e6 and self.images >= 1):
            raise ValueError(
                "an interval needs 0 < level < 1, a quantile from 0 to 1e6 and images >= 1"
            )
        if not 0 <= self.power <= 2:
            raise ValueError("an interval needs a power between 0 and 2")

    @classmethod
    def calibrate(
        cls,
        counts: ArrayLike,
        heads: ArrayLike,
        level: float = 0.9,
        groups: Sequence[str] | None = None,
    ) -> PredictionInterval:
        """Calibrate on predicted counts (n,) and true heads (n,) of pictures not trained on.

        The quantile is the ceil((n + 1) level)-th smallest ratio of error to spread, which covers
        a new picture of the same kind with probability ``level`` or more (Lei et al., 2018,
        arXiv:1604.04173, algorithm 2 and theorem 2).

        Args:
            groups: (n,) the kind of each picture. The widest of the groups' intervals is taken, so
                that new pictures of every kind are covered; a kind with too few pictures counts
                only together with the others. A kind without any people is left out, unless
                all are: an interval proportional to the count reaches zero only at full width.

        Raises:
            ValueError: if there are too few pictures (9 are needed for a level of 0.9), the level
                is not between 0 and 1, or the lengths differ.
        """
        predicted = np.asarray(counts, dtype=np.float64)
        true = np.asarray(heads, dtype=np.float64)
        kinds = np.asarray(groups if groups is not None else [""] * true.size)
        if not 0 < level < 1:
            raise ValueError(f"a level must be between 0 and 1, such as 0.9, not {level}")
        if true.ndim != 1 or not predicted.shape == true.shape == kinds.shape:
            shapes = (predicted.shape, true.shape, kinds.shape)
            raise ValueError(
                "give as many counts as heads and groups, not {}, {}, {}".format(*shapes)
            )
        if true.any():
            peopled = np.isin(kinds, kinds[true > 0])
            predicted, true, kinds = predicted[peopled], true[peopled], kinds[peopled]
        if _rank(len(true), level) is None:
            raise ValueError(f"{len(true)} pictures are too few for an interval of level {level}")
        scores = np.abs(predicted - true) / spread(predicted)
        parts = [scores, *(scores[kinds == kind] for kind in np.unique(kinds))]
        ranks = [(part, _rank(len(part), level)) for part in parts]
        quantile = max(np.sort(part)[rank - 1] for part, rank in ranks if rank is not None)
        return cls(level, float(quantile), len(true), POWER)

    def around(self, count: float) -> tuple[float, float]:
        """Lower and upper bound in heads; the lower is at least 0."""
        half = self.quantile * float(spread(count, self.power))
        return max(0.0, count - half), max(0.0, count + half)


def _rank(number: int, level: float) -> int | None:
    rank = math.ceil((number + 1) * Fraction(str(level)))  # in floats 75 * 0.68 exceeds 51
    return rank if rank <= number else None
