"""3x3 convolutions with a quarter of the multiplications, for CPUs without a matrix unit.

Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, CVPR 2016, arXiv:1509.09308): each tile
of 4x4 outputs takes 36 products per channel instead of 144. oneDNN has none for x86. The
transforms are matrix products, so everything, including gradients, runs at their speed.
Maps are stored with channels last, so that whole pixels are copied, at any dilation. Training
uses `conv2d`, inference `infer`.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .devices import fast_bfloat16, has_amx
from .winograd_tiles import (
    PATCH,
    TILE,
    gather,
    gather_back,
    in_tiles,
    reach,
    scatter,
    split,
    strips,
    tile_count,
    tile_lines,
    window,
)

# For float32; twice as many for bfloat16, which is half as long.
STRIP = 128  # tiles per strip in inference: enough for fast products, few enough for the cache
NUMBERS = 2**15  # least tiles times channels in a strip: with few channels, more tiles
WORTHWHILE = 256  # tiles that a band should have: transforming filters takes as long as 50

FEWEST = 40  # tiles: with fewer, transforming the filters takes longer than torch's convolution

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
    # whatever the program's default device is
    one = torch.tensor(matrix, dtype=torch.float64, device="cpu")
    return torch.kron(one, one).float()


TO_PATCH = _both_axes(INPUT)  # (36, 36)
TO_FILTER = _both_axes(FILTER)  # (36, 9)
TO_OUTPUT = _both_axes(OUTPUT)  # (16, 36)
# The bias as one more product: added to sums that are already rounded, it makes counts too low.
WITH_BIAS = torch.cat([TO_OUTPUT, TO_OUTPUT.new_ones(16, 1)], 1)  # (16, 37)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor, dilation: int = 1) -> Tensor:
    """``torch.nn.functional.conv2d`` with ``dilation`` as padding, to a relative 1e-5.

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
    """Whether this beats torch's own: on a CPU in float32, except for the first layers."""
    plain = x.dtype == weight.dtype == torch.float32
    return plain and _can(weight) and sum(weight.shape[:2]) > 128


def pays_in_inference(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether `infer` beats torch's own for maps of this type: on x86 in float32, from the second
    layer on, since it includes the ReLU and pooling that follow; in bfloat16 for layers with more
    channels, on processors that are faster in it but have no AMX, with which it was not
    tested."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not _can(weight):
        return False
    if dtype == torch.bfloat16:
        return sum(weight.shape[:2]) > 192 and fast_bfloat16(weight.device) and not has_amx()
    return dtype == torch.float32


def _can(weight: Tensor) -> bool:
    traced = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined]
    many = weight.device.type == "cpu" and min(weight.shape[:2]) >= 64
    return many and not traced and not torch.is_autocast_enabled("cpu")


def infer(
    parts: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    dilation: int,
    padding: int,
    relu: bool = False,
    pool: bool = False,
    relu_first: bool = False,
) -> Tensor:
    """A convolution without gradients, in strips of rows that stay in the cache.

    Args:
        parts: (1, C, rows, W) each, on the CPU: a picture (1, C, H, W) from the top down, in
            float32 or bfloat16; its tiles and their products have the same type.
        weight: (O, C, 3, 3) float32.
        bias: (O,) float32.
        padding: zeros above and below; left and right the padding equals the dilation.
        relu: whether negative outputs become zero.
        pool: whether to take the largest of 2x2 outputs, for a dilation of 1.
        relu_first: whether negative inputs count as zero.

    Returns:
        (1, O, H + 2 padding - 2 dilation, W), channels last; half as high and wide if pooled.
    """
    d, out = dilation, len(weight)
    rows, width = sum(part.shape[2] for part in parts), parts[0].shape[3]
    height = rows + 2 * (padding - d)
    down, across = tile_count(height, d), tile_count(width, d)
    if down * across * d**2 < FEWEST:
        x = torch.cat(list(parts), 2)
        x = x.relu() if relu_first else x
        return _directly(x, weight, bias, d, padding, relu, pool)
    kind = parts[0].dtype
    # recomputed for each band: keeping a whole network's would take 250 MB
    filters, bias = _filters(weight).to(kind), bias.to(kind)
    side = TILE // 2 if pool else TILE
    y = filters.new_empty(1, down * side * d, across * side * d, out)
    tiles = max(STRIP, NUMBERS // weight.shape[1]) * 4 // kind.itemsize
    for top, bottom, left, right in strips(down, across, d, tiles):
        size = (bottom - top, right - left)
        edges = (top * TILE * d - padding, left * TILE * d - d)
        padded = window(parts, edges, reach(size, d), relu_first)
        patches = _transformed(in_tiles(padded, PATCH, TILE, d, (0, 0), size))  # (36, T, C)
        products = patches.new_empty(PATCH * PATCH + 1, patches.shape[1], out)
        torch.bmm(patches, filters, out=products[:-1])  # (36, T, O)
        products[-1] = bias
        _put(products, in_tiles(y, side, side, d, (top, left), size), relu)
    return y[:, : height * side // TILE, : width * side // TILE].permute(0, 3, 1, 2)


def _directly(
    x: Tensor, weight: Tensor, bias: Tensor, d: int, padding: int, relu: bool, pool: bool
) -> Tensor:
    y = functional.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), 1, (padding, d), d)
    y = functional.max_pool2d(y, 2) if pool else y
    return y.relu_() if relu else y


