"""Drawn pictures without people, to train on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

NUMBER = 96


def empty_pictures(seed: int, crop: int, number: int = NUMBER) -> list[NDArray[np.uint8]]:
    """Drawn pictures without people, each (side, side, 3) uint8, half as large again as a crop.

    Without them, a network trained only on crowds sees hundreds of heads in noise.
    """
    rngs = (np.random.default_rng((seed, 3, index)) for index in range(number))
    return [_empty_picture(rng, crop * 3 // 2) for rng in rngs]


def _empty_picture(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """An even field, a gradient, grain, blots or lines of marks."""
    ramp = np.linspace(0, 1, side)[:, None, None] * np.ones((1, side, 1))
    ramp = ramp if rng.random() < 0.5 else ramp.transpose(1, 0, 2)
    ends = rng.uniform(0, 255, size=(2, 3))
    pixels = ends[0] + (ends[1] - ends[0]) * ramp * rng.integers(2)  # (side, side, 3)
    kind = rng.integers(4)
    if kind in (1, 2):  # grain of any size, in colour or grey
        cells = -(-side // int(rng.integers(1, 9) if kind == 1 else 1))
        grain = torch.from_numpy(rng.uniform(-1, 1, size=(1, rng.choice([1, 3]), cells, cells)))
        how = rng.choice(["nearest", "bicubic"])
        grain = torch.nn.functional.interpolate(grain, size=(side, side), mode=how)[0]
        strength = np.exp(rng.uniform(np.log(2), np.log(160)))
        pixels = pixels + strength * grain.permute(1, 2, 0).numpy()
    elif kind == 3:  # lines of marks, as of a text, a shelf or a fence
        pitch, width = int(rng.integers(6, 40)), int(rng.integers(2, 20))
        marks = rng.random((-(-side // pitch), -(-side // width))) < rng.uniform(0.3, 1)
        marks = marks.repeat(pitch, 0).repeat(width, 1)[:side, :side]
        marks &= (np.arange(side) % pitch < pitch * rng.uniform(0.3, 0.8))[:, None]
        pixels = np.where((marks if rng.random() < 0.5 else marks.T)[..., None], ends[1], pixels)
    drawn: NDArray[np.uint8] = pixels.clip(0, 255).astype(np.uint8)
    return drawn
