"""3x3 convolutions with a quarter of the multiplications, for CPUs without a faster precision.

Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, CVPR 2016, arXiv:1509.09308): each tile
of 4x4 outputs takes 36 products a channel in place of 144. oneDNN has none for float32 on x86. The
transforms are matrix products, so that all of it, gradients too, runs at the speed of those.
Training takes `conv2d`, inference `infer`.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 4  # outputs a side
PATCH = 6  # inputs a side
STRIP = 256  # tiles that inference takes at once: many enough for quick products, few for the cache
SLICE = 2**15  # columns of a transform, likewise

# The one-dimensional transforms of inputs, filters and outputs (arXiv:1509.09308, section 4.2).
INPUT = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
FILTER: list[list[float]] = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def _both_axes(matrix: Sequence[Sequence[float]]) -> Tensor:
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one).float()


TO_PATCH = _both_axes(INPUT)  # (36, 36)
TO_FILTER = _both_axes(FILTER)  # (36, 9)
TO_OUTPUT = _both_axes(OUTPUT)  # (16, 36)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor, dilation: int = 1) -> Tensor:
    """``torch.nn.functional.conv2d`` with a padding of ``dilation``, to a relative 1e-5.

    Args:
        x: (B, C, H, W) float32 on the CPU.
        weight: (O, C, 3, 3).
        bias: (O,).

    Returns:
        (B, O, H, W).
    """
    y: Tensor = _Convolution.apply(x, weight, dilation)
    return y + bias.view(1, -1, 1, 1)


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether it is faster than torch's own: on a CPU in float32, with many channels."""
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    traced = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined]
    return (
        plain
        and not traced
        and not torch.is_autocast_enabled("cpu")
        and min(weight.shape[:2]) >= 128
    )


