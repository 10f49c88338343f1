"""Training losses that compare a density map with the head points, not with a map of them.

All but the frequency loss are defined for non-negative maps, but the network's output may be
negative. They take its positive part and add a loss for values below zero, which pulls a cell up
as strongly as it would be pulled down above zero. Without this term, the sum of the map, which is
the count a user sees, would not be what was trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from csrnet_hub.model import STRIDE

SPREAD = 8.0  # pixels: sigma of a head in the Bayesian and frequency losses, as in their papers
BACKGROUND = 0.15  # of the crop's shorter side: distance of the background point, as in its paper
TRANSPORT, VARIATION = 0.1, 0.01  # weights of DM-Count's terms, as in its paper
BLUR = 10.0  # squared pixels: entropic regularisation of its optimal transport, as in its paper
ROUNDS = 60  # iterations of Sinkhorn's algorithm
TINY = 1e-6  # heads

# Generalised loss, scaled so that a missed head costs 1:
FAR = 307.2  # pixels: the scale of its cost, 0.6 of a crop of 512
MISSED = 0.1  # cost of a missed head in the original code; all costs here are divided by it
ENTROPY = 0.01 / MISSED
RELAX = 1.8  # over-relaxation of each update of the heads' potentials
SMALLEST = 1e-20  # heads in a cell: stands for zero in logarithms
NOBODY = 1e-30  # heads asked of a cell near nobody; below SMALLEST, so the two can be told apart

# Frequency loss:
HIGHEST = 0.3  # radians per pixel in each direction, as in its paper
HARMONICS = 30  # steps from zero to there, at least


def bayesian_loss(predicted: Tensor, heads: Tensor, present: Tensor) -> Tensor:
    """The Bayesian loss with background point (Ma et al., ICCV 2019, arXiv:1908.03684, sections
    3.2 and 3.3): sum over heads n of |1 - E[c_n]|, plus |E[c_0]|.

    E[c_n] = sum over cells m of p(y_n | x_m) D(x_m) is the number of people that the map D assigns
    to head n. The posterior p(y_n | x_m) comes from Gaussian likelihoods of the cell centres about
    the heads, with sigma 8 pixels. For each cell the background 0 has its own point, on the line
    from the nearest head through the cell at distance d from that head, so its likelihood is that
    of d minus the distance to the head. d is 15 % of the shorter side, here of the crop.

    Args:
        predicted: (B, 1, h, w) heads per cell.
        heads: (B, n, 2) x, y in pixels of the crops; rows that are not present may hold anything.
        present: (B, n) bool, which rows are heads.

    Returns:
        A scalar, averaged over crops.
    """
    positive, below = _positive(predicted)  # (B, m) both
    with torch.no_grad():
        squared = squared_distances(predicted, heads)  # (B, m, n)
        squared = squared.masked_fill(~present[:, None], torch.inf)
        reach = BACKGROUND * STRIDE * min(predicted.shape[2:])
        nearest = squared.amin(dim=2, keepdim=True).sqrt()  # (B, m, 1)
        nearest = nearest.masked_fill(nearest.isinf(), reach)  # no heads: all is background
        away = torch.cat([squared, (reach - nearest).square()], dim=2)  # (B, m, n + 1)
        posterior = torch.softmax(-away / (2 * SPREAD**2), dim=2)
    given = torch.einsum("bm,bmn->bn", positive, posterior)  # (B, n + 1)
    wanted = torch.nn.functional.pad(present.float(), (0, 1))
    return ((wanted - given).abs().sum(dim=1) + below.sum(dim=1)).mean()


def dm_count_loss(
    predicted: Tensor, heads: Tensor, present: Tensor, transport: float = TRANSPORT
) -> Tensor:
    """DM-Count (Wang et al., NeurIPS 2020, arXiv:2009.13077, section 3): the count error, plus 0.1
    times the optimal transport cost between the normalised map z / |z| and the normalised heads
    (squared distances in pixels), plus 0.01 times the number of heads times the total variation
    (half the absolute difference of the two over the cells).

    The gradient of the transport is that of its dual (section 3): with the cells' potential f,
    (f - <f, z> / |z|) / |z|, where |z| below one head counts as one. Potentials come from
    Sinkhorn's algorithm in the log domain, with regularisation falling from the crop's squared
    diagonal to 10 squared pixels: starting at 10, as in the paper, the kernel vanishes in float32
    beyond 30 pixels.

    Args:
        predicted: (B, 1, h, w) heads per cell.
        heads: (B, n, 2) x, y in pixels of the crops; rows that are not present may hold anything.
        present: (B, n) bool, which rows are heads.
        transport: weight of the transport term; 0 leaves it out.

    Returns:
        A scalar, averaged over crops.
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
    """Entropic optimal transport between normalised maps and normalised heads.

    Args:
        positive: (B, m) heads per cell, 0 or more; receives the gradient.
        squared: (B, m, n) squared distances in pixels.
        present: (B, n) bool, which rows are heads; a crop without heads costs 0.

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
        # the last third of the rounds uses the final regularisation
        blur = BLUR * (first / BLUR) ** max(0.0, 1 - 1.5 * turn / ROUNDS)
        inner = (to_cells[:, :, None] - squared) / blur + log_share[:, :, None]  # (B, m, n)
        to_heads = -blur * inner.logsumexp(dim=1)
        inner = (to_heads[:, None] - squared) / blur + log_weight[:, None]  # (B, m, n)
        to_cells = -blur * inner.logsumexp(dim=2)
    return to_cells, to_heads


def generalised_loss(predicted: Tensor, heads: Tensor, present: Tensor) -> Tensor:
    """The generalised loss (Wan et al., CVPR 2021, "A Generalized Loss Function for Crowd Counting
    and Localization"), with absolute differences in the cells too: the minimum, over plans P of
    what each cell gives to each head, of

        <C, P> + |P 1 - D|_1 + |P' 1 - 1|_1 - 0.1 H(P)

    where D is the map, H(P) = -sum P (log P - 1) the entropy, and C = 10 (exp(d / 307) - 1) the
    cost of d pixels. A missed head costs 1, a false one costs 1, and a misplaced one costs more
    with distance, reaching 1 at about thirty pixels. Unlike in DM-Count, neither the map nor the
    heads are normalised. The paper squares the differences in the cells, which hardly responds to
    a thousandth of a head in each cell of a large empty picture. The other numbers are those of
    its code with the cost "exp" (entropy 0.01 and heads 0.1, here divided by the latter; distances
    relative to 0.6 of crops of 512).

    Args:
        predicted: (B, 1, h, w) heads per cell.
        heads: (B, n, 2) x, y in pixels of the crops; rows that are not present may hold anything.
        present: (B, n) bool, which rows are heads.

    Returns:
        A scalar: the plan's cost without the entropy, averaged over crops, with the gradient of
        the minimum.
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
    """Solve the generalised loss's plan by scaling (Chizat et al., arXiv:1607.05816): each side's
    potentials, confined to -1 to 1, are optimised in turn. Where the sum of the map is about
    right, the last thing to converge is a constant added to all slopes.

    Args:
        positive: (B, m) heads per cell, 0 or more.
        cost: (B, m, n), in units of a missed head.
        present: (B, n) bool, which columns are heads.

    Returns:
        The plan's cost (B,) without the entropy, and the minimum's slope (B, m) in each cell.
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


def frequency_loss(predicted: Tensor, heads: Tensor, present: Tensor) -> Tensor:
    """The characteristic function loss (Shu et al., CVPR 2022, "Crowd Counting in the Frequency
    Domain"): the differences between the Fourier transforms of the map D and of Gaussians of 8
    pixels about the heads,

        d(t) = sum over cells m of D(x_m) exp(i t x_m)
               - exp(-32 t^2) sum over heads n of exp(i t y_n)

    at frequencies t = (u, v) of up to 0.3 radians per pixel along each axis. Much as in the
    paper's code for dense crowds, it is the sum over vertical frequencies v of the root of the sum
    of |d|^2 over horizontal frequencies u; that code takes the real and imaginary parts of d apart,
    so that its value depends on the origin. With the plain sum of |d|, all frequencies pull equally
    however far off they are, and the frequency zero, which is the count, is one of a thousand.
    Values below zero need no term of their own.

    Args:
        predicted: (B, 1, h, w) heads per cell.
        heads: (B, n, 2) x, y in pixels of the crops; rows that are not present may hold anything.
        present: (B, n) bool, which rows are heads.

    Returns:
        A scalar, averaged over crops: 1 for a missed head alone in its crop, and about the square
        root of the number of missed heads that lie at random.
    """
    width = STRIDE * max(predicted.shape[2:]) + 8 * SPREAD  # pixels: within, no wave repeats
    steps = max(HARMONICS, math.ceil(HIGHEST * width / (2 * math.pi)))
    down = torch.linspace(0, HIGHEST, steps + 1, device=predicted.device)  # (F,)
    across = torch.cat([-down[1:].flip(0), down])  # (G,); below zero, rows have the same norms
    rows, columns = (
        (torch.arange(side, device=predicted.device) + 0.5) * STRIDE for side in predicted.shape[2:]
    )
    of_map = _waves(down, rows) @ predicted[:, 0].to(torch.complex64) @ _waves(across, columns).mT
    with torch.no_grad():
        blur = (-0.5 * SPREAD**2 * (down[:, None].square() + across.square())).exp()  # (F, G)
        share = torch.where(down > 0, 2.0, 1.0)
        one: Tensor = torch.linalg.vector_norm(blur, dim=1)  # (F,), of one head
        share = share / (share * one).sum()
        x, y = torch.where(present[..., None], heads, 0.0).unbind(dim=-1)  # (B, n) both
        each = _waves(down, y) * present[:, None]  # (B, F, n)
        of_heads = blur * (each @ _waves(across, x).mT)  # (B, F, G)
    norms: Tensor = torch.linalg.vector_norm(of_map - of_heads, dim=2)  # (B, F)
    return (share * norms).sum(dim=1).mean()


def _waves(frequencies: Tensor, positions: Tensor) -> Tensor:
    """exp(i t x) of frequencies (F,) per pixel and positions (..., n) in pixels: (..., F, n)."""
    phase = frequencies[:, None] * positions[..., None, :]
    return torch.polar(torch.ones_like(phase), phase)


def squared_distances(predicted: Tensor, heads: Tensor) -> Tensor:
    """Squared pixels between a map's cell centres and heads (B, n, 2): (B, h w, n)."""
    height, width = predicted.shape[2:]
    rows, columns = (
        (torch.arange(side, device=heads.device) + 0.5) * STRIDE for side in (height, width)
    )
    down = (rows[:, None] - heads[:, None, :, 1]).square()  # (B, h, n)
    across = (columns[:, None] - heads[:, None, :, 0]).square()  # (B, w, n)
    return (down[:, :, None] + across[:, None]).flatten(1, 2)


def cells_of(predicted: Tensor, heads: Tensor) -> Tensor:
    """Row-major indices (B, n) of the cells of a map (B, 1, h, w) in which heads lie.

    Args:
        heads: (B, n, 2) x, y in pixels; heads outside the map go to the nearest cell.
    """
    height, width = predicted.shape[2:]
    row, column = (
        (heads[..., axis] / STRIDE).long().clamp(0, side - 1)
        for axis, side in ((1, height), (0, width))
    )
    return row * width + column


def _positive(predicted: Tensor) -> tuple[Tensor, Tensor]:
    """A map's positive part (B, m) and the magnitude (B, m) of its negative part."""
    flat = predicted.flatten(1)
    positive = flat.clamp(min=0)
    return positive, positive - flat


def _heads_in_cells(predicted: Tensor, heads: Tensor, present: Tensor) -> Tensor:
    """The number of heads in each cell of a map: (B, m)."""
    empty = torch.zeros_like(predicted.flatten(1), dtype=torch.float32)
    return empty.scatter_add_(1, cells_of(predicted, heads), present.float())
