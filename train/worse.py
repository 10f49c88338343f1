"""Worse copies of photographs, to train on: compressed, as a messenger does, half of them soft."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from tqdm import tqdm

from .data import Example

BLUR = 2.0  # pixels: the largest standard deviation
QUALITY = (20, 90)  # of JPEG, in libjpeg's scale


def worse_copies(examples: Sequence[Example], seed: int) -> list[Example]:
    """A copy of each photograph, compressed again and half of them softened before, as the seed and
    its place say (and the installed Pillow, whose JPEG it is); one too large for JPEG is softened
    alone.

    Without such copies what is soft is counted too low (docs/training.md).
    """

    def copy(index: int) -> Example:
        rng = np.random.default_rng((seed, 4, index))
        return replace(examples[index], pixels=_worse(examples[index].pixels, rng))

    with ThreadPoolExecutor() as threads:  # Pillow works outside Python's lock
        copies = threads.map(copy, range(len(examples)))
        return list(tqdm(copies, "copies", len(examples), unit="image", leave=False))


def _worse(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    radius = max(0.0, rng.uniform(-BLUR, BLUR))  # none for half of them
    quality = int(rng.integers(*QUALITY, endpoint=True))
    soft = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius))
    file = io.BytesIO()
    try:
        soft.save(file, "JPEG", quality=quality)
        return np.array(Image.open(file))
    except (OSError, Image.DecompressionBombError):  # too long for JPEG, too large for Pillow
        return np.array(soft)
