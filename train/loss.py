"""The training loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, huber_loss

BLOCKS = (1, 2, 4, 8)  # cells; the largest are 64 pixels wide


def pyramid_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Huber loss of head counts in cells and in blocks of 2x2, 4x4 and 8x8 cells.

    An error below one head weighs by its square, as in the paper's Euclidean loss (section 3.2),
    which places the heads; one above weighs by its size, as in the error that is reported.

    Args:
        predicted, target: (B, 1, h, w) heads per cell, h and w at least 8.

    Returns:
        The sum over blocks, the mean over levels and crops: one number, in heads.
    """
    levels: list[Tensor] = []
    for side in BLOCKS:
        area = side * side
        levels.append(
            huber_loss(
                avg_pool2d(predicted, side) * area,
                avg_pool2d(target, side) * area,
                reduction="sum",
                delta=1.0,
            )
        )
    return torch.stack(levels).mean() / len(target)
