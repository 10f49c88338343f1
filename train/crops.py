"""Random crops of a prepared set, cut on the training device a batch at a time.

Only a small table of numbers per crop goes from the host to the device, and nothing comes back, so
the host never waits for a GPU. The same code runs on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from csrnet_hub.model import STRIDE

from .data import Example
from .empty import empty_pictures
from .points import cells_of
from .recipe import Recipe
from .sampling import clamped, mass, mass_inside, places, relight, rows_of, taps
from .windows import Window, Windows, heads_in
from .worse import worse_copies

HEADS_AT_ONCE = 64  # heads in a batch are padded to a multiple of it: fewer shapes to compile
LEAST_INSIDE = 1e-6  # minimum share of a kernel in the region; a head far outside has none there


@dataclass(frozen=True)
class Batch:
    """Crops of side (H, W) with their ground truth.

    Attributes:
        pixels: (B, 3, H, W) float32 RGB in 0 to 255.
        target: (B, 1, H / 8, W / 8) float32 heads per cell.
        weight: (B, 1, H / 8, W / 8) weight of a cell's prediction: the share of the cell in the
            region of interest; None: all ones.
        heads: (B, n, 2) x, y in pixels of the crops, padded with zeros.
        present: (B, n) bool, which rows are heads.
        drawn: (B,) bool, which crops are of drawn pictures without people.
    """

    pixels: Tensor
    target: Tensor
    weight: Tensor | None
    heads: Tensor
    present: Tensor
    drawn: Tensor


class Crops:
    """The training pictures on a device, from which each step's batch is cut.

    All pixels lie in one flat (P, 3) uint8 tensor, and all heads in one (N, 4) float32 tensor of x,
    y, sigma and the factor that gives the kernel a mass of one in the region of interest. A batch
    is therefore a few gathers, however many pictures it draws on.

    Args:
        examples: the training part of a prepared set.
        recipe: how crops are made.
        device: where the crops are made.
    """

    def __init__(self, examples: Sequence[Example], recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        photographs = examples
        kernels = [_kernels(example, recipe) for example in examples]
        if recipe.worse:
            examples = [*examples, *worse_copies(examples, recipe.seed)]
            kernels *= 2  # a copy has the photograph's heads
        self.first_drawn = len(examples)
        drawn = empty_pictures(recipe.seed, recipe.crop) if recipe.empty else []
        pictures = [*(example.pixels for example in examples), *drawn]
        shapes = [picture.shape[:2] for picture in pictures]
        self.sizes = np.array(shapes, dtype=np.int64)  # (n, 2) height, width
        self.windows = Windows(photographs, self.sizes, self.first_drawn, recipe)
        self.starts = np.cumsum([0, *self.sizes.prod(axis=1)], dtype=np.int64)
        self.pixels = _flat([picture.reshape(-1, 3) for picture in pictures], device)  # (P, 3)
        self.counts = np.array([*(len(example.heads) for example in examples), *[0] * len(drawn)])
        self.head_starts = np.cumsum([0, *self.counts])
        # a last row that stands for no head, so that padding has a row to point at
        none = np.array([[0.0, 0.0, 1.0, 0.0]], np.float32)
        self.heads = _flat([*kernels, none], device)  # (N + 1, 4)
        self.points = [example.heads for example in examples] + [np.zeros((0, 2))] * len(drawn)
        self.mask = None
        if any(example.mask is not None for example in examples):
            inside = [
                np.ones(picture.shape[:2], bool) if mask is None else mask
                for picture, mask in zip(
                    pictures, [*(example.mask for example in examples), *[None] * len(drawn)]
                )
            ]
            self.mask = _flat([mask.reshape(-1).astype(np.uint8) for mask in inside], device)

    def at(self, step: int, part: slice = slice(None)) -> Batch:
        """The batch of a step, determined by the recipe's seed and the step alone.

        Args:
            part: the crops of the batch that this process takes.
        """
        batch = self.recipe.batch
        numbers = range(step * batch, (step + 1) * batch)[part]
        windows = [self.windows.draw(number) for number in numbers]
        return self.cut(windows, self._shape(windows))

    def _shape(self, windows: Sequence[Window]) -> tuple[int, int]:
        if self.recipe.crops == "quarters":
            return int(windows[0].height), int(windows[0].width)
        return self.recipe.crop, self.recipe.crop

    def cut(self, windows: Sequence[Window], shape: tuple[int, int]) -> Batch:
        """Cut out windows, resampled to one shape (height, width) in pixels."""
        rows = [
            (
                *self.sizes[window.picture],
                window.top,
                window.left,
                window.height,
                window.width,
                window.mirrored,
                window.grey,
                window.brightness,
                window.contrast,
            )
            for window in windows
        ]
        table = self._upload(np.array(rows, dtype=np.float32)).T  # (10, B)
        starts = self._upload(self.starts[[window.picture for window in windows]])  # (B,)
        lines = [places(table, axis, shape[axis]) for axis in (0, 1)]  # each (B, side)
        shrunk = any(window.height > shape[0] or window.width > shape[1] for window in windows)
        pixels = self._sample(table, starts, lines, shape, shrunk)  # (B, 3, H, W)
        heads, present = self._heads(windows, shape)  # (B, n, 2), (B, n)
        weight = None
        if self.mask is None:
            target = self._target(windows, table, shape, STRIDE)  # (B, 1, h, w)
        else:
            inside = self._nearest(table, starts, lines, self.mask[:, None])  # (B, 1, H, W)
            dense = self._target(windows, table, shape, 1) * inside  # (B, 1, H, W)
            target = avg_pool2d(dense, STRIDE) * STRIDE**2  # (B, 1, h, w)
            weight = avg_pool2d(inside, STRIDE)  # (B, 1, h, w)
            own = weight.flatten(1).gather(1, cells_of(weight, heads))  # (B, n)
            present = present & (own > 0)  # the other heads have no cell to count them
        drawn = self._upload(np.array([w.picture >= self.first_drawn for w in windows]))  # (B,)
        return Batch(relight(pixels, table), target, weight, heads, present, drawn)

    def _upload(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(values)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _sample(
        self,
        table: Tensor,
        starts: Tensor,
        lines: list[Tensor],
        shape: tuple[int, int],
        shrunk: bool,
    ) -> Tensor:
        """Sample bilinearly; where a crop shrinks its window, average four samples per pixel,
        spread with the same variance as the source pixels that the new pixel replaces."""
        steps: list[Tensor | None] = [None, None]
        if shrunk:
            steps = [
                ((table[4 + axis] / shape[axis]) ** 2 - 1).clamp(min=0).div(12).sqrt()[:, None]
                for axis in (0, 1)
            ]
        (y, down), (x, across) = (taps(table, a, lines[a], steps[a]) for a in (0, 1))
        rows = rows_of(table, starts, y)  # (B, T, H)
        total: Tensor | float = 0.0
        for tap in range(rows.shape[1]):  # all at once would multiply the memory
            at = rows[:, tap, :, None, None] + x[:, None]  # (B, H, T, W)
            share = down[:, tap, :, None, None] * across[:, None]  # (B, H, T, W)
            total = total + (self.pixels[at].float() * share[..., None]).sum(2)  # (B, H, W, 3)
        assert isinstance(total, Tensor)
        return total.permute(0, 3, 1, 2)  # (B, 3, H, W)

    def _nearest(self, table: Tensor, starts: Tensor, lines: list[Tensor], of: Tensor) -> Tensor:
        y, x = (clamped(table, axis, lines[axis].round()) for axis in (0, 1))
        return of[rows_of(table, starts, y)[:, :, None] + x[:, None]].float().permute(0, 3, 1, 2)

    def _target(
        self, windows: Sequence[Window], table: Tensor, shape: tuple[int, int], cell: int
    ) -> Tensor:
        """The windows' parts of the maps of ``csrnet_hub.density.density_map``, for a batch, at a
        stride of ``cell`` pixels: (B, 1, h, w)."""
        most = max(1, *(int(self.counts[window.picture]) for window in windows))
        rows = np.full((len(windows), most), len(self.heads) - 1)
        for row, window in enumerate(windows):
            begin, count = self.head_starts[window.picture], self.counts[window.picture]
            rows[row, :count] = np.arange(begin, begin + count)
        chosen = self._upload(rows).long()
        heads = self.heads[chosen]  # (B, n, 4)
        down = mass(heads[..., 1], heads[..., 2], table, 0, shape[0], cell)  # (B, n, h)
        across = mass(heads[..., 0], heads[..., 2], table, 1, shape[1], cell)  # (B, n, w)
        target = torch.einsum("bnh,bnw->bhw", down * heads[..., 3:], across)[:, None]
        mirrored = table[6].bool()[:, None, None, None]
        return torch.where(mirrored, target.flip(-1), target)

    def _heads(self, windows: Sequence[Window], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The heads inside the windows; chosen on the host, as this needs no device data."""
        inside = [heads_in(window, self.points[window.picture], shape) for window in windows]
        most = -(-max(1, *map(len, inside)) // HEADS_AT_ONCE) * HEADS_AT_ONCE
        table = np.zeros((len(windows), most, 2), np.float32)
        for row, own in zip(table, inside):
            row[: len(own)] = own
        present = np.arange(most) < np.array([len(own) for own in inside])[:, None]
        return self._upload(table), self._upload(present)


def widths(example: Example, recipe: Recipe) -> NDArray[np.float64]:
    """Kernel widths (N,) in pixels, clipped to the recipe's limits where they are adaptive."""
    low, high = recipe.sigma
    return example.sigma if example.fixed else example.sigma.clip(low, high)


def _kernels(example: Example, recipe: Recipe) -> NDArray[np.float32]:
    """(N, 4): x, y and sigma of each head in pixels, and its kernel's factor."""
    heads = np.column_stack([example.heads, widths(example, recipe)])
    times = np.ones(len(heads))
    if example.mask is not None:
        inside = mass_inside(torch.from_numpy(heads), torch.from_numpy(example.mask)).numpy()
        times = 1 / np.maximum(inside, LEAST_INSIDE)
    return np.column_stack([heads, times]).astype(np.float32)  # MPS has no float64


def _flat(arrays: list[np.ndarray], device: torch.device) -> Tensor:
    """Concatenate arrays (n, ...) on a device without first copying them all on the host."""
    rows, first = sum(map(len, arrays)), torch.from_numpy(arrays[0])
    flat = torch.empty((rows, *first.shape[1:]), dtype=first.dtype, device=device)
    for part, array in zip(flat.split([len(array) for array in arrays]), arrays):
        part.copy_(torch.from_numpy(array))
    return flat
