"""A picture through the network in bands of rows, no row being computed twice.

Each layer keeps those last rows of its input that the next band's first rows need. So bands give
the map of the whole picture in the memory of one band, and small bands stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import winograd
from .model import STRIDE, CSRNet

EXACT_LAYERS = 1  # convolutions at the end, always in float32: rounded sums there bias the count
QUICK_WIDTH = 6144  # pixels; the rows that Winograd's tiles wait for hold a gigabyte beyond that


def density_bands(
    model: CSRNet, bands: Iterable[tuple[Tensor, bool]], dtype: torch.dtype = torch.float32
) -> Iterator[Tensor]:
    """Bands of a normalised picture, from its top, to the bands of its density map.

    Args:
        bands: each (1, 3, rows, W) float32, rows and W divisible by 8, and whether it is the last.
        dtype: in which all but the last convolutions compute.

    Yields:
        (1, 1, rows, W // 8) float32, scaled as ``model.forward`` gives them, one a band. They lag
        behind the picture: the first may have no rows, the last has those that were wanting.
    """
    layers = [*model.frontend, *model.backend, model.output_layer]
    exact = [layer for layer in layers if isinstance(layer, nn.Conv2d)][-EXACT_LAYERS:]
    stages, kind = [], dtype
    for layer in layers:
        kind = torch.float32 if any(layer is one for one in exact) else kind
        stages.append(_Stage(layer, kind))
    for band, last in bands:
        x: Tensor | None = band
        for stage in stages:
            stage.narrow = band.shape[3] <= QUICK_WIDTH
            if x is not None:
                x = stage(x, last)
        yield band.new_zeros(1, 1, 0, band.shape[3] // STRIDE) if x is None else x


class _Stage:
    """One layer, and the rows of its input that are still wanted."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        self.layer, self.dtype = layer, dtype
        self.kept: Tensor | None = None  # (1, C, few rows, W)
        self.span = self.stride = 1  # rows that an output needs, and between two outputs
        self.narrow = True
        self.padding = 0
        if isinstance(layer, nn.Conv2d):
            self.weight, self.bias = layer.weight.to(dtype), _to(layer.bias, dtype)
            self.dilation = int(layer.dilation[0])
            self.padding = int(layer.padding[0])
            self.span = (int(layer.kernel_size[0]) - 1) * self.dilation + 1
        elif isinstance(layer, nn.MaxPool2d):
            kernel = layer.kernel_size
            self.span = self.stride = kernel if isinstance(kernel, int) else kernel[0]

    def __call__(self, x: Tensor, last: bool) -> Tensor | None:
        """(1, C, rows, W) to the rows that can be had by now, None if there are none."""
        x = x.to(self.dtype)
        if self.span == 1 or (last and self.kept is None):
            return self._run(x, self.padding)
        # in the layout of x: joining different ones takes longer than the small convolutions
        edge = torch.zeros_like(x[:, :, :1]).expand(-1, -1, self.padding, -1)
        if x.is_contiguous(memory_format=torch.channels_last):
            edge = edge.contiguous(memory_format=torch.channels_last)
        parts = [edge if self.kept is None else self.kept, x, *([edge] if last else [])]
        x = torch.cat(parts, dim=2)
        ready = max((x.shape[2] - self.span) // self.stride + 1, 0)
        if not last and self._quick(x):  # as many as go through quickly
            ready -= ready % winograd.rows_at_once(x.shape[3], self.dilation)
        self.kept = x[:, :, ready * self.stride :].clone()  # not a view: it would hold all of x
        return self._run(x[:, :, : (ready - 1) * self.stride + self.span], 0) if ready else None

    def _run(self, x: Tensor, padding: int) -> Tensor:
        if isinstance(self.layer, nn.Conv2d):
            if self.bias is not None and self._quick(x):
                return winograd.infer(x, self.weight, self.bias, self.dilation, padding)
            sides = (padding, self.padding)  # above and below, left and right
            return functional.conv2d(x, self.weight, self.bias, 1, sides, self.dilation)
        y: Tensor = self.layer(x)
        return y

    def _quick(self, x: Tensor) -> bool:
        convolves = self.narrow and self.span > self.stride
        return convolves and winograd.pays_in_inference(x, self.weight)


def _to(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if bias is None else bias.to(dtype)
