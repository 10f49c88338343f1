"""Training losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .points import bayesian_loss, dm_count_loss, frequency_loss, generalised_loss

if TYPE_CHECKING:  # recipe imports this module, and crops imports recipe
    from .crops import Batch
    from .recipe import Recipe

BLOCKS = (1, 2, 4, 8, 16)  # cells; the largest are 128 pixels wide
TRUTH = 0.25  # share of the true count in the divisor of squared errors; the rest is predicted
GHOSTS = 0.5  # weight of a head predicted in a drawn picture without people


def block_sides(cells: int) -> list[int]:
    """Sides, in cells, of the pyramid loss's blocks that fit a crop ``cells`` wide."""
    return [side for side in BLOCKS if side <= cells]


def divides(cells: int) -> bool:
    """Whether blocks of each of these sides tile a crop exactly; any remainder is left out."""
    return all(cells % side == 0 for side in block_sides(cells))


def pyramid_loss(predicted: Tensor, target: Tensor, drawn: Tensor | None = None) -> Tensor:
    """Squared errors of head counts in cells and in blocks of 2x2 to 16x16 cells.

    A crop's errors are divided by 2 (1 + mean count of its blocks), where that mean is three
    quarters predicted (without gradient) and one quarter true. This weighs an error against the
    variance of a Poisson count of that size. Squared errors alone (the paper's Euclidean loss,
    section 3.2) are dominated by the densest crops; absolute errors settle on medians, which are
    too low for counts. With only the predicted count in the divisor, predicting twice the truth
    is corrected less strongly than predicting half of it: predictions that scatter about one truth
    come out too high, though among crops that look alike they settle on the mean. The larger the
    true share, the further below that mean they settle, as the fuller of such crops weigh less.

    `ghosts` of drawn pictures are added: squares hardly respond to a thousandth of a head per cell.

    Args:
        predicted, target: (B, 1, h, w) heads per cell. Blocks larger than a crop are left out, as
            is any remainder beyond the last whole block (recipes have none: `divides`).
        drawn: (B,) bool, which crops are of drawn pictures; None: none are.

    Returns:
        A scalar: summed over blocks, averaged over levels and crops.
    """
    levels: list[Tensor] = []
    for side in block_sides(min(target.shape[2:])):
        count = avg_pool2d(predicted, side) * side**2
        true = avg_pool2d(target, side) * side**2
        both = (1 - TRUTH) * count.detach().clamp(min=0) + TRUTH * true
        size = both.mean(dim=(1, 2, 3), keepdim=True) + 1  # (B, 1, 1, 1)
        levels.append(((count - true).square() / (2 * size)).sum())
    mean = torch.stack(levels).mean() / len(target)
    return mean if drawn is None else mean + ghosts(predicted, drawn)


def ghosts(predicted: Tensor, drawn: Tensor) -> Tensor:
    """A share of the sum of absolute values in drawn pictures without people, averaged over all
    crops: a thousandth of a head per cell adds up to a dozen people in a large empty picture.
    Photographs are exempt: absolute values would pull down whatever is uncertain in them.

    Args:
        predicted: (B, 1, h, w) heads per cell.
        drawn: (B,) bool, which crops are of drawn pictures.
    """
    return GHOSTS * (predicted * drawn[:, None, None, None]).abs().sum() / len(predicted)


def euclidean_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Half the squared Euclidean distance of the density maps (section 3.2 of the paper).

    Args:
        predicted, target: (B, 1, h, w) heads per cell.

    Returns:
        A scalar: summed over cells, averaged over crops.
    """
    return (predicted - target).square().sum() / (2 * len(target))


Loss: TypeAlias = "Callable[[Tensor, Batch], Tensor]"  # of predicted heads per cell (B, 1, h, w)
LOSSES: dict[str, Loss] = {
    "pyramid": lambda predicted, batch: pyramid_loss(predicted, batch.target, batch.drawn),
    "euclidean": lambda predicted, batch: euclidean_loss(predicted, batch.target),
    "bayesian": lambda predicted, batch: bayesian_loss(predicted, batch.heads, batch.present),
    "dmcount": lambda predicted, batch: dm_count_loss(predicted, batch.heads, batch.present),
    "generalised": lambda predicted, batch: generalised_loss(predicted, batch.heads, batch.present),
    "frequency": lambda predicted, batch: (
        frequency_loss(predicted, batch.heads, batch.present) + ghosts(predicted, batch.drawn)
    ),
}


def _heads_missed(_: Tensor, batch: Batch) -> Tensor:
    return batch.present.sum(dim=1).float().mean()


OF_EMPTY: dict[str, Loss] = LOSSES | {
    "bayesian": _heads_missed,
    "dmcount": lambda empty, batch: dm_count_loss(empty, batch.heads, batch.present, transport=0.0),
    "generalised": _heads_missed,
}


def of_empty(recipe: Recipe, batch: Batch) -> Tensor:
    """The loss of an empty map, without its transport cost."""
    return OF_EMPTY[recipe.loss](torch.zeros_like(batch.target), batch)


RECORD = {  # descriptions in the training record and the model card
    "pyramid": "squared errors of head counts in cells and in blocks of 2x2 to 16x16 cells, "
    "those of a crop over one more than the mean count of its blocks, three quarters predicted and "
    "one quarter true, and the sum of the map of drawn pictures without people",
    "euclidean": "half the squared Euclidean distance of the density maps",
    "bayesian": "Bayesian loss with background point (arXiv:1908.03684) of the map's positive part",
    "dmcount": "DM-Count (arXiv:2009.13077) of the map's positive part",
    "generalised": "the generalised loss (Wan et al., CVPR 2021) of the map's positive part, with "
    "absolute differences in the cells",
    "frequency": "the characteristic function loss (Shu et al., CVPR 2022), for Gaussians of 8 "
    "pixels about the points, and the sum of the map of drawn pictures without people",
}
