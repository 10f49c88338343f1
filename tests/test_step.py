"""What one step of training promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from train import step
from train.crops import Crops
from train.data import Example
from train.loss import LOSSES, euclidean_loss, of_empty
from train.recipe import CHOICES, Recipe, read_recipe
from train.state import State, start_from
from train.step import Captured, train_step

RECIPE = Path(__file__).with_name("recipe.toml")
CPU = torch.device("cpu")
SGD = {"optimiser": "sgd", "loss": "euclidean", "lr_backend": 0.1}


pytestmark = pytest.mark.usefixtures("thin")


@pytest.fixture
def recipe() -> Recipe:
    whole = {"exclude": [], "train_only": [], "empty": 0.0}
    return read_recipe(RECIPE, batch=1, crop=64, validation=2, warmup=1, **whole)


@pytest.fixture
def crowd() -> list[Example]:
    rng = np.random.default_rng(0)
    heads = rng.random((45, 2)) * (96, 72)
    pixels = rng.integers(0, 256, (72, 96, 3), dtype=np.uint8)
    return [Example("crowd", pixels, heads, np.full(45, 4.0), 45)]


def first_state(recipe: Recipe, thin_folder: Path) -> State:
    return start_from(recipe, str(thin_folder), CPU)


@pytest.mark.parametrize(
    "change",
    [{"loss": "pyramid"}, {"loss": "dmcount"}, {"loss": "generalised"}, {"loss": "frequency"}, SGD],
)
def test_training_lowers_the_loss(
    recipe: Recipe, crowd: list[Example], thin_folder: Path, change: dict[str, object]
) -> None:
    # a thin network wants higher rates
    how = replace(recipe, **{"lr_backend": 0.01, **change})  # type: ignore[arg-type]
    now, crops = first_state(how, thin_folder), Crops(crowd, how, CPU)
    losses: list[float] = []
    for _ in range(20):
        now.step = 0  # the same batch each time
        losses.append(train_step(now, how, crops)[0].item())
        if losses[-1] < 0.75 * losses[0]:
            return
    pytest.fail(f"the loss went {losses}")


def test_the_network_is_given_what_counting_gives_it_and_the_loss_is_the_recipes(
    recipe: Recipe, crowd: list[Example], thin_folder: Path
) -> None:
    """Normalised by the model's mean and std, in heads per cell by its density scale."""
    how = replace(recipe, loss="euclidean", grey=0.0, light=0.0, native=1.0)
    now, crops = first_state(how, thin_folder), Crops(crowd, how, CPU)
    now.model.mean, now.model.std = (0.5, 0.4, 0.3), (0.1, 0.2, 0.25)
    given: list[torch.Tensor] = []

    def network(x: torch.Tensor) -> torch.Tensor:
        given.append(x)
        return now.model(x)

    batch = crops.at(0, slice(0, None, 1))
    with torch.no_grad():
        mean, std = (torch.tensor(part)[:, None, None] for part in (now.model.mean, now.model.std))
        x = (batch.pixels / 255 - mean) / std
        expected = euclidean_loss(now.model(x) / now.model.density_scale, batch.target)
    loss, _ = train_step(now, how, crops, network)
    assert torch.allclose(given[0], x, atol=1e-4)
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)  # in bfloat16 where it is quick


@pytest.mark.parametrize(("step", "kept"), [(0, 2 / 11), (10_000, 0.9)])
def test_the_average_keeps_the_recipes_share_or_less_while_it_is_short(
    recipe: Recipe, crowd: list[Example], thin_folder: Path, step: int, kept: float
) -> None:
    how = replace(recipe, ema=0.9, steps=20_000, lr_backend=0.1)
    now, crops = first_state(how, thin_folder), Crops(crowd, how, CPU)
    now.step = step
    average, own = (one.output_layer.bias for one in (now.average, now.model))
    before = average.clone()
    train_step(now, how, crops)
    assert abs(own - before).item() > 0.01
    assert torch.allclose(average, kept * before + (1 - kept) * own)


