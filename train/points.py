"""Training losses that hold a density map against the heads themselves, not against a map of them.

All are defined for maps that are nowhere negative, and the network's output may be. They take its
positive part; what lies below zero is a loss of its own, which pulls a cell up as strongly as it
would be pulled down above zero. Without it the sum of the map, which is a user's count, would not
be what was trained.
"""

from __future__ import annotations

import torch
from torch import Tensor

from csrnet_hub.model import STRIDE

SPREAD = 8.0  # pixels: sigma of a head's likelihood in the Bayesian loss, as in its paper
BACKGROUND = 0.15  # of the crop's shorter side: where the background's point lies, likewise
TRANSPORT, VARIATION = 0.1, 0.01  # weights of DM-Count's terms, as in its paper
BLUR = 10.0  # squared pixels: the entropic regularisation of its optimal transport, likewise
ROUNDS = 60  # of Sinkhorn's algorithm
TINY = 1e-6  # heads

# Of the generalised loss, where a head that is missed costs 1:
FAR = 307.2  # pixels: the scale of its cost, 0.6 of a crop of 512
MISSED = 0.1  # what a head costs in its code; here all is over that
ENTROPY = 0.01 / MISSED
RELAX = 1.8  # of each update of the heads' potentials
SMALLEST = 1e-20  # heads in a cell: none, to a logarithm
NOBODY = 1e-30  # heads asked of a cell that is near nobody; less than SMALLEST, so that it is told


def bayesian_loss(predicted: Tensor, heads: Tensor, present: Tensor) -> Tensor:
    """The Bayesian loss with background point (Ma et al., ICCV 2019, arXiv:1908.03684, sections
    3.2 and 3.3): sum over heads n of |1 - E[c_n]|, plus |E[c_0]|.

    E[c_n] = sum over cells m of p(y_n | x_m) D(x_m) is the number of people that the map D gives to
    head n; the posterior p(y_n | x_m) is that of Gaussian likelihoods of the cells' centres about
    the heads, sigma 8 pixels. The background 0 has, for each cell, a point of its own at distance d
    from the nearest head on the line through the cell, hence the likelihood of d less the distance
    to that head. d is 15 % of the shorter side, here of the crop.

    Args:
        predicted: (B, 1, h, w) heads per cell.
        heads: (B, n, 2) x, y in pixels of the crops; rows that are not present may hold anything.
        present: (B, n) bool, which rows are heads.

    Returns:
        The mean over crops: one number.
    """
    positive, below = _positive(predicted)  # (B, m) both
    with torch.no_grad():
        squared = squared_distances(predicted, heads)  # (B, m, n)
        squared = squared.masked_fill(~present[:, None], torch.inf)
        reach = BACKGROUND * STRIDE * min(predicted.shape[2:])
        nearest = squared.amin(dim=2, keepdim=True).sqrt()  # (B, m, 1)
        nearest = nearest.masked_fill(nearest.isinf(), reach)  # nobody: all is background
        away = torch.cat([squared, (reach - nearest).square()], dim=2)  # (B, m, n + 1)
        posterior = torch.softmax(-away / (2 * SPREAD**2), dim=2)
    given = torch.einsum("bm,bmn->bn", positive, posterior)  # (B, n + 1)
    wanted = torch.nn.functional.pad(present.float(), (0, 1))
    return ((wanted - given).abs().sum(dim=1) + below.sum(dim=1)).mean()


