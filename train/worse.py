"""Degraded training copies of photographs: compressed as by a messenger app, half also blurred."""

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
QUALITY = (20, 90)  # JPEG quality on libjpeg's scale


def worse_copies(examples: Sequence[Example], seed: int) -> list[Example]:
    """A recompressed copy of each photograph, half of them blurred first, determined by the seed
    and its position (and the installed Pillow's JPEG); one too large for JPEG is only blurred.

    Without such copies, soft pictures are counted too low (docs/training.md).
    """

    def copy(index: int) -> Example:
        rng = np.random.default_rng((seed, 4, index))
        return replace(examples[index], pixels=_worse(examples[index].pixels, rng))

    with ThreadPoolExecutor() as threads:  # Pillow releases the GIL
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
