"""Training losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

BLOCKS = (1, 2, 4, 8)  # cells; the largest are 64 pixels wide


def pyramid_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared errors of head counts in cells and in blocks of 2x2, 4x4 and 8x8 cells.

    Each is divided by twice the predicted count plus one, through which no gradient flows: an error
    weighs against what a Poisson count of that size varies by. Where the squared errors alone (the
    paper's Euclidean loss, section 3.2) hear only the densest crops, and absolute errors settle on
    medians, too low for counts, these gradients vanish on average at the mean (quasi-likelihood,
    Wedderburn 1974), so that the blocks of a photograph add up without bias.

    Args:
        predicted, target: (B, 1, h, w) heads per cell, h and w at least 8.

    Returns:
        The sum over blocks, the mean over levels and crops: one number.
    """
    levels: list[Tensor] = []
    for side in BLOCKS:
        count = avg_pool2d(predicted, side) * side**2
        error = count - avg_pool2d(target, side) * side**2
        levels.append((error.square() / (2 * (count.detach().clamp(min=0) + 1))).sum())
    return torch.stack(levels).mean() / len(target)


def euclidean_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Half the squared Euclidean distance of the density maps (equation 2 of the paper).

    Args:
        predicted, target: (B, 1, h, w) heads per cell.

    Returns:
        The sum over cells, the mean over crops: one number.
    """
    return (predicted - target).square().sum() / (2 * len(target))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pyramid": pyramid_loss,
    "euclidean": euclidean_loss,
}
# What the training record and the card call them.
RECORD = {
    "pyramid": "squared errors of head counts in cells and in blocks of 2x2, 4x4 and 8x8 cells, "
    "each over the predicted count plus one",
    "euclidean": "half the squared Euclidean distance of the density maps",
}