def rows_worthwhile(width: int, dilation: int, dtype: torch.dtype) -> int:
    """How many rows of outputs of this width `infer` should compute at once."""
    tiles = WORTHWHILE * 4 // dtype.itemsize / (dilation**2 * tile_count(width, dilation))
    return TILE * dilation * max(1, round(tiles))


def _filters(weight: Tensor) -> Tensor:
    """Transform (O, C, 3, 3) filters to (36, C, O)."""
    out, channels = weight.shape[:2]
    plain = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return (TO_FILTER @ plain).view(PATCH * PATCH, channels, out)


def _transformed(view: Tensor) -> Tensor:
    """Transform patches from `in_tiles` (6, 6, B, ..., C) line by line: (36, T, C)."""
    lines = tile_lines(view)
    patches = view.new_empty(PATCH * PATCH, len(lines), lines[0][0, 0].numel())
    to_patch = TO_PATCH.to(view.dtype)
    for line, place in zip(lines, patches.unbind(1)):
        torch.mm(to_patch, line.reshape(PATCH * PATCH, -1), out=place)
    return patches.view(PATCH * PATCH, -1, view.shape[-1])


def _put(products: Tensor, view: Tensor, relu: bool) -> None:
    """Write products and the bias (37, T, O) to an output viewed by `in_tiles` (4, 4, B, ..., O),
    or the largest of each 2x2 to a pooled one (2, 2, B, ..., O)."""
    places, to_output = tile_lines(view), WITH_BIAS.to(view.dtype)
    for line, place in zip(products.view(len(products), len(places), -1).unbind(1), places):
        values = to_output @ line
        if len(view) < TILE:
            values = _pooled(values.view(TILE, TILE, -1))
        place.copy_((values.relu_() if relu else values).view_as(place))


def _pooled(values: Tensor) -> Tensor:
    """Take the largest of each 2x2: (4, 4, N) to (2, 2, N)."""
    rows = torch.maximum(values[::2], values[1::2])
    return torch.maximum(rows[:, ::2], rows[:, 1::2])


class _Convolution(torch.autograd.Function):
    # Pixels of one phase modulo the dilation form a picture of their own, convolved densely.

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, d: int) -> Tensor:
        out, channels = weight.shape[:2]
        patches = (TO_PATCH @ gather(x, d)).view(PATCH * PATCH, -1, channels)  # (36, T, C)
        filters = _filters(weight)
        y = TO_OUTPUT @ torch.bmm(patches, filters).view(PATCH * PATCH, -1)  # (16, T O)
        ctx.save_for_backward(patches, filters)
        ctx.shape, ctx.dilation = x.shape, d
        return scatter(y, (x.shape[0], out, *x.shape[2:]), d)

    @staticmethod
    @once_differentiable  # second-order gradients would be wrong
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        patches, filters = ctx.saved_tensors
        (_, channels, out), d = filters.shape, ctx.dilation
        products = (TO_OUTPUT.t() @ split(grad, d)).view(PATCH * PATCH, -1, out)  # (36, T, O)
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            to_patches = torch.bmm(products, filters.transpose(1, 2))  # (36, T, C)
            to_x = gather_back(TO_PATCH.t() @ to_patches.view(PATCH * PATCH, -1), ctx.shape, d)
        if ctx.needs_input_grad[1]:
            to_filters = torch.bmm(patches.transpose(1, 2), products)  # (36, C, O)
            to_weight = TO_FILTER.t() @ to_filters.view(PATCH * PATCH, -1)  # (9, C O)
            to_weight = to_weight.view(3, 3, channels, out).permute(3, 2, 0, 1)
        return to_x, to_weight, None
