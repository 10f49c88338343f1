"""Where each crop is cut, determined by the run's seed and the crop's number alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from csrnet_hub.model import STRIDE

from .data import Example
from .recipe import Recipe

QUARTERS = 18  # patches per picture in the paper: four quarters, five random; each also mirrored


@dataclass(frozen=True)
class Window:
    """Where a crop is cut, in pixels of its picture, and how its light changes."""

    picture: int
    top: float
    left: float
    height: float
    width: float
    mirrored: bool = False
    grey: bool = False
    brightness: float = 1.0
    contrast: float = 1.0


class Windows:
    """The window of each crop of a run.

    Args:
        sizes: (n, 2) height and width in pixels of all pictures: the photographs, their worse
            copies if the recipe has any, then the drawn pictures without people.
        first_drawn: index of the first drawn picture.
    """

    def __init__(
        self,
        photographs: Sequence[Example],
        sizes: NDArray[np.int64],
        first_drawn: int,
        recipe: Recipe,
    ) -> None:
        self.recipe, self.sizes, self.first_drawn = recipe, sizes, first_drawn
        self.photographs = len(photographs)
        times = [recipe.repeat.get(example.part, 1) for example in photographs]
        self.deck = np.repeat(np.arange(len(photographs)), times)  # what a pass shuffles
        self.shuffle = -1, self.deck  # the latest pass, and its order

    def draw(self, index: int) -> Window:
        """The window of the run's crop number ``index``.

        Each pass over the photographs has its own shuffle; each crop has its own generator.
        """
        recipe = self.recipe
        turn, place = divmod(index, len(self.deck))
        if self.shuffle[0] != turn:
            order = np.random.default_rng((recipe.seed, 0, turn)).permutation(self.deck)
            self.shuffle = turn, order
        picture, rng = int(self.shuffle[1][place]), np.random.default_rng((recipe.seed, 1, index))
        if recipe.crops == "quarters":
            return self._quarter(picture, turn)
        if rng.random() < recipe.empty:
            picture = self.first_drawn + int(rng.integers(len(self.sizes) - self.first_drawn))
        height, width = self.sizes[picture]
        zoom = float(np.exp(rng.uniform(*np.log(recipe.scale))))
        if rng.random() < recipe.native:  # resampling blurs; a user's photographs are sharp
            zoom = 1.0
        side = min(round(recipe.crop / zoom), height, width)  # a smaller picture is enlarged
        brightness, contrast = rng.uniform(1 - recipe.light, 1 + recipe.light, size=2)
        window = Window(
            picture,
            top=_place(rng, height, side, recipe.beyond),
            left=_place(rng, width, side, recipe.beyond),
            height=float(side),
            width=float(side),
            mirrored=bool(rng.random() < 0.5),
            grey=bool(rng.random() < recipe.grey),
            brightness=float(brightness),
            contrast=float(contrast),
        )
        if picture < self.photographs and rng.random() < recipe.worse:
            return replace(window, picture=picture + self.photographs)  # same window, of its copy
        return window

    def _quarter(self, picture: int, turn: int) -> Window:
        # Section 3.2 of the paper, data augmentation: each a quarter of the picture's area.
        height, width = (int(side) // 2 // STRIDE * STRIDE for side in self.sizes[picture])
        round_, place = divmod(turn, QUARTERS)
        order = np.random.default_rng((self.recipe.seed, 3, picture, round_)).permutation(QUARTERS)
        patch, mirrored = divmod(int(order[place]), 2)
        down, across = (int(size) - own for size, own in zip(self.sizes[picture], (height, width)))
        if patch < 4:
            top, left = down * (patch // 2), across * (patch % 2)
        else:
            rng = np.random.default_rng((self.recipe.seed, 2, picture, patch))
            top, left = int(rng.integers(down + 1)), int(rng.integers(across + 1))
        return Window(picture, top, left, height, width, bool(mirrored))


def _place(rng: np.random.Generator, size: int, side: int, share: float) -> float:
    """The start of a window: drawn from a range extended beyond the picture, then clipped to it, so
    that edges are seen more often. The price is that many windows share a start: with a share of
    0.75 and windows of 384 pixels, four in ten of part A's crops lie in a corner. The outermost
    pixels are still seen less often than those in the middle: by half across 768 pixels, by a
    quarter across 1,024."""
    beyond = round(share * side)
    return float(np.clip(rng.integers(-beyond, size - side + beyond + 1), 0, size - side))


def heads_in(
    window: Window,
    heads: NDArray[np.float64],
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """The heads in a window, as x, y in pixels of its crop, (n, 2).

    Args:
        heads: (N, 2) x, y in pixels of the picture.
        shape: height and width of the crop.
    """
    zoom = (shape[1] / window.width, shape[0] / window.height)
    heads = (heads - (window.left, window.top)) * zoom
    heads = heads[((heads >= 0) & (heads < shape[::-1])).all(axis=1)]
    return heads * (-1, 1) + (shape[1], 0) if window.mirrored else heads
