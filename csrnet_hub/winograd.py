"""3x3 convolutions with a quarter of the multiplications, for CPUs without a faster precision.

Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, CVPR 2016, arXiv:1509.09308): each tile
of 4x4 outputs takes 36 products a channel in place of 144. oneDNN has none for float32 on x86. The
transforms are matrix products, so that all of it, gradients too, runs at the speed of those.
Maps lie in memory with their channels last, so that what is copied is whole pixels, at any
dilation. Training takes `conv2d`, inference `infer`.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

TILE = 4  # outputs a side
PATCH = 6  # inputs a side
STRIP = 128  # tiles that inference takes at once: many enough for quick products, few for the cache
NUMBERS = 2**15  # tiles times channels that a strip has at least: of few channels more tiles
FEWEST = 40  # tiles: of fewer, transforming the filters takes longer than torch's convolution
WORTHWHILE = 256  # tiles that a band had better have: transforming filters takes as long as 50

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
    """Whether it is faster than torch's own: on a CPU in float32, but for the first layers."""
    return x.dtype == torch.float32 and _can(weight) and sum(weight.shape[:2]) > 128


def pays_in_inference(weight: Tensor) -> bool:
    """Whether `infer` is faster than torch's own: on x86, of the second layer too, since it does
    the ReLU and the pooling behind it."""
    return platform.machine().lower() in ("x86_64", "amd64") and _can(weight)


