"""Worse copies of photographs, to train on: out of focus, or compressed as a messenger does."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .data import Example

BLUR = 2.0  # pixels: the largest standard deviation
QUALITY = (20, 90)  # of JPEG, in libjpeg's scale


def worse_copies(examples: Sequence[Example], seed: int) -> list[Example]:
    """A copy of each photograph, softened and compressed, as far as the seed and its place say.

    Counts of what is soft come out too low from a network that was trained on sharp photographs
    alone (docs/training.md).
    """

    def copy(index: int) -> Example:
        rng = np.random.default_rng((seed, 4, index))
        return replace(examples[index], pixels=_worse(examples[index].pixels, rng))

    with ThreadPoolExecutor() as threads:  # Pillow's work needs no lock
        return list(threads.map(copy, range(len(examples))))


def _worse(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    # half are in focus
    radius, quality = max(0.0, rng.uniform(-BLUR, BLUR)), int(rng.integers(*QUALITY, endpoint=True))
    soft = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius))
    file = io.BytesIO()
    soft.save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))
