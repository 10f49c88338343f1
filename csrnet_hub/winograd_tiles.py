"""Splits maps into the tiles of Winograd's convolutions, and joins them again.

Maps are stored with channels last. Pixels of one phase modulo the dilation form a picture of
their own, with its own tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

TILE = 4  # outputs a side
PATCH = 6  # inputs a side


def strips(down: int, across: int, d: int, tiles: int) -> Iterator[tuple[int, int, int, int]]:
    """Strips of about ``tiles`` tiles, or pieces of a tile row: top, bottom, left, right."""
    rows = max(1, round(tiles / (d**2 * across)))
    columns = max(1, round(d**2 * across / tiles))
    for top, bottom in _even(down, -(-down // rows)):
        for left, right in _even(across, min(columns, across)):
            yield top, bottom, left, right


def _even(length: int, pieces: int) -> Iterator[tuple[int, int]]:
    return pairwise(length * i // pieces for i in range(pieces + 1))


def tile_lines(view: Tensor) -> list[Tensor]:
    """Split (side, side, B, down, d, across, d, C) into (side, side, across, d, C) each, which
    stays in the cache from one transform to the next."""
    return [line for image in view.unbind(2) for row in image.unbind(2) for line in row.unbind(2)]


def tile_count(side: int, d: int) -> int:
    """How many tiles fit along a picture's side, for one phase."""
    return -(-side // (TILE * d))


def reach(tiles: tuple[int, int], d: int) -> list[int]:
    """Rows and columns of inputs that this many adjacent tiles need."""
    return [(TILE * count + PATCH - TILE) * d for count in tiles]


def window(
    parts: Sequence[Tensor], first: tuple[int, int], size: Sequence[int], relu: bool = False
) -> Tensor:
    """Rows and columns, starting at ``first``, of vertically stacked parts (B, C, rows, W), with
    zeros outside them: (B, H, W, C)."""
    batch, channels, _, width = parts[0].shape
    found = parts[0].new_empty(batch, *size, channels)
    left, right = max(-first[1], 0), min(width - first[1], size[1])  # of the parts, in it
    top = -first[0]
    for edge in (found[:, : max(top, 0)], found[:, :, :left], found[:, :, right:]):
        edge.zero_()
    for part in parts:
        rows = slice(max(-top, 0), max(size[0] - top, 0))  # of the part
        piece = part[:, :, rows, first[1] + left : first[1] + right].permute(0, 2, 3, 1)
        place = found[:, max(top, 0) :][:, : piece.shape[1], left:right]
        torch.clamp(piece, min=0, out=place) if relu else place.copy_(piece)
        top += part.shape[2]
    found[:, max(top, 0) :].zero_()
    return found


def in_tiles(
    x: Tensor, side: int, step: int, d: int, first: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """View (B, rows, W, C) as tiles, starting at row and column ``first``, without a copy: (side,
    side, B, down, d, across, d, C). Input tiles, six pixels a side with a step of four, overlap;
    pixels of one tile are the dilation apart."""
    batch, row, column, channel = x.stride()
    (top, left), (down, across) = first, size
    return x.as_strided(
        (side, side, x.shape[0], down, d, across, d, x.shape[3]),
        (row * d, column * d, batch, row * d * step, row, column * d * step, column, channel),
        x.storage_offset() + (top * row + left * column) * d * step,
    )


def gather(x: Tensor, d: int) -> Tensor:
    """(B, C, H, W) to the overlapping patches (36, T C), T = B x tiles and phases."""
    size = (tile_count(x.shape[2], d), tile_count(x.shape[3], d))
    padded = window([x], (-d, -d), reach(size, d))
    return in_tiles(padded, PATCH, TILE, d, (0, 0), size).reshape(PATCH * PATCH, -1)


def gather_back(patches: Tensor, shape: torch.Size, d: int) -> Tensor:
    """The transpose of ``gather``: overlapping patches added up."""
    batch, channels, height, width = shape
    down, across = tile_count(height, d), tile_count(width, d)
    p = patches.view(PATCH, PATCH, batch, down, d, across, d, channels)
    # One extra tile per side takes the two rows and columns by which the last patches stick out.
    whole = p.new_zeros(batch, (down + 1) * TILE * d, (across + 1) * TILE * d, channels)
    v = in_tiles(whole, TILE, TILE, d, (0, 0), (down + 1, across + 1))
    v[:, :, :, :down, :, :across] = p[:TILE, :TILE]
    v[:2, :, :, 1:, :, :across] += p[TILE:, :TILE]
    v[:, :2, :, :down, :, 1:] += p[:TILE, TILE:]
    v[:2, :2, :, 1:, :, 1:] += p[TILE:, TILE:]
    return whole[:, d : d + height, d : d + width].permute(0, 3, 1, 2)


def split(y: Tensor, d: int) -> Tensor:
    """Split (B, O, H, W) into tiles (16, T O)."""
    size = (tile_count(y.shape[2], d), tile_count(y.shape[3], d))
    below, right = (tiles * TILE * d - side for tiles, side in zip(size, y.shape[2:]))
    y = functional.pad(y.permute(0, 2, 3, 1), (0, 0, 0, right, 0, below)).contiguous()
    return in_tiles(y, TILE, TILE, d, (0, 0), size).reshape(TILE * TILE, -1)


def scatter(tiles: Tensor, shape: tuple[int, ...], d: int) -> Tensor:
    """The inverse of ``split``."""
    batch, out, height, width = shape
    size = (tile_count(height, d), tile_count(width, d))
    y = tiles.new_empty(batch, size[0] * TILE * d, size[1] * TILE * d, out)
    view = in_tiles(y, TILE, TILE, d, (0, 0), size)
    view.copy_(tiles.view_as(view))
    return y[:, :height, :width].permute(0, 3, 1, 2)