def _can(weight: Tensor) -> bool:
    traced = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined]
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32
    many = min(weight.shape[:2]) >= 64
    return plain and many and not traced and not torch.is_autocast_enabled("cpu")


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
        parts: (1, C, rows, W) each, float32 on the CPU: a picture (1, C, H, W) from its top down.
        weight: (O, C, 3, 3).
        bias: (O,).
        padding: zeros above and below; left and right there are as many as the dilation.
        relu: whether what is below zero becomes zero.
        pool: whether the largest of 2x2 outputs is taken, for a dilation of 1.
        relu_first: whether what is below zero in the picture counts as zero.

    Returns:
        (1, O, H + 2 padding - 2 dilation, W), channels last; pooled, half as high and wide.
    """
    d, out = dilation, len(weight)
    rows, width = sum(part.shape[2] for part in parts), parts[0].shape[3]
    height = rows + 2 * (padding - d)
    down, across = _tiles(height, d), _tiles(width, d)
    if down * across * d**2 < FEWEST:
        x = torch.cat(list(parts), 2)
        x = x.relu() if relu_first else x
        return _directly(x, weight, bias, d, padding, relu, pool)
    filters = _filters(weight)  # anew for each band: kept, a network's would hold 250 MB
    side = TILE // 2 if pool else TILE
    y = filters.new_empty(1, down * side * d, across * side * d, out)
    tiles = max(STRIP, NUMBERS // weight.shape[1])
    for top, bottom, left, right in _strips(down, across, d, tiles):
        size = (bottom - top, right - left)
        edges = (top * TILE * d - padding, left * TILE * d - d)
        padded = _window(parts, edges, _reach(size, d), relu_first)
        patches = _transformed(_view(padded, PATCH, TILE, d, (0, 0), size))  # (36, T, C)
        products = torch.bmm(patches, filters)  # (36, T, O)
        products[PATCH + 1] += bias  # of the points (1, 1), which adds to all outputs alike
        _put(products, _view(y, side, side, d, (top, left), size), relu)
    return y[:, : height * side // TILE, : width * side // TILE].permute(0, 3, 1, 2)


def _directly(
    x: Tensor, weight: Tensor, bias: Tensor, d: int, padding: int, relu: bool, pool: bool
) -> Tensor:
    y = functional.conv2d(x, weight, bias, 1, (padding, d), d)
    y = functional.max_pool2d(y, 2) if pool else y
    return y.relu_() if relu else y


def rows_worthwhile(width: int, dilation: int) -> int:
    """How many rows of outputs of this width `infer` should be given at once."""
    across = _tiles(width, dilation)
    return TILE * dilation * max(1, round(WORTHWHILE / (dilation**2 * across)))


def _strips(down: int, across: int, d: int, tiles: int) -> Iterator[tuple[int, int, int, int]]:
    """Strips of about so many tiles, or pieces of one row of them: top, bottom, left, right."""
    rows = max(1, round(tiles / (d**2 * across)))
    columns = max(1, round(d**2 * across / tiles))
    for top, bottom in _even(down, -(-down // rows)):
        for left, right in _even(across, min(columns, across)):
            yield top, bottom, left, right


def _even(length: int, pieces: int) -> Iterator[tuple[int, int]]:
    return pairwise(length * i // pieces for i in range(pieces + 1))


def _filters(weight: Tensor) -> Tensor:
    """(O, C, 3, 3), transformed: (36, C, O)."""
    out, channels = weight.shape[:2]
    plain = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return (TO_FILTER @ plain).view(PATCH * PATCH, channels, out)


def _transformed(view: Tensor) -> Tensor:
    """Patches as `_view` gives them (6, 6, B, ..., C), transformed, line by line: (36, T, C)."""
    lines = _lines(view)
    patches = view.new_empty(PATCH * PATCH, len(lines), lines[0][0, 0].numel())
    for line, place in zip(lines, patches.unbind(1)):
        torch.mm(TO_PATCH, line.reshape(PATCH * PATCH, -1), out=place)
    return patches.view(PATCH * PATCH, -1, view.shape[-1])


def _put(products: Tensor, view: Tensor, relu: bool) -> None:
    """Products (36, T, O) to their places in an output, as `_view` gives it (4, 4, B, ..., O), or
    the largest of each 2x2 to theirs (2, 2, B, ..., O)."""
    places = _lines(view)
    for line, place in zip(products.view(PATCH * PATCH, len(places), -1).unbind(1), places):
        values = TO_OUTPUT @ line
        if len(view) < TILE:
            values = _pooled(values.view(TILE, TILE, -1))
        place.copy_((values.relu_() if relu else values).view_as(place))


def _lines(view: Tensor) -> list[Tensor]:
    """(side, side, B, down, d, across, d, C) to (side, side, across, d, C) each: what stays in the
    cache from one transform to the next."""
    return [line for image in view.unbind(2) for row in image.unbind(2) for line in row.unbind(2)]


def _pooled(values: Tensor) -> Tensor:
    """(4, 4, N) to the largest of each 2x2: (2, 2, N)."""
    rows = torch.maximum(values[::2], values[1::2])
    return torch.maximum(rows[:, ::2], rows[:, 1::2])


class _Convolution(torch.autograd.Function):
    # Pixels of one phase modulo the dilation are a picture of their own, convolved densely.

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, d: int) -> Tensor:
        out, channels = weight.shape[:2]
        patches = (TO_PATCH @ _gather(x, d)).view(PATCH * PATCH, -1, channels)  # (36, T, C)
        filters = _filters(weight)
        y = TO_OUTPUT @ torch.bmm(patches, filters).view(PATCH * PATCH, -1)  # (16, T O)
        ctx.save_for_backward(patches, filters)
        ctx.shape, ctx.dilation = x.shape, d
        return _scatter(y, (x.shape[0], out, *x.shape[2:]), d)

    @staticmethod
    @once_differentiable  # gradients of gradients would be wrong
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        patches, filters = ctx.saved_tensors
        (_, channels, out), d = filters.shape, ctx.dilation
        products = (TO_OUTPUT.t() @ _split(grad, d)).view(PATCH * PATCH, -1, out)  # (36, T, O)
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            to_patches = torch.bmm(products, filters.transpose(1, 2))  # (36, T, C)
            to_x = _gather_back(TO_PATCH.t() @ to_patches.view(PATCH * PATCH, -1), ctx.shape, d)
        if ctx.needs_input_grad[1]:
            to_filters = torch.bmm(patches.transpose(1, 2), products)  # (36, C, O)
            to_weight = TO_FILTER.t() @ to_filters.view(PATCH * PATCH, -1)  # (9, C O)
            to_weight = to_weight.view(3, 3, channels, out).permute(3, 2, 0, 1)
        return to_x, to_weight, None


def _tiles(side: int, d: int) -> int:
    return -(-side // (TILE * d))


def _reach(tiles: tuple[int, int], d: int) -> list[int]:
    """Rows and columns of inputs that so many tiles take, one beside another."""
    return [(TILE * count + PATCH - TILE) * d for count in tiles]


def _window(
    parts: Sequence[Tensor], first: tuple[int, int], size: Sequence[int], relu: bool = False
) -> Tensor:
    """Rows and columns, from the first on, of parts (B, C, rows, W), one below another, and zeros
    where there are none: (B, H, W, C)."""
    batch, channels, _, width = parts[0].shape
    window = parts[0].new_empty(batch, *size, channels)
    left, right = max(-first[1], 0), min(width - first[1], size[1])  # of the parts, in the window
    top = -first[0]
    for edge in (window[:, : max(top, 0)], window[:, :, :left], window[:, :, right:]):
        edge.zero_()
    for part in parts:
        rows = slice(max(-top, 0), max(size[0] - top, 0))  # of the part
        piece = part[:, :, rows, first[1] + left : first[1] + right].permute(0, 2, 3, 1)
        place = window[:, max(top, 0) :][:, : piece.shape[1], left:right]
        torch.clamp(piece, min=0, out=place) if relu else place.copy_(piece)
        top += part.shape[2]
    window[:, max(top, 0) :].zero_()
    return window


def _view(
    x: Tensor, side: int, step: int, d: int, first: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Tiles of (B, rows, W, C), from the first's row and column on, without a copy: (side, side,
    B, down, d, across, d, C). Those of inputs, six pixels a side with a step of four, overlap;
    pixels of one tile are the dilation apart."""
    batch, row, column, channel = x.stride()
    (top, left), (down, across) = first, size
    return x.as_strided(
        (side, side, x.shape[0], down, d, across, d, x.shape[3]),
        (row * d, column * d, batch, row * d * step, row, column * d * step, column, channel),
        x.storage_offset() + (top * row + left * column) * d * step,
    )


