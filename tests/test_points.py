"""What the losses that compare a map with the heads themselves promise."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog, minimize

from csrnet_hub.density import density_map
from train.loss import GHOSTS
from train.loss import LOSSES as OF_RECIPES
from train.points import (
    _potentials,
    bayesian_loss,
    dm_count_loss,
    frequency_loss,
    generalised_loss,
    squared_distances,
    transport_cost,
    unbalanced_transport,
)

SHAPE = (4, 5)  # cells: 32 x 40 pixels


def scene(counts: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Maps that are somewhere negative, and heads, with rows to spare that hold nonsense."""
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(-0.2, 1.0, (len(counts), 1, *SHAPE))
    heads = rng.uniform(0, 1, (len(counts), 9, 2)) * (40, 32)
    present = np.arange(9) < np.array(counts)[:, None]
    heads[~present] = 1e6
    return (
        torch.from_numpy(predicted).float().requires_grad_(),
        torch.from_numpy(heads).float(),
        torch.from_numpy(present),
    )


def centres() -> list[tuple[float, float]]:
    return [(8 * j + 4.0, 8 * i + 4.0) for i in range(SHAPE[0]) for j in range(SHAPE[1])]


def test_the_bayesian_loss_is_that_of_its_definition() -> None:
    predicted, heads, present = scene([6, 1])
    total = 0.0
    for crop in range(2):
        flat = predicted[crop].detach().numpy().ravel().astype(float)
        people = [tuple(head) for head in heads[crop][present[crop]].numpy().astype(float)]
        given = np.zeros(len(people) + 1)  # the background last
        for (x, y), density in zip(centres(), flat.clip(0)):
            distances = np.array([np.hypot(x - hx, y - hy) for hx, hy in people])
            distances = np.append(distances, 0.15 * 32 - distances.min())
            likelihood = np.exp(-(distances**2) / (2 * 8.0**2))
            given += density * likelihood / likelihood.sum()
        total += np.abs(1 - given[:-1]).sum() + given[-1] + -flat.clip(None, 0).sum()
    assert bayesian_loss(predicted, heads, present).item() == pytest.approx(total / 2, rel=1e-5)


