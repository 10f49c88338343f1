"""Tensor functions that make crops on one device: positions, pixels, light and head mass.

The table (10, B) has one column per crop: height and width of its picture; top, left, height and
width of its window, all in pixels; whether it is mirrored; whether grey; brightness and contrast.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

GREY = (0.299, 0.587, 0.114)  # luma weights of ITU-R BT.601


@lru_cache
def channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Per-channel values, (1, 3, 1, 1), cached on a device: each copy would wait for it."""
    return torch.tensor(values, device=device).view(1, 3, 1, 1)


def places(table: Tensor, axis: int, side: int) -> Tensor:
    """Positions of a crop's pixels along one axis of its picture: (B, side), in pixels."""
    line = (torch.arange(side, device=table.device) + 0.5) / side  # (side,)
    line = line.expand(table.shape[1], side)
    if axis == 1:
        line = torch.where(table[6].bool()[:, None], line.flip(-1), line)
    place: Tensor = table[2 + axis][:, None] + line * table[4 + axis][:, None] - 0.5
    return place


def taps(table: Tensor, axis: int, place: Tensor, step: Tensor | None) -> tuple[Tensor, Tensor]:
    """The whole pixels along one axis from which positions (B, side) are interpolated.

    Args:
        step: (B, 1) pixels; each position is the mean of two samples, this far before and after
            it. None: the position itself.

    Returns:
        Pixels (B, T, side), clamped to the picture, and their weights (B, T, side); T is 2 per
        sample.
    """
    samples = [place] if step is None else [place - step, place + step]
    points = torch.stack(samples, 1)  # (B, S, side)
    below = points.floor()
    above = (points - below) / len(samples)
    shares = torch.cat([1 / len(samples) - above, above], 1)
    return clamped(table, axis, torch.cat([below, below + 1], 1)), shares


def clamped(table: Tensor, axis: int, pixels: Tensor) -> Tensor:
    """Clamp whole pixels (B, ..., side) along one axis to the picture; gives integers."""
    last = table[axis].view(-1, *[1] * (pixels.dim() - 1)) - 1
    return torch.minimum(pixels.clamp(min=0), last).long()


def rows_of(table: Tensor, starts: Tensor, y: Tensor) -> Tensor:
    """Start of the pictures' rows y (B, ..., side) in the flat store."""
    ones = [1] * (y.dim() - 1)
    found: Tensor = starts.view(-1, *ones) + y * table[1].long().view(-1, *ones)
    return found


def mass(position: Tensor, sigma: Tensor, table: Tensor, axis: int, side: int, cell: int) -> Tensor:
    """The share of each head's mass in the picture that falls in each cell along one axis:
    (B, n, cells), each cell ``cell`` pixels of the crop."""
    first, length, size = (table[k + axis][:, None] for k in (2, 4, 0))  # (B, 1)
    zoom = side / length
    position, sigma = (position - first) * zoom, sigma * zoom  # in pixels of the crop
    low, high = -first * zoom, (size - first) * zoom
    edges = torch.arange(side // cell + 1, device=table.device) * float(cell)
    edges = torch.minimum(torch.maximum(edges, low), high)  # (B, cells + 1)
    edges = torch.cat([edges, low, high], 1)[:, None]  # (B, 1, cells + 3)
    reached = torch.special.ndtr((edges - position[..., None]) / sigma[..., None])
    whole = reached[..., -1:] - reached[..., -2:-1]
    share: Tensor = reached[..., :-2].diff(dim=-1) / whole
    return share


def mass_inside(heads: Tensor, mask: Tensor) -> Tensor:
    """The share of each head's mass in the picture inside a region of interest: (n,).

    Args:
        heads: (n, 3) x, y and sigma in pixels.
        mask: (H, W) bool, true inside.
    """
    height, width = mask.shape
    whole = torch.tensor([[height], [width], [0], [0], [height], [width]], dtype=heads.dtype)
    x, y, sigma = heads.T[:, None]  # (1, n) each
    down = mass(y, sigma, whole, 0, height, cell=1)[0]  # (n, H)
    across = mass(x, sigma, whole, 1, width, cell=1)[0]  # (n, W)
    inside: Tensor = ((down @ mask.to(heads.dtype)) * across).sum(dim=1)
    return inside


def relight(pixels: Tensor, table: Tensor) -> Tensor:
    grey, brightness, contrast = (row[:, None, None, None] for row in table[7:10])
    luma = channels(GREY, pixels.device)
    pixels = torch.where(grey > 0, (pixels * luma).sum(1, keepdim=True), pixels)
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    relit: Tensor = ((pixels - mean) * contrast + mean * brightness).clamp(0, 255)
    return relit