def dm_count_loss(
    predicted: Tensor, heads: Tensor, present: Tensor, transport: float = TRANSPORT
) -> Tensor:
    """DM-Count (Wang et al., NeurIPS 2020, arXiv:2009.13077, section 3): the error of the count,
    plus 0.1 times the optimal transport between the normalised map z / |z| and the normalised
    heads, at the cost of squared distances in pixels, plus 0.01 times the number of heads times
    the total variation, half the absolute difference of the two on the cells.

    The gradient of the transport is that of its dual (section 3): with the potential f of the
    cells, (f - <f, z> / |z|) / |z|; a sum under one head counts as one there. Potentials come from
    Sinkhorn's algorithm in the logarithmic domain, the regularisation falling from the crop's
    squared diagonal to 10 squared pixels: at 10 from the start, as in the paper, its kernel
    vanishes in float32 beyond 30 pixels.

    Args:
        predicted: (B, 1, h, w) heads per cell.
        heads: (B, n, 2) x, y in pixels of the crops; rows that are not present may hold anything.
        present: (B, n) bool, which rows are heads.
        transport: weight of that term; 0 leaves it out.

    Returns:
        The mean over crops: one number.
    """
    positive, below = _positive(predicted)  # (B, m) both
    number = present.sum(dim=1).float()  # (B,)
    shares = positive / (positive.sum(dim=1, keepdim=True) + TINY)  # (B, m)
    true = _heads_in_cells(predicted, heads, present)  # (B, m)
    true_shares = true / number.clamp(min=1)[:, None]
    variation = 0.5 * (shares - true_shares).abs().sum(dim=1)  # (B,)
    loss = (positive.sum(dim=1) - number).abs() + VARIATION * number * variation + below.sum(dim=1)
    if transport:
        cost, slope = transport_cost(positive, squared_distances(predicted, heads), present)
        loss = loss + transport * (cost + (slope.abs() * below).sum(dim=1))
    return loss.mean()