def test_dm_count_is_that_of_its_definition() -> None:
    predicted, heads, present = scene([6, 1])
    predicted = predicted.detach().clamp(min=0)
    total = 0.0
    for crop in range(2):
        flat = predicted[crop].numpy().ravel().astype(float)
        people = heads[crop][present[crop]].numpy().astype(float)
        cells = np.zeros(SHAPE)
        for x, y in people:
            cells[int(y // 8), int(x // 8)] += 1
        share = flat / flat.sum()
        variation = np.abs(share - cells.ravel() / len(people)).sum() / 2
        cost = exact_cost(flat, people)
        total += abs(flat.sum() - len(people)) + 0.1 * cost + 0.01 * len(people) * variation
    assert dm_count_loss(predicted, heads, present).item() == pytest.approx(total / 2, rel=2e-2)
    without = dm_count_loss(predicted, heads, present, transport=0.0).item()
    assert 0 < without < dm_count_loss(predicted, heads, present).item()


def exact_cost(mass: np.ndarray, people: np.ndarray) -> float:
    """Optimal transport between a normalised map and heads, by linear programming."""
    cost = np.array([[((np.array(c) - p) ** 2).sum() for p in people] for c in centres()])
    m, n = cost.shape
    rows = np.kron(np.eye(m), np.ones(n))
    columns = np.kron(np.ones(m), np.eye(n))
    sums = np.concatenate([mass / mass.sum(), np.full(n, 1 / n)])
    return float(linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=sums).fun)


def test_the_transport_is_that_of_an_optimal_assignment_even_across_a_whole_crop() -> None:
    rng = np.random.default_rng(3)
    predicted = torch.zeros(1, 1, 32, 32)  # 256 pixels a side
    heads = torch.from_numpy(rng.uniform(160, 256, (1, 12, 2))).float()
    cells = rng.choice(144, 12, replace=False)  # one head each, in the opposite quarter
    predicted[0, 0, cells // 12, cells % 12] = 1.0
    squared = squared_distances(predicted, heads)
    chosen = squared[0][(cells // 12) * 32 + cells % 12].numpy()  # (12, 12)
    best = chosen[linear_sum_assignment(chosen)].mean()
    present = torch.ones(1, 12, dtype=torch.bool)
    found, _ = transport_cost(predicted.flatten(1), squared, present)
    assert found.item() == pytest.approx(best, rel=5e-3)


def test_the_slope_of_the_transport_is_that_of_the_exact_one() -> None:
    predicted, heads, present = scene([3])
    positive = (predicted.detach().flatten(1) + 0.5).requires_grad_()  # no cell is without mass
    transport_cost(positive, squared_distances(predicted, heads), present)[0].sum().backward()
    assert positive.grad is not None
    people = heads[0][present[0]].numpy().astype(float)
    mass = positive[0].detach().numpy().astype(float)
    for cell in (0, 7, 19):
        ends = [exact_cost(mass + step * np.eye(20)[cell], people) for step in (-1e-3, 1e-3)]
        slope = (ends[1] - ends[0]) / 2e-3
        assert positive.grad[0, cell].item() == pytest.approx(slope, rel=0.05, abs=0.5), cell


def test_both_marginals_of_the_transport_hold() -> None:
    predicted, heads, present = scene([5])
    share = predicted.detach().flatten(1).clamp(min=0) + 0.1
    share = share / share.sum()
    weight = present / 5
    squared = squared_distances(predicted, heads)
    to_cells, to_heads = _potentials(squared, share.log(), weight.log())
    exponent = (to_cells[:, :, None] + to_heads[:, None] - squared) / 10.0
    plan = share[:, :, None] * weight[:, None] * exponent.exp()
    assert torch.allclose(plan.sum(2), share, atol=1e-4)
    assert torch.allclose(plan.sum(1)[present], weight[present], atol=0.02)


def least(mass: np.ndarray, people: np.ndarray) -> tuple[float, float]:
    """What the generalised loss is the least of, with and without the entropy, by another way:
    sequential quadratic programming over all plans, with a variable beside each head and each cell
    that is no less than its error."""
    distances = np.array([[np.hypot(*(np.array(c) - p)) for p in people] for c in centres()])
    cost = 10 * np.expm1(distances / 307.2)
    m, n = cost.shape
    sums = np.vstack([np.kron(np.eye(m), np.ones(n)), np.kron(np.ones(m), np.eye(n))])
    wanted = np.concatenate([mass, np.ones(n)])
    beside = np.eye(m + n)

    def entropy(plan: np.ndarray) -> float:
        return float((plan[: m * n] * (np.log(plan[: m * n]) - 1)).sum())

    def value(plan: np.ndarray) -> float:
        return float(cost.ravel() @ plan[: m * n] + plan[m * n :].sum() + 0.1 * entropy(plan))

    def slope(plan: np.ndarray) -> np.ndarray:
        return np.concatenate([cost.ravel() + 0.1 * np.log(plan[: m * n]), np.ones(m + n)])

    over, under = np.hstack([-sums, beside]), np.hstack([sums, beside])
    limits = [
        {"type": "ineq", "fun": lambda plan: over @ plan + wanted, "jac": lambda plan: over},
        {"type": "ineq", "fun": lambda plan: under @ plan - wanted, "jac": lambda plan: under},
    ]
    start = np.concatenate([np.full(m * n, 1 / m), np.full(m + n, n)])
    bounds = [(1e-9, None)] * len(start)
    how = {"maxiter": 1000, "ftol": 1e-12}
    found = minimize(
        value, start, jac=slope, bounds=bounds, constraints=limits, method="SLSQP", options=how
    )
    assert found.success, found.message
    return float(found.fun), float(found.fun) - 0.1 * entropy(found.x)


@pytest.mark.parametrize("scale", [0.9, 3.0])  # of the map: a kink where the sum is right
def test_the_generalised_loss_is_the_least_that_it_says(scale: float) -> None:
    predicted, heads, present = scene([3])
    mass = predicted.detach().clamp(min=0) * (3 * scale / predicted.detach().clamp(min=0).sum())
    people = heads[0][present[0]].numpy().astype(float)
    flat = mass.numpy().ravel().astype(float)
    smallest = least(flat, people)[1]
    step = 2e-3 * np.eye(20)
    ends = {
        cell: [least((flat + way * step[cell]).clip(0), people)[0] for way in (-1, 1)]
        for cell in (0, 19)
    }
    for flush in (True, False):  # numbers too small to be normal, as in a run
        mass = mass.detach().requires_grad_()
        torch.set_flush_denormal(flush)
        try:
            value = generalised_loss(mass, heads, present)
            value.backward()  # type: ignore[no-untyped-call]
        finally:
            torch.set_flush_denormal(False)
        assert value.item() == pytest.approx(smallest, rel=0.02)
        assert mass.grad is not None
        for cell, (below, above) in ends.items():
            steep = (above - below) / 4e-3
            assert mass.grad.flatten()[cell].item() == pytest.approx(steep, abs=0.05), cell


def test_sixty_rounds_of_a_crop_come_near_the_least() -> None:
    rng = np.random.default_rng(1)
    heads = torch.from_numpy(rng.uniform(0, 256, (1, 300, 2)))
    present = torch.ones(1, 300, dtype=torch.bool)
    positive = torch.from_numpy(rng.uniform(0, 1, (1, 1024)) ** 4)
    for scale in (0.8, 1.25):
        mass = positive * (scale * 300 / positive.sum())
        map_ = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
        cost = 10 * (squared_distances(map_, heads).sqrt() / 307.2).expm1()
        _, exact = unbalanced_transport(mass, cost, present, rounds=3000)
        _, found = unbalanced_transport(mass.float(), cost.float(), present)
        assert (found - exact).abs().max() < 0.1
        assert (found - exact).abs().mean() < 0.02
        assert exact.abs().mean() > 0.3


def test_the_generalised_loss_counts_heads_that_are_missed_moved_and_seen_where_nobody_is() -> None:
    heads = torch.tensor([[[20.0, 20.0], [500.0, 500.0]]])
    present = torch.ones(1, 2, dtype=torch.bool)

    def of(*cells: tuple[int, int]) -> float:
        predicted = torch.zeros(1, 1, 64, 64)
        for cell in cells:
            predicted[0, 0][cell] = 1.0
        return generalised_loss(predicted, heads, present).item()

    assert of() == pytest.approx(2, abs=0.3)
    assert of((2, 2)) == pytest.approx(1, abs=0.3)
    assert of((2, 2), (62, 62)) == pytest.approx(0, abs=0.3)
    assert of((2, 2), (62, 60)) == pytest.approx(10 * np.expm1(16 / 307.2), abs=0.3)
    assert of((2, 2), (62, 62), (2, 62)) == pytest.approx(1, abs=0.3)
    assert of((2, 2), (2, 62)) == pytest.approx(2, abs=0.3)  # too far to be the other one


def test_the_frequency_loss_is_that_of_its_definition() -> None:
    predicted, heads, present = scene([6, 1])
    frequencies = np.arange(-30, 31) * 0.01
    total = 0.0
    for crop in range(2):
        flat = predicted[crop].detach().numpy().ravel().astype(float)
        people = heads[crop][present[crop]].numpy().astype(float)
        for v in frequencies:
            squares = 0.0
            for u in frequencies:
                blur = np.exp(-(8.0**2) * (u**2 + v**2) / 2)
                of_map = sum(d * np.exp(1j * (u * x + v * y)) for d, (x, y) in zip(flat, centres()))
                squares += abs(of_map - blur * np.exp(1j * (people @ (u, v))).sum()) ** 2
            total += squares**0.5
    one_head = sum(np.linalg.norm(np.exp(-32.0 * (frequencies**2 + v**2))) for v in frequencies)
    value = frequency_loss(predicted, heads, present).item()
    assert value == pytest.approx(total / 2 / one_head, rel=1e-4)


def test_no_two_places_of_a_large_crop_are_one_to_the_frequency_loss() -> None:
    wave = 2 * np.pi * 30 / 0.3  # pixels; the step of the frequencies in crops of up to 564
    head = torch.tensor([[[100.0, 100.0]]])
    present = torch.ones(1, 1, dtype=torch.bool)
    there, apart = (
        torch.from_numpy(density_map([[x, 100.0]], 768, 768, 8.0, 8)).float()[None, None]
        for x in (100.0, 100.0 + wave)
    )
    assert frequency_loss(there, head, present).item() < 0.1
    assert frequency_loss(apart, head, present).item() > 1


@pytest.mark.parametrize(("missed", "cost"), [(0, 0.0), (1, 1.0), (2, 2.0)])
def test_missed_heads_cost_one_each_in_one_place_and_less_apart(missed: int, cost: float) -> None:
    empty = torch.zeros(1, 1, 64, 64)
    present = torch.arange(2)[None] < missed
    together = frequency_loss(empty, torch.full((1, 2, 2), 200.0), present).item()
    apart = frequency_loss(empty, torch.tensor([[[90.0, 400.0], [300.0, 70.0]]]), present).item()
    assert together == pytest.approx(cost, abs=1e-4)
    assert apart == pytest.approx(cost if missed < 2 else 2**0.5, abs=0.2)


LOSSES: list[Callable[..., torch.Tensor]] = [bayesian_loss, dm_count_loss, generalised_loss]


@pytest.mark.parametrize("loss", LOSSES)
def test_where_nobody_is_all_of_the_map_is_wrong(loss: Callable[..., torch.Tensor]) -> None:
    predicted, heads, present = scene([0])
    value = loss(predicted, heads, present)
    value.backward()  # type: ignore[no-untyped-call]
    assert predicted.grad is not None
    assert value.item() == pytest.approx(predicted.detach().abs().sum().item(), rel=1e-5)
    assert torch.equal(predicted.grad.sign(), predicted.detach().sign())


@pytest.mark.parametrize("loss", [*LOSSES, frequency_loss])
@pytest.mark.parametrize("level", [0.0, -1.0, 1e-12, 1e4])
def test_no_map_makes_a_loss_or_a_gradient_that_is_not_finite(
    loss: Callable[..., torch.Tensor], level: float
) -> None:
    _, heads, present = scene([9, 0, 1])
    predicted = torch.full((3, 1, *SHAPE), level, requires_grad=True)
    value = loss(predicted, heads, present)
    value.backward()  # type: ignore[no-untyped-call]
    assert predicted.grad is not None
    assert torch.isfinite(value)
    assert torch.isfinite(predicted.grad).all()


@pytest.mark.parametrize(
    ("loss", "lr", "least"),
    [
        (bayesian_loss, 0.02, -0.05),
        (dm_count_loss, 0.005, -0.05),
        (generalised_loss, 0.005, -0.05),
        (frequency_loss, 0.005, -1.0),  # it does not see ripples above its highest frequency
    ],
)
def test_following_the_gradient_puts_the_people_where_they_are_and_nothing_below_zero(
    loss: Callable[..., torch.Tensor], lr: float, least: float
) -> None:
    heads = torch.tensor([[[36.0, 36.0], [92.0, 60.0]]])
    present = torch.ones(1, 2, dtype=torch.bool)
    rng = np.random.default_rng(0)
    start = torch.from_numpy(rng.normal(0, 0.02, (1, 1, 16, 16))).float()  # 128 x 128 pixels
    predicted = start.requires_grad_()
    optimiser = torch.optim.Adam([predicted], betas=(0.9, 0.99))
    for step in range(300):
        optimiser.param_groups[0]["lr"] = lr * (1 - step / 300)
        optimiser.zero_grad()
        loss(predicted, heads, present).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    found = predicted.detach()[0, 0]
    assert found.sum().item() == pytest.approx(2, abs=0.5)
    assert found.clamp(max=0).sum().item() > least
    for row, column in ((4, 4), (7, 11)):
        near = found[row - 3 : row + 4, column - 3 : column + 4].sum().item()
        assert near == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("loss", [*LOSSES, frequency_loss])
def test_rows_that_are_no_heads_change_nothing(loss: Callable[..., torch.Tensor]) -> None:
    predicted, heads, present = scene([4, 2])
    value = loss(predicted, heads, present).item()
    other = torch.where(present[..., None], heads, 3.0)
    assert loss(predicted, other, present).item() == pytest.approx(value, rel=1e-5)
    longer = torch.nn.functional.pad(heads, (0, 0, 0, 7))
    there = torch.nn.functional.pad(present, (0, 7))
    assert loss(predicted, longer, there).item() == pytest.approx(value, rel=1e-5)


def test_the_frequency_loss_of_a_recipe_sees_faint_heads_in_drawn_pictures_only() -> None:
    faint = torch.full((2, 1, *SHAPE), -0.01)
    _, heads, _ = scene([0, 0])
    drawn, present = torch.tensor([False, True]), torch.zeros(2, 9, dtype=torch.bool)
    batch = SimpleNamespace(heads=heads, present=present, drawn=drawn)
    added = OF_RECIPES["frequency"](faint, batch) - frequency_loss(faint, heads, present)
    assert added.item() == pytest.approx(GHOSTS * 0.2 / 2)