def pays_in_inference(x: Tensor, weight: Tensor) -> bool:
    """Whether `infer` is faster than torch's own convolution: with more channels still, on x86."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and pays(x, weight) and weight.shape[0] * weight.shape[1] >= 128 * 256


def infer(
    parts: Sequence[Tensor], weight: Tensor, bias: Tensor, dilation: int, padding: int
) -> Tensor:
    """A convolution without gradients, in strips of rows that stay in the cache.

    Args:
        parts: (1, C, rows, W) each, float32 on the CPU: a picture (1, C, H, W) from its top down.
        weight: (O, C, 3, 3).
        bias: (O,).
        padding: zeros above and below; left and right there are as many as the dilation.

    Returns:
        (1, O, H + 2 padding - 2 dilation, W).
    """
    d, (out, channels) = dilation, weight.shape[:2]
    x, rows = parts[0], [part.shape[2] for part in parts]
    height, width = sum(rows) + 2 * (padding - d), x.shape[3]
    down, across = _tiles(height, d), _tiles(width, d)
    padded = x.new_zeros(channels, 1, (down * TILE + 2) * d, (across * TILE + 2) * d)
    place = padded[:, 0, padding : padding + sum(rows), d : d + width]
    for target, part in zip(place.split(rows, dim=1), parts):
        target.copy_(part[0])
    filters = _filters(weight)  # anew for each band: kept, a network's would hold 250 MB
    y = x.new_empty(out, 1, down * TILE * d, across * TILE * d)
    pieces = -(-down // (rows_at_once(width, d) // (TILE * d)))
    cuts = [down * i // pieces for i in range(pieces + 1)]
    for top, bottom in pairwise(cuts):  # rows of tiles
        needed = padded[:, :, top * TILE * d : (bottom * TILE + 2) * d]
        patches = _transformed(_view(needed, PATCH, d, bottom - top, across))  # (36, C T)
        products = torch.bmm(filters, patches.view(36, channels, -1)).view(36, -1)  # (36, O T)
        strip = y[:, :, top * TILE * d : bottom * TILE * d]
        _put(products, bias, _view(strip, TILE, d, bottom - top, across))
    return y.transpose(0, 1)[:, :, :height, :width]


def rows_at_once(width: int, dilation: int) -> int:
    """How many rows of outputs of this width `infer` takes at once."""
    across = _tiles(width, dilation)
    return TILE * dilation * max(1, round(STRIP / (dilation**2 * across)))


def _filters(weight: Tensor) -> Tensor:
    """(O, C, 3, 3), transformed: (36, O, C)."""
    return (TO_FILTER @ weight.reshape(-1, 9).t()).view(PATCH * PATCH, *weight.shape[:2])


def _transformed(view: Tensor) -> Tensor:
    """Patches as `_view` gives them (6, 6, C, ...), transformed: (36, C T)."""
    channels, tiles = view.shape[2], view[0, 0, 0].numel()
    patches = view.new_empty(PATCH * PATCH, channels * tiles)
    for part in _slices(channels, tiles):
        columns = slice(part.start * tiles, part.stop * tiles)
        torch.mm(TO_PATCH, view[:, :, part].reshape(PATCH * PATCH, -1), out=patches[:, columns])
    return patches


def _put(products: Tensor, bias: Tensor, view: Tensor) -> None:
    """Products (36, O T) to their places in an output, as `_view` gives it (4, 4, O, ...)."""
    out, tiles = view.shape[2], view[0, 0, 0].numel()
    for part in _slices(out, tiles):
        values = TO_OUTPUT @ products[:, part.start * tiles : part.stop * tiles]
        values.view(TILE * TILE, -1, tiles).add_(bias[part, None])
        view[:, :, part] = values.view_as(view[:, :, part])


def _slices(channels: int, tiles: int) -> Iterator[slice]:
    step = max(1, SLICE // tiles)
    for start in range(0, channels, step):
        yield slice(start, min(start + step, channels))


class _Convolution(torch.autograd.Function):
    # Pixels of one phase modulo the dilation are a picture of their own, convolved densely.

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, d: int) -> Tensor:
        out, channels = weight.shape[:2]
        patches = (TO_PATCH @ _gather(x, d)).view(36, channels, -1)  # (36, C, T)
        filters = _filters(weight)
        y = TO_OUTPUT @ torch.bmm(filters, patches).view(36, -1)  # (16, O T)
        ctx.save_for_backward(patches, filters)
        ctx.shape, ctx.dilation = x.shape, d
        return _scatter(y, (x.shape[0], out, *x.shape[2:]), d)

    @staticmethod
    @once_differentiable  # gradients of gradients would be wrong
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        patches, filters = ctx.saved_tensors
        (_, out, channels), d = filters.shape, ctx.dilation
        products = (TO_OUTPUT.t() @ _split(grad, d)).view(36, out, -1)  # (36, O, T)
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            to_patches = torch.bmm(filters.transpose(1, 2), products)  # (36, C, T)
            to_x = _gather_back(TO_PATCH.t() @ to_patches.view(36, -1), ctx.shape, d)
        if ctx.needs_input_grad[1]:
            to_filters = torch.bmm(products, patches.transpose(1, 2))  # (36, O, C)
            to_weight = (TO_FILTER.t() @ to_filters.view(36, -1)).t().reshape(out, channels, 3, 3)
        return to_x, to_weight, None


def _tiles(side: int, d: int) -> int:
    return -(-side // (TILE * d))


def _gather(x: Tensor, d: int) -> Tensor:
    """(B, C, H, W) to the overlapping patches (36, C T), T = B x phases x tiles."""
    batch, channels, height, width = x.shape
    down, across = _tiles(height, d), _tiles(width, d)
    padded = x.new_zeros(channels, batch, (down * TILE + 2) * d, (across * TILE + 2) * d)
    padded[:, :, d : d + height, d : d + width] = x.transpose(0, 1)
    return _view(padded, PATCH, d, down, across).reshape(PATCH * PATCH, -1)


def _view(x: Tensor, side: int, d: int, down: int, across: int) -> Tensor:
    """The tiles of (C, B, rows, W) as (side, side, C, B, d, d, down, across), without a copy: those
    of inputs, which overlap, have six pixels a side, those of outputs four."""
    c, b, row, column = x.stride()
    return x.as_strided(
        (side, side, *x.shape[:2], d, d, down, across),
        (row * d, column * d, c, b, row, column, row * d * TILE, column * d * TILE),
        x.storage_offset(),
    )


def _gather_back(patches: Tensor, shape: torch.Size, d: int) -> Tensor:
    """The transpose of ``_gather``: overlapping patches added up."""
    batch, channels, height, width = shape
    down, across = _tiles(height, d), _tiles(width, d)
    p = patches.view(PATCH, PATCH, channels, batch, d, d, down, across)
    # One tile more a side takes the two rows and columns by which the last patches stand over.
    whole = p.new_zeros(channels, batch, down + 1, TILE, d, across + 1, TILE, d)
    v = whole.permute(3, 6, 0, 1, 4, 7, 2, 5)  # (4, 4, C, B, d, d, down + 1, across + 1)
    v[..., :down, :across] = p[:TILE, :TILE]
    v[:2, :, ..., 1:, :across] += p[TILE:, :TILE]
    v[:, :2, ..., :down, 1:] += p[:TILE, TILE:]
    v[:2, :2, ..., 1:, 1:] += p[TILE:, TILE:]
    padded = whole.view(channels, batch, (down + 1) * TILE * d, (across + 1) * TILE * d)
    return padded[:, :, d : d + height, d : d + width].transpose(0, 1)


def _split(y: Tensor, d: int) -> Tensor:
    """(B, O, H, W) to its tiles (16, O T)."""
    batch, out, height, width = y.shape
    down, across = _tiles(height, d), _tiles(width, d)
    y = torch.nn.functional.pad(y, (0, across * TILE * d - width, 0, down * TILE * d - height))
    y = y.transpose(0, 1).reshape(out, batch, down, TILE, d, across, TILE, d)
    return y.permute(3, 6, 0, 1, 4, 7, 2, 5).reshape(TILE * TILE, -1)


def _scatter(tiles: Tensor, shape: tuple[int, ...], d: int) -> Tensor:
    """The inverse of ``_split``."""
    batch, out, height, width = shape
    down, across = _tiles(height, d), _tiles(width, d)
    y = tiles.view(TILE, TILE, out, batch, d, d, down, across).permute(2, 3, 6, 0, 4, 7, 1, 5)
    y = y.reshape(out, batch, down * TILE * d, across * TILE * d)
    return y[:, :, :height, :width].transpose(0, 1)
