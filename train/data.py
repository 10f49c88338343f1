"""The prepared set in memory, its split, and random crops of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csrnet_hub.datasets import DatasetError
from csrnet_hub.density import density_window
from csrnet_hub.model import STRIDE

from .prepare import FORMAT

GREY = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # luma weights of ITU-R BT.601


@dataclass(frozen=True)
class Example:
    """A prepared photograph: pixels (H, W, 3) uint8, heads (N, 2) and sigma (N,) in pixels.

    ``count`` is the number of annotated points, which errors are measured against.
    """

    name: str
    pixels: NDArray[np.uint8]
    heads: NDArray[np.float64]
    sigma: NDArray[np.float64]
    count: int


def load_prepared(path: Path, exclude: Sequence[str] = ()) -> list[Example]:
    """Every photograph of a prepared file but the excluded ones.

    Raises:
        DatasetError: if the file is missing, damaged, or not one of ours, or a name to exclude is
            not in it (a leak guarded against by a misspelt name would go unnoticed).
    """
    if not path.is_file():
        raise DatasetError(f"There is no prepared file {path}; make it with train.prepare.")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise DatasetError(f"{path} was not made by this train.prepare; prepare it anew.")
            names = list(file["images"])
            if strangers := sorted(set(exclude) - set(names)):
                raise DatasetError(f"{path} has no image {', '.join(strangers)} to exclude.")
            return [_example(file, name) for name in names if name not in set(exclude)]
    except (OSError, KeyError) as error:
        raise DatasetError(f"{path} cannot be read as a prepared file: {error}.") from error


def _example(file: h5py.File, name: str) -> Example:
    heads = file[f"heads/{name}"]
    return Example(
        name=name,
        pixels=file[f"images/{name}"][()],
        heads=heads[()].astype(np.float64),
        sigma=file[f"sigma/{name}"][()].astype(np.float64),
        count=int(heads.attrs["annotated"]),
    )


def split(
    examples: Sequence[Example], validation: int, seed: int, train_only: Sequence[str] = ()
) -> tuple[list[Example], list[Example]]:
    """Training and validation parts: one validation image drawn from each of ``validation`` strata
    of equal size, in the order of the counts.

    Args:
        train_only: names never drawn for validation (near-duplicates of each other).

    Raises:
        DatasetError: if there are too few images.
    """
    ranked = sorted(
        (example for example in examples if example.name not in set(train_only)),
        key=lambda example: (example.count, example.name),
    )
    if not 0 < validation < len(ranked):
        raise DatasetError(f"{validation} validation images cannot be drawn from {len(ranked)}.")
    rng = np.random.default_rng(seed)
    strata = np.array_split(np.arange(len(ranked)), validation)
    held_out = {ranked[rng.choice(stratum)].name for stratum in strata}
    return (
        [example for example in examples if example.name not in held_out],
        [example for example in examples if example.name in held_out],
    )


@dataclass(frozen=True)
class Augmentation:
    """How a random crop is made.

    Attributes:
        crop: side in pixels of what the network sees, a multiple of 8.
        scale: least and greatest enlargement of the photograph, drawn log-uniformly.
        sigma: least and greatest width of a kernel in pixels of the photograph.
        grey: share of crops turned to grey.
        light: greatest change of brightness and of contrast, as a share.
    """

    crop: int = 256
    scale: tuple[float, float] = (0.7, 1.4)
    sigma: tuple[float, float] = (2.0, 15.0)
    grey: float = 0.1
    light: float = 0.2


def random_crop(
    example: Example, rng: np.random.Generator, how: Augmentation
) -> tuple[Tensor, Tensor]:
    """A random window of a photograph: scaled, mirrored, its light changed.

    Returns:
        (3, crop, crop) float32 RGB in 0 to 255 and (1, crop / 8, crop / 8) float32 heads per cell.
    """
    height, width = example.pixels.shape[:2]
    zoom = float(np.exp(rng.uniform(*np.log(how.scale))))
    side = min(round(how.crop / zoom), height, width)  # a smaller photograph is enlarged
    zoom = how.crop / side
    left, top = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    window = torch.from_numpy(example.pixels[top : top + side, left : left + side].copy())
    pixels = window.permute(2, 0, 1)[None].float()  # (1, 3, side, side)
    if side != how.crop:
        pixels = torch.nn.functional.interpolate(
            pixels, size=(how.crop, how.crop), mode="bilinear", antialias=True
        )
    heads = (example.heads - (left, top)) * zoom
    sigma = example.sigma.clip(*how.sigma) * zoom
    near = ((heads > -4 * sigma[:, None]) & (heads < how.crop + 4 * sigma[:, None])).all(axis=1)
    frame = (-left * zoom, -top * zoom, (width - left) * zoom, (height - top) * zoom)
    density = density_window(heads[near], sigma[near], frame, (how.crop, how.crop), STRIDE)
    target = torch.from_numpy(density).float()[None]  # (1, crop / 8, crop / 8)
    if rng.random() < 0.5:
        pixels, target = pixels.flip(-1), target.flip(-1)
    return _relight(pixels[0], rng, how), target


def _relight(pixels: Tensor, rng: np.random.Generator, how: Augmentation) -> Tensor:
    if rng.random() < how.grey:
        pixels = (pixels * GREY).sum(0, keepdim=True).expand(3, -1, -1)
    brightness, contrast = rng.uniform(1 - how.light, 1 + how.light, size=2)
    mean = pixels.mean()
    relit: Tensor = (pixels - mean) * contrast + mean * brightness
    return relit.clamp(0, 255)
