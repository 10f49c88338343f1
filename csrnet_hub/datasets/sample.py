"""What every reader yields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class DatasetError(ValueError):
    """An annotation or a data folder that cannot be used; names the file and the trouble."""


@dataclass(frozen=True)
class Sample:
    """One annotated photograph.

    Attributes:
        name: unique in its split, such as IMG_12.
        path: of the photograph.
        heads: (N, 2) float32, x and y in pixels, as annotated (some may lie outside the frame).
    """

    name: str
    path: Path
    heads: NDArray[np.float32]