def _gather(x: Tensor, d: int) -> Tensor:
    """(B, C, H, W) to the overlapping patches (36, T C), T = B x tiles and phases."""
    size = (_tiles(x.shape[2], d), _tiles(x.shape[3], d))
    padded = _window([x], (-d, -d), _reach(size, d))
    return _view(padded, PATCH, TILE, d, (0, 0), size).reshape(PATCH * PATCH, -1)


def _gather_back(patches: Tensor, shape: torch.Size, d: int) -> Tensor:
    """The transpose of ``_gather``: overlapping patches added up."""
    batch, channels, height, width = shape
    down, across = _tiles(height, d), _tiles(width, d)
    p = patches.view(PATCH, PATCH, batch, down, d, across, d, channels)
    # One tile more a side takes the two rows and columns by which the last patches stand over.
    whole = p.new_zeros(batch, (down + 1) * TILE * d, (across + 1) * TILE * d, channels)
    v = _view(whole, TILE, TILE, d, (0, 0), (down + 1, across + 1))
    v[:, :, :, :down, :, :across] = p[:TILE, :TILE]
    v[:2, :, :, 1:, :, :across] += p[TILE:, :TILE]
    v[:, :2, :, :down, :, 1:] += p[:TILE, TILE:]
    v[:2, :2, :, 1:, :, 1:] += p[TILE:, TILE:]
    return whole[:, d : d + height, d : d + width].permute(0, 3, 1, 2)


def _split(y: Tensor, d: int) -> Tensor:
    """(B, O, H, W) to its tiles (16, T O)."""
    size = (_tiles(y.shape[2], d), _tiles(y.shape[3], d))
    below, right = (tiles * TILE * d - side for tiles, side in zip(size, y.shape[2:]))
    y = functional.pad(y.permute(0, 2, 3, 1), (0, 0, 0, right, 0, below)).contiguous()
    return _view(y, TILE, TILE, d, (0, 0), size).reshape(TILE * TILE, -1)


def _scatter(tiles: Tensor, shape: tuple[int, ...], d: int) -> Tensor:
    """The inverse of ``_split``."""
    batch, out, height, width = shape
    size = (_tiles(height, d), _tiles(width, d))
    y = tiles.new_empty(batch, size[0] * TILE * d, size[1] * TILE * d, out)
    view = _view(y, TILE, TILE, d, (0, 0), size)
    view.copy_(tiles.view_as(view))
    return y[:, :height, :width].permute(0, 3, 1, 2)