def test_each_end_of_the_network_has_its_rate(recipe: Recipe, thin_folder: Path) -> None:
    how = replace(recipe, lr_frontend=1e-3, lr_backend=2e-3, weight_decay=0.3)
    for kind, entry, value in (("sgd", "momentum", 0.95), ("adamw", "betas", (0.9, 0.99))):
        now = first_state(replace(how, optimiser=kind), thin_folder)
        front, back = now.optimiser.param_groups
        assert front["params"][-1] is now.model.frontend[-2].bias
        assert back["params"][-1] is now.model.output_layer.bias
        assert (front["full_lr"], back["full_lr"]) == (1e-3, 2e-3)
        assert front[entry] == back[entry] == value
        assert front["weight_decay"] == back["weight_decay"] == 0.3


def test_the_front_end_waits_for_the_back_end(
    recipe: Recipe, crowd: list[Example], thin_folder: Path
) -> None:
    how = replace(recipe, backend_first=2)
    now, crops = first_state(how, thin_folder), Crops(crowd, how, CPU)
    front, back = now.model.frontend[-2].weight, now.model.backend[0].weight
    averaged = now.average.frontend[-2].weight
    moved = []
    for _ in range(3):
        before = [weight.detach().clone() for weight in (front, back, averaged)]
        train_step(now, how, crops)
        moved.append([not torch.equal(*pair) for pair in zip(before, (front, back, averaged))])
    assert moved == [[False, True, False], [False, True, False], [True, True, True]]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_front_end_that_waits_has_no_moments_yet(
    recipe: Recipe,
    crowd: list[Example],
    thin_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
) -> None:
    how = replace(recipe, backend_first=1, batch=processes)
    now, crops = first_state(how, thin_folder), Crops(crowd, how, CPU)
    monkeypatch.setattr(step, "place", lambda: (0, processes))
    remembered = []
    for _ in range(2):
        train_step(now, how, crops)
        known = now.optimiser.state
        remembered.append(
            [own in known for own in (now.model.frontend[-2].weight, now.model.backend[0].weight)]
        )
    assert remembered == [[False, True], [True, True]]


@pytest.mark.parametrize("loss", CHOICES["loss"])
def test_outside_the_region_of_interest_a_map_is_free(
    recipe: Recipe, crowd: list[Example], thin_folder: Path, loss: str
) -> None:
    how = replace(recipe, loss=loss)
    nobody = replace(crowd[0], heads=np.zeros((0, 2)), sigma=np.zeros(0), count=0)
    losses = []
    for mask in (np.ones((72, 96), bool), np.zeros((72, 96), bool)):
        crops = Crops([replace(nobody, mask=mask)], how, CPU)
        losses.append(train_step(first_state(how, thin_folder), how, crops)[0].item())
    assert losses[0] > 0
    assert losses[1] == 0


@pytest.mark.parametrize("loss", ["pyramid", "euclidean", "bayesian"])
def test_what_an_empty_map_loses_is_its_loss(
    recipe: Recipe, crowd: list[Example], loss: str
) -> None:
    nobody = replace(crowd[0], heads=np.zeros((0, 2)), sigma=np.zeros(0), count=0)
    how = replace(recipe, loss=loss, batch=2)
    for photos in (crowd, [crowd[0], nobody], [nobody]):
        batch = Crops(photos, how, CPU).at(0)
        empty = LOSSES[loss](torch.zeros_like(batch.target), batch).item()
        assert of_empty(how, batch).item() == pytest.approx(empty, rel=1e-6)


def test_an_early_average_is_short(recipe: Recipe, crowd: list[Example], thin_folder: Path) -> None:
    how = replace(recipe, ema=0.999)
    now, crops = first_state(how, thin_folder), Crops(crowd, how, CPU)
    before = now.model.output_layer.weight.detach().clone()
    train_step(now, how, crops)
    after, average = now.model.output_layer.weight, now.average.output_layer.weight
    keep = 2 / 11  # (1 + step) / (10 + step)
    assert torch.allclose(average, keep * before + (1 - keep) * after, atol=1e-7)
    assert not torch.allclose(average, before, atol=1e-6)


