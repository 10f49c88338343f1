"""Training losses that hold a density map against the heads themselves, not against a map of them.

All are defined for maps that are nowhere negative, and the network's output may be. They take its
positive part; what lies below zero is a loss of its own, which pulls a cell up as strongly as it
would be pulled down above zero. Without it the sum of the map, which is a user's count, would not
be what was trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from csrnet_hub.model import STRIDE

SPREAD = 8.0  # pixels: sigma of a head's likelihood in the Bayesian loss, as in its paper
BACKGROUND = 0.15  # of the crop's shorter side: where the background's point lies, likewise
TRANSPORT, VARIATION = 0.1, 0.01  # weights of DM-Count's terms, as in its paper
BLUR = 10.0  # squared pixels: the entropic regularisation of its optimal transport, likewise
ROUNDS = 60  # of Sinkhorn's algorithm
TINY = 1e-6  # heads

# Of the generalised loss, where a head that is not counted, or counted twice, costs 1:
FAR = 307.2  # pixels: the scale of its cost, 0.6 of a crop of 512, as its authors have it
ENTROPY = 0.1  # their 0.01, over their 0.1 for a head
PIXELS = 100.0  # a squared head in a cell; the plan follows the map to a hundredth of a head or two
RELAX = 1.8  # of each update of the heads' potentials
SMALLEST, LARGEST = 1e-38, 8.0  # within float32: a sum's logarithm, and a potential over 0.1


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
    and Localization"): the least, over plans P of what each cell gives to each head, of

        <C, P> - 0.1 H(P) + 100 |P 1 - D|^2 + |P' 1 - 1|_1,

    for the map D, the entropy H(P) = -sum P (log P - 1) and the cost C of d pixels,
    10 (exp(d / 307) - 1): a cell's heads reach one some thirty pixels away before it is cheaper
    not to count it. Unlike in DM-Count, neither the map nor the heads are normalised. The numbers
    are those of the authors' code (entropy 0.01 and heads 0.1, here over the latter; distances
    over 0.6 of crops of 512), but for the weight of the cells. In place of their two steps, a plan
    and then a loss of it, this is the minimum itself: its slope in a cell is the cell's potential.

    Args:
        predicted: (B, 1, h, w) heads per cell.
        heads: (B, n, 2) x, y in pixels of the crops; rows that are not present may hold anything.
        present: (B, n) bool, which rows are heads.

    Returns:
        The mean over crops: one number.
    """
    positive, below = _positive(predicted)  # (B, m) both
    with torch.no_grad():
        distances = squared_distances(predicted, heads).sqrt()  # (B, m, n)
        cost = (distances / FAR).expm1() / ENTROPY
        value, slope = unbalanced_transport(positive, cost, present)
    linear = (positive * slope).sum(dim=1)
    pulled = ((1 + slope.abs()) * below).sum(dim=1)
    return (value + linear - linear.detach() + pulled).mean()


def unbalanced_transport(
    positive: Tensor, cost: Tensor, present: Tensor, rounds: int = ROUNDS
) -> tuple[Tensor, Tensor]:
    """The transport of the generalised loss, by scaling (Chizat et al., arXiv:1607.05816): each
    side's potentials are set to their best in turn.

    Args:
        positive: (B, m) heads per cell, 0 or more.
        cost: (B, m, n), where a head costs 1.
        present: (B, n) bool, which columns are heads.

    Returns:
        The least (B,), and its slope (B, m) in each cell.
    """
    kernel = (-cost / ENTROPY).exp() * present[:, None]  # (B, m, n)
    to_heads = torch.zeros_like(cost[:, 0])  # (B, n)
    to_cells = _given(positive, kernel, to_heads)  # (B, m)
    for _ in range(rounds):
        scaled = (to_cells.clamp(max=LARGEST) / ENTROPY).exp()
        taken = torch.bmm(scaled[:, None], kernel)[:, 0]  # (B, n)
        best = -ENTROPY * taken.clamp(min=SMALLEST).log()
        to_heads = (to_heads + RELAX * (best - to_heads)).clamp(-1, 1)
        to_cells = _given(positive, kernel, to_heads)
    missing = to_cells / (2 * PIXELS)  # (B, m) of the map
    given = positive - missing
    scaled = (to_cells.clamp(max=LARGEST) / ENTROPY).exp()
    taken = torch.bmm(scaled[:, None], kernel)[:, 0] * (to_heads / ENTROPY).exp()
    # <C, P> - 0.1 H(P) of a plan of this form, from its sums
    value = (to_cells * given).sum(1) + (to_heads * taken).sum(1) - ENTROPY * taken.sum(1)
    value = value + PIXELS * missing.square().sum(1)
    return value + ((taken - 1).abs() * present).sum(1), to_cells


def _given(positive: Tensor, kernel: Tensor, to_heads: Tensor) -> Tensor:
    """The potentials (B, m) of cells at which what they give, r, is what they would by their
    potentials 2 * 100 (D - r): y + log y = x for y = 2 * 100 r / 0.1, by Newton's method."""
    wanted = torch.bmm(kernel, (to_heads / ENTROPY).exp()[:, :, None])[:, :, 0]  # (B, m)
    share = 2 * PIXELS / ENTROPY
    x = (wanted.clamp(min=SMALLEST).log() + math.log(share) + share * positive).clamp(min=-80)
    y = torch.where(x > 1, x - x.clamp(min=1).log(), x.clamp(max=1).exp())
    for _ in range(2):
        y = y * (1 + x - y.log()) / (1 + y)
    return 2 * PIXELS * positive - ENTROPY * y


def squared_distances(predicted: Tensor, heads: Tensor) -> Tensor:
    """From the centres of a map's cells to heads (B, n, 2): (B, h w, n) squared pixels."""
    height, width = predicted.shape[2:]
    rows, columns = (
        (torch.arange(side, device=heads.device) + 0.5) * STRIDE for side in (height, width)
    )
    down = (rows[:, None] - heads[:, None, :, 1]).square()  # (B, h, n)
    across = (columns[:, None] - heads[:, None, :, 0]).square()  # (B, w, n)
    return (down[:, :, None] + across[:, None]).flatten(1, 2)


def _positive(predicted: Tensor) -> tuple[Tensor, Tensor]:
    """The positive part (B, m) of a map, and what of it (B, m) lies below zero."""
    flat = predicted.flatten(1)
    positive = flat.clamp(min=0)
    return positive, positive - flat


def _heads_in_cells(predicted: Tensor, heads: Tensor, present: Tensor) -> Tensor:
    """How many heads lie in each cell of a map: (B, m)."""
    height, width = predicted.shape[2:]
    row, column = (
        (heads[..., axis] / STRIDE).long().clamp(0, side - 1)
        for axis, side in ((1, height), (0, width))
    )
    empty = torch.zeros(len(heads), height * width, device=heads.device)
    return empty.scatter_add_(1, row * width + column, present.float())