def transport_cost(positive: Tensor, squared: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Entropic optimal transport between maps and heads, each normalised.

    Args:
        positive: (B, m) heads per cell, 0 or more; the gradient reaches it.
        squared: (B, m, n) squared distances in pixels.
        present: (B, n) bool, which rows are heads; the cost of a crop without one is 0.

    Returns:
        The cost (B,) in squared pixels, and its slope (B, m) in each cell.
    """
    with torch.no_grad():
        total = positive.sum(dim=1, keepdim=True)  # (B, 1)
        share = (positive + TINY) / (total + TINY * positive.shape[1])  # (B, m)
        weight = present / present.sum(dim=1, keepdim=True).clamp(min=1)  # (B, n)
        to_cells, to_heads = _potentials(squared, share.log(), weight.log())
        nobody = ~present.any(dim=1, keepdim=True)  # (B, 1)
        to_cells = to_cells.masked_fill(nobody, 0.0)
        mean = (to_cells * share).sum(dim=1, keepdim=True)  # (B, 1)
        value = mean[:, 0] + (to_heads * weight).sum(dim=1)  # (B,)
        slope = (to_cells - mean) / total.clamp(min=1)  # (B, m)
    linear = (positive * slope).sum(dim=1)
    cost = linear - linear.detach() + value.masked_fill(nobody[:, 0], 0.0)
    return cost, slope


def _potentials(squared: Tensor, log_share: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """The dual potentials (B, m) and (B, n) of the transport, in squared pixels."""
    to_cells = torch.zeros_like(log_share)
    to_heads = torch.zeros_like(log_weight)
    first = 2.0 * squared.shape[1] * STRIDE**2  # the squared diagonal of a square crop
    for turn in range(ROUNDS):
        # the last third of the rounds at the end's regularisation
        blur = BLUR * (first / BLUR) ** max(0.0, 1 - 1.5 * turn / ROUNDS)
        inner = (to_cells[:, :, None] - squared) / blur + log_share[:, :, None]  # (B, m, n)
        to_heads = -blur * inner.logsumexp(dim=1)
        inner = (to_heads[:, None] - squared) / blur + log_weight[:, None]  # (B, m, n)
        to_cells = -blur * inner.logsumexp(dim=2)
    return to_cells, to_heads


def generalised_loss(predicted: Tensor, heads: Tensor, present: Tensor) -> Tensor:
    """The generalised loss (Wan et al., CVPR 2021, "A Generalized Loss Function for Crowd Counting
    and Localization"), with absolute differences in the cells too: over plans P of what each cell
    gives to each head, the least of

        <C, P> + |P 1 - D|_1 + |P' 1 - 1|_1 - 0.1 H(P)

    for the map D, the entropy H(P) = -sum P (log P - 1) and the cost C of d pixels,
    10 (exp(d / 307) - 1). So a head that is missed costs 1, one that is seen where nobody is
    costs 1, and one seen in a wrong place what it is away, 1 at some thirty pixels; neither the
    map nor the heads are normalised, unlike in DM-Count. The paper squares the differences in
    the cells, which hardly feels a thousandth of a head in each cell of a large empty picture. The
    other numbers are those of its code with the cost "exp" (entropy 0.01, heads 0.1, here over
    the latter; distances over 0.6 of crops of 512).

    Args:
        predicted: (B, 1, h, w) heads per cell.
        heads: (B, n, 2) x, y in pixels of the crops; rows that are not present may hold anything.
        present: (B, n) bool, which rows are heads.

    Returns:
        The mean over crops: one number, of the plan's cost without the entropy, with the slope of
        the least.
    """
    positive, below = _positive(predicted)  # (B, m) both
    with torch.no_grad():
        cost = (squared_distances(predicted, heads).sqrt() / FAR).expm1() / MISSED  # (B, m, n)
        value, slope = unbalanced_transport(positive, cost, present)
    linear = (positive * slope).sum(dim=1)
    return (value + linear - linear.detach() + below.sum(dim=1)).mean()


def unbalanced_transport(
    positive: Tensor, cost: Tensor, present: Tensor, rounds: int = ROUNDS
) -> tuple[Tensor, Tensor]:
    """The plan of the generalised loss, by scaling (Chizat et al., arXiv:1607.05816): each side's
    potentials, which cannot leave -1 to 1, are set to their best in turn. What settles last is a
    number added to all slopes, where the sum of the map is about right.

    Args:
        positive: (B, m) heads per cell, 0 or more.
        cost: (B, m, n), where a head costs 1.
        present: (B, n) bool, which columns are heads.

    Returns:
        The plan's cost (B,) without the entropy, and the slope (B, m) of the least in each cell.
    """
    kernel = (-cost / ENTROPY).exp().masked_fill(~present[:, None], 0)  # (B, m, n)
    level = positive.clamp(min=SMALLEST).log()  # (B, m)

    def cells(to_heads: Tensor) -> Tensor:
        asked = torch.bmm(kernel, (to_heads / ENTROPY).exp()[:, :, None])[:, :, 0]  # (B, m)
        return (ENTROPY * (level - asked.clamp(min=NOBODY).log())).clamp(-1, 1)

    to_heads = torch.zeros_like(kernel[:, 0])  # (B, n)
    to_cells = cells(to_heads)
    for _ in range(rounds):
        taken = torch.bmm((to_cells / ENTROPY).exp()[:, None], kernel)[:, 0]  # (B, n)
        best = -ENTROPY * taken.clamp(min=NOBODY).log()
        to_heads = (to_heads + RELAX * (best - to_heads)).clamp(-1, 1)
        to_cells = cells(to_heads)
    plan = kernel * ((to_cells[:, :, None] + to_heads[:, None]) / ENTROPY).exp()
    moved = torch.where(plan > 0, cost * plan, 0.0).sum(dim=(1, 2))
    missed = ((plan.sum(dim=1) - 1).abs() * present).sum(dim=1)
    return moved + missed + (plan.sum(dim=2) - positive).abs().sum(dim=1), to_cells


def squared_distances(predicted: Tensor, heads: Tensor) -> Tensor:
    """From the centres of a map's cells to heads (B, n, 2): (B, h w, n) squared pixels."""
    height, width = predicted.shape[2:]
    rows, columns = (
        (torch.arange(side, device=heads.device) + 0.5) * STRIDE for side in (height, width)
    )
    down = (rows[:, None] - heads[:, None, :, 1]).square()  # (B, h, n)
    across = (columns[:, None] - heads[:, None, :, 0]).square()  # (B, w, n)
    return (down[:, :, None] + across[:, None]).flatten(1, 2)


def cells_of(predicted: Tensor, heads: Tensor) -> Tensor:
    """The numbers (B, n), row by row, of the cells of a map (B, 1, h, w) in which heads lie.

    Args:
        heads: (B, n, 2) x, y in pixels; one outside the map is put into the nearest cell.
    """
    height, width = predicted.shape[2:]
    row, column = (
        (heads[..., axis] / STRIDE).long().clamp(0, side - 1)
        for axis, side in ((1, height), (0, width))
    )
    return row * width + column


def _positive(predicted: Tensor) -> tuple[Tensor, Tensor]:
    """The positive part (B, m) of a map, and what of it (B, m) lies below zero."""
    flat = predicted.flatten(1)
    positive = flat.clamp(min=0)
    return positive, positive - flat


def _heads_in_cells(predicted: Tensor, heads: Tensor, present: Tensor) -> Tensor:
    """How many heads lie in each cell of a map: (B, m)."""
    empty = torch.zeros_like(predicted.flatten(1), dtype=torch.float32)
    return empty.scatter_add_(1, cells_of(predicted, heads), present.float())