class Waits(TorchDispatchMode):
    """Notes the operations that make the host wait for a GPU: a number or a size read back."""

    KINDS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.found += [str(func)] if any(kind in str(func) for kind in self.KINDS) else []
        return func(*args, **(kwargs or {}))


def test_a_step_reads_nothing_back_from_its_device_whatever_the_loss(
    recipe: Recipe,
    crowd: list[Example],
    thin_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inside = np.ones((72, 96), bool)
    how = replace(recipe, optimiser="sgd")  # AdamW is fused on a GPU, here it is not
    crops = Crops([replace(crowd[0], mask=inside)], how, CPU)
    now = first_state(how, thin_folder)
    train_step(now, how, crops)  # constants are brought to the device once
    with Waits() as waits, monkeypatch.context() as patch:
        patch.delattr(torch, "tensor")  # which copies from memory that may be swapped out
        for loss in CHOICES["loss"]:
            train_step(now, replace(how, loss=loss), crops)
    assert waits.found == []
    with Waits() as waits:
        torch.ones(3)[torch.ones(3) > 0].sum().item()
    assert len(waits.found) >= 1  # it would notice


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize("loss", CHOICES["loss"])
def test_a_step_never_waits_for_a_gpu(
    recipe: Recipe, crowd: list[Example], thin_folder: Path, loss: str, capture: bool
) -> None:
    how, device = replace(recipe, loss=loss, batch=4), torch.device("cuda")
    crops, now = Crops(crowd, how, device), start_from(how, str(thin_folder), device)
    net = Captured(now.model) if capture else None
    train_step(now, how, crops, net)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            value, _ = train_step(now, how, crops, net)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(value)


def test_a_network_is_captured_on_its_own_device_and_anew_when_more_of_it_learns(
    recipe: Recipe, crowd: list[Example], thin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on, captured = [], []

    class Device:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            on.append(self.device)

        def __exit__(self, *error: object) -> None:
            on.pop()

    def capture(network, inputs):  # type: ignore[no-untyped-def]
        assert on == [inputs[0].device]
        assert not torch.is_autocast_enabled(inputs[0].device.type)
        captured.append([parameter.requires_grad for parameter in network.parameters()])
        return network

    monkeypatch.setattr(torch.cuda, "device", Device)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    how = replace(recipe, batch=2, backend_first=2)
    losses = []
    for own in (False, True):
        now, crops = first_state(how, thin_folder), Crops(crowd, how, CPU)
        net = Captured(now.model) if own else None
        losses.append([train_step(now, how, crops, net)[0].item() for _ in range(4)])
    assert losses[0] == losses[1]
    assert len(captured) == 2  # at first, and when the front end joins
    assert sum(captured[1]) > sum(captured[0])
    assert net is not None
    with pytest.raises(ValueError, match="captured for"):
        net(torch.zeros(1, 3, 64, 64))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("loss", ["pyramid", "bayesian"])
def test_a_captured_network_trains_as_the_plain_one(
    recipe: Recipe, crowd: list[Example], thin_folder: Path, loss: str
) -> None:
    how, device = replace(recipe, loss=loss, batch=4, backend_first=2), torch.device("cuda")
    losses: list[list[float]] = []
    for capture in (False, True):
        now = start_from(how, str(thin_folder), device)
        crops, net = Crops(crowd, how, device), Captured(now.model) if capture else None
        losses.append([train_step(now, how, crops, net)[0].item() for _ in range(6)])
        learnt = [parameter.grad is not None for parameter in now.model.parameters()]
        assert learnt == [parameter.requires_grad for parameter in now.model.parameters()]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert losses[0][0] != losses[0][-1]
