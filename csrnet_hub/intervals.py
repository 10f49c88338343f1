"""Prediction intervals of counts by split conformal prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

POWER = 1.0  # errors are a share of the count, in sparse scenes as in dense ones
OLD_POWER = 0.75  # of models that do not say theirs


def spread(count: ArrayLike, power: float = POWER) -> NDArray[np.float64]:
    """How errors grow with the predicted count, in heads, up to a factor that calibration finds."""
    predicted: NDArray[np.float64] = np.clip(np.asarray(count, dtype=np.float64), 0, None)
    return (predicted + 1) ** power


@dataclass(frozen=True)
class PredictionInterval:
    """The interval around a count that holds the true number with probability ``level``.

    Attributes:
        level: share of pictures like the calibration's whose number lies inside.
        quantile: half the interval's width over ``spread(count, power)``.
        images: number of pictures that it was calibrated on.
        power: of the count, with which its errors grow.
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
        """From predicted counts (n,) and numbers of heads (n,) of pictures not trained on.

        The quantile is the ceil((n + 1) level)-th smallest of the errors over their spreads, which
        covers a new picture of the same kind with probability ``level`` or more (Lei et al., 2018,
        arXiv:1604.04173, algorithm 2 and theorem 2).

        Args:
            groups: (n,) which kind each picture is of. The widest of their intervals is taken, so
                that a new picture of each kind is covered; a kind with too few pictures counts
                with the others alone. One in which nobody is on any picture is left out, unless
                all are: no share of a count holds zero, but the whole of it.

        Raises:
            ValueError: if there are too few pictures for that: 9 for a level of 0.9; if the level
                is not between 0 and 1, or there are not as many of one as of the others.
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
        """Lower and upper end in heads, the lower at least 0."""
        half = self.quantile * float(spread(count, self.power))
        return max(0.0, count - half), max(0.0, count + half)


def _rank(number: int, level: float) -> int | None:
    rank = math.ceil((number + 1) * Fraction(str(level)))  # 75 * 0.68 is above 51 in floats
    return rank if rank <= number else None
