"""Find copies of a picture by small thumbnails, despite changes of size, crop or compression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 64  # pixels of a thumbnail
ALIKE = 0.75  # correlation of 32 x 32 thumbnails above which two pictures are examined closely
SAME = 0.5  # peak of their phase correlation; unrelated pictures stay near 0.1
FLAT = 1.0  # standard deviation in grey levels below which there is nothing to compare
_ROWS = 512  # compared at a time, to bound memory

Thumbnail = NDArray[np.uint8]


def thumbnail(pixels: NDArray[np.uint8]) -> Thumbnail:
    """A picture (H, W, 3) as (64, 64) grey levels, its sides stretched to fit."""
    grey = Image.fromarray(pixels).convert("L")
    small = grey.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=3.0)
    return np.asarray(small)


def same_pictures(thumbnails: list[Thumbnail]) -> list[tuple[list[int], float]]:
    """Groups of two or more thumbnails of the same picture, or of one scene at one moment, each
    with the lowest score by which a member was matched; ordered by first member.

    Thumbnails that correlate are compared by phase correlation (Kuglin and Hines, 1975). Its peak,
    the score, is 1 for equal pictures, stays high under a shift, a crop of a few percent, scaling
    and compression, and is low for pictures that share only their layout of brightness.
    """
    if not thumbnails:
        return []
    whole = np.stack(thumbnails).astype(np.float32)  # (n, 64, 64)
    coarse = whole.reshape(-1, 32, 2, 32, 2).mean(axis=(2, 4)).reshape(len(whole), -1)
    coarse -= coarse.mean(axis=1, keepdims=True)
    length = np.linalg.norm(coarse, axis=1, keepdims=True)
    length[length < FLAT * 32] = np.inf  # flat pictures correlate with nothing
    coarse /= length
    phases: dict[int, NDArray[np.complex64]] = {}

    def phase(index: int) -> NDArray[np.complex64]:
        if index not in phases:
            phases[index] = _phase(whole[index])
        return phases[index]

    groups = [[index] for index in range(len(whole))]  # by thumbnail, shared by a group's members
    scores: dict[int, float] = {}  # by a group's first member
    for start in range(0, len(coarse), _ROWS):
        alike = coarse[start : start + _ROWS] @ coarse.T  # (rows, n)
        for row, j in np.argwhere(alike >= ALIKE):
            one, other = groups[start + int(row)], groups[int(j)]
            if start + row < j and one is not other:  # else already paired or grouped
                peak = float(np.fft.irfft2(phase(start + int(row)) * phase(int(j)).conj()).max())
                if peak >= SAME:
                    lowest = min(peak, scores.get(one[0], 1.0), scores.get(other[0], 1.0))
                    if len(one) < len(other):
                        one, other = other, one
                    one += other
                    for index in other:
                        groups[index] = one
                    scores[one[0]] = lowest
    found = {id(group): group for group in groups if len(group) > 1}.values()
    return sorted((sorted(group), round(scores[group[0]], 3)) for group in found)


def _phase(picture: NDArray[np.float32]) -> NDArray[np.complex64]:
    window = np.hanning(SIDE)  # without it all pictures would share the frame's edges
    spectrum = np.fft.rfft2((picture - picture.mean()) * np.outer(window, window))
    size = np.abs(spectrum)
    return np.asarray(spectrum / (size + 1e-6 * size.max()), dtype=np.complex64)
