"""Passes a picture through the network in bands of rows, without computing any row twice.

Each layer keeps the last rows of its input that the next band's first rows need. Bands thus give
the map of the whole picture in the memory of one band, and small bands stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import winograd
from .devices import out_of_memory
from .model import STRIDE, CSRNet

_refused: set[tuple[object, ...]] = set()  # cases in which cuDNN has no pass with a ReLU


def density_bands(
    model: CSRNet, bands: Iterable[tuple[Tensor, bool]], dtype: torch.dtype = torch.float32
) -> Iterator[Tensor]:
    """Turn bands of a normalised picture, from the top, into bands of its density map.

    Args:
        bands: each (1, 3, rows, W) float32, rows and W divisible by 8, and whether it is the last.
        dtype: precision of all but the last convolution.

    Yields:
        (1, 1, rows, W // 8) float32, scaled as by ``model.forward``, one per band. They lag behind
        the picture: the first may have no rows, and the last has all that were missing.
    """
    layers = [*model.frontend, *model.backend, model.output_layer]
    stages: list[_Stage] = []
    peaks: list[Tensor] = []  # of float16 maps and weights: infinite if they overflowed
    for layer in layers:
        # rounded sums in the last convolution would bias the count
        kind = torch.float32 if layer is model.output_layer else dtype
        if stages and stages[-1].takes(layer):
            continue
        stage = _Stage(layer, kind, peaks)
        if stage.quick and stages and isinstance(stages[-1].layer, nn.ReLU):
            stages.pop()
            stage.relu_first = True
        stages.append(stage)
    if half := [stage.weight for stage in stages if stage.relu and stage.dtype is torch.float16]:
        peaks.append(nn.utils.get_total_norm(half, torch.inf).float())
    for band, last in bands:
        x: Tensor | None = band
        for stage in stages:
            if x is not None:
                x = stage(x, last)
        if x is not None and peaks:  # NaN, which cuDNN's ReLU may have turned into zero
            x = x + 0 * torch.stack(peaks).amax()
            peaks.clear()
        yield band.new_zeros(1, 1, 0, band.shape[3] // STRIDE) if x is None else x


class _Stage:
    """One layer, and the rows of its input that are still needed."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype, peaks: list[Tensor]) -> None:
        self.layer, self.dtype = layer, dtype
        self.peaks = peaks
        self.kept: list[Tensor] | None = None  # each (1, C, few rows, W)
        self.span = self.stride = 1  # input rows that an output needs, and rows between two outputs
        self.padding = 0
        self.quick = False  # whether it uses Winograd's convolution
        self.relu = self.pool = False  # applied to its output in the same pass
        self.relu_first = False  # applied to its input in the same pass
        if isinstance(layer, nn.Conv2d):
            self.dilation = int(layer.dilation[0])
            self.padding = int(layer.padding[0])
            self.span = (int(layer.kernel_size[0]) - 1) * self.dilation + 1
            square = self.span > 1 and layer.bias is not None
            self.quick = square and winograd.pays_in_inference(layer.weight, dtype)
            kind = torch.float32 if self.quick else dtype  # filters are rounded once, transformed
            self.weight, self.bias = layer.weight.to(kind), _to(layer.bias, kind)
        elif isinstance(layer, nn.MaxPool2d):
            kernel = layer.kernel_size
            self.span = self.stride = kernel if isinstance(kernel, int) else kernel[0]
        elif any(isinstance(part, nn.Conv2d) for part in layer.modules()):
            kind_of = type(layer).__name__  # such as an adapter about one: its rows are unknown
            raise TypeError(f"a {kind_of} layer cannot be counted with: merge adapters first")

    def takes(self, layer: nn.Module) -> bool:
        """Whether this stage includes the next layer: Winograd's a ReLU and a pooling, one pass of
        cuDNN a ReLU. That rounds sums once, bias included (torch itself rounds twice: with some
        weights counts come out 0.3 % low in float16, with all 1 to 2 % in bfloat16)."""
        if isinstance(layer, nn.ReLU) and isinstance(self.layer, nn.Conv2d):
            half = self.dtype in (torch.float16, torch.bfloat16)
            self.relu = self.quick or (half and _has_cudnn(self.weight))
            return self.relu
        if isinstance(layer, nn.MaxPool2d) and self.quick and self.dilation == 1:
            self.pool = (layer.kernel_size, layer.stride, layer.padding) == (2, 2, 0)
            return self.pool
        return False

    def __call__(self, x: Tensor, last: bool) -> Tensor | None:
        """From (1, C, rows, W), compute the rows available so far; None if there are none."""
        x = x.to(self.dtype)
        if self.span == 1 or (last and self.kept is None):
            return self._run([x], self.padding)
        at_edge = self.padding and (last or self.kept is None)
        edge = [_zero_rows(x, self.padding)] if at_edge else []
        parts = [*(edge if self.kept is None else self.kept), x, *(edge if last else [])]
        rows = sum(part.shape[2] for part in parts)
        ready = max((rows - self.span) // self.stride + 1, 0)
        if not last and self.quick:  # enough rows to make transforming the filters worthwhile
            ready -= ready % winograd.rows_worthwhile(x.shape[3], self.dilation, x.dtype)
        if not ready:
            self.kept = parts
            return None
        # copies, since views would keep all of x alive
        self.kept = [part.clone() for part in _between(parts, ready * self.stride, rows)]
        return self._run(_between(parts, 0, (ready - 1) * self.stride + self.span), 0)

    def _run(self, parts: list[Tensor], padding: int) -> Tensor:
        if self.quick and self.bias is not None:
            how = (self.dilation, padding, self.relu, self.pool, self.relu_first)
            return winograd.infer(parts, self.weight, self.bias, *how)
        x = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        if isinstance(self.layer, nn.Conv2d):
            sides = (padding, self.padding)  # above and below, left and right
            if self.relu:
                return self._with_relu(x, sides)
            return functional.conv2d(x, self.weight, self.bias, 1, sides, self.dilation)
        y: Tensor = self.layer(x)
        return y

    def _with_relu(self, x: Tensor, sides: tuple[int, int]) -> Tensor:
        dilation = (self.dilation, self.dilation)
        if self.dtype is torch.float16:
            self.peaks.append(x.amax().float())
        what = (x.device, self.dtype, self.weight.shape, dilation)
        if what not in _refused:
            try:
                weights = (self.weight, self.bias)
                y: Tensor = torch.cudnn_convolution_relu(x, *weights, (1, 1), sides, dilation, 1)
                return y
            except RuntimeError as error:
                if out_of_memory(error):
                    raise
        y = functional.conv2d(x, self.weight, self.bias, 1, sides, dilation).relu_()
        _refused.add(what)  # not refused for lack of memory
        return y


def _has_cudnn(weight: Tensor) -> bool:
    cudnn = torch.backends.cudnn
    return weight.is_cuda and torch.version.hip is None and cudnn.enabled and cudnn.is_available()


def _between(parts: list[Tensor], start: int, stop: int) -> list[Tensor]:
    """Rows from start up to stop of vertically stacked pictures (1, C, rows, W), uncopied."""
    found = []
    for part in parts:
        rows = part.shape[2]
        if start < rows and stop > 0:
            found.append(part[:, :, max(start, 0) : stop])
        start, stop = start - rows, stop - rows
    return found


def _zero_rows(x: Tensor, rows: int) -> Tensor:
    """In the layout of x: joining different layouts takes longer than the small convolutions."""
    edge = torch.zeros_like(x[:, :, :1]).expand(-1, -1, rows, -1)
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    return edge.contiguous(memory_format=torch.channels_last) if channels_last else edge


def _to(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if bias is None else bias.to(dtype)
