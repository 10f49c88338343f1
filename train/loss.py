"""Training losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

BLOCKS = (1, 2, 4, 8, 16)  # cells; the largest are 128 pixels wide
NOBODY = 0.01  # heads: what the tails of kernels outside may leave in a crop
GHOSTS = 0.2  # weight of a head that is seen where there is nobody


def pyramid_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared errors of head counts in cells and in blocks of 2x2 to 16x16 cells.

    Each is divided by twice the predicted count plus one, through which no gradient flows: an error
    weighs against what a Poisson count of that size varies by. Where the squared errors alone (the
    paper's Euclidean loss, section 3.2) hear only the densest crops, and absolute errors settle on
    medians, too low for counts, these gradients vanish on average at the mean (quasi-likelihood,
    Wedderburn 1974), so that the blocks of a photograph add up without bias.

    Where a crop has no people at all, a share of the sum of absolute values is added: squares hardly feel
    the thousandth of a head a cell that makes a dozen people of a large empty picture.

    Args:
        predicted, target: (B, 1, h, w) heads per cell, h and w at least 16.

    Returns:
        The sum over blocks, the mean over levels and crops: one number.
    """
    empty = (target.sum(dim=(1, 2, 3), keepdim=True) < NOBODY).float()  # (B, 1, 1, 1)
    ghosts = (predicted * empty).abs().sum()
    levels: list[Tensor] = []
    for side in BLOCKS:
        count = avg_pool2d(predicted, side) * side**2
        error = count - avg_pool2d(target, side) * side**2
        levels.append((error.square() / (2 * (count.detach().clamp(min=0) + 1))).sum())
    return (torch.stack(levels).mean() + GHOSTS * ghosts) / len(target)


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
    "pyramid": "squared errors of head counts in cells and in blocks of 2x2 to 16x16 cells, "
    "each over the predicted count plus one, and the sum of the map where there is nobody",
    "euclidean": "half the squared Euclidean distance of the density maps",
}
