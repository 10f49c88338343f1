"""One training step. It never waits for a GPU: nothing is read back, and nothing is copied from
pageable memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from csrnet_hub.devices import fast_bfloat16

from .crops import Crops
from .loss import LOSSES, of_empty
from .processes import place
from .recipe import Recipe
from .sampling import channels
from .state import State


def rate(recipe: Recipe, step: int, start: int = 0) -> float:
    """Share of the full learning rate: zero before the step ``start``, then a linear warm-up, a
    plateau, and a linear fall to zero at the end of the run."""
    warm = (step + 1 - start) / max(recipe.warmup, 1)
    left = (recipe.steps - step) / max(recipe.cooldown * recipe.steps, 1)
    return max(0.0, min(1.0, warm, left))


def precision(device: torch.device, cached: bool = True) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 where that is faster on the device."""
    native = fast_bfloat16(device)
    if not native:
        return nullcontext()
    # within a graph the cache would keep the weights of the capture
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=cached)


class Captured:
    """A network whose forward and backward passes are CUDA graphs, each a single launch per step.

    They are captured at the first call, and again when the set of trainable parameters changes.

    Raises:
        ValueError: if an input's shape differs from the captured one.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.learning: list[bool] = []
        self.shape: torch.Size | None = None
        self.graphs: Callable[[Tensor], Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        learning = [parameter.requires_grad for parameter in self.model.parameters()]
        if self.graphs is None or learning != self.learning:
            self.graphs = None
            gc.collect()  # graphs refer to each other, which keeps their memory
            self.graphs = self._capture(x)
            self.shape, self.learning = x.shape, learning
        if x.shape != self.shape:  # it would be broadcast into the graphs' input
            raise ValueError(f"captured for {tuple(self.shape or ())}, not {tuple(x.shape)}")
        return self.graphs(x)

    def _capture(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        # autograd warns that such gradients come from the graphs' own stream
        quiet = "set_warn_on_accumulate_grad_stream_mismatch"
        getattr(torch.autograd.graph, quiet, lambda _: None)(False)
        # torch refuses this within autocast, and captures on the current device, not on that of x
        with torch.autocast(x.device.type, enabled=False), torch.cuda.device(x.device):
            graphs: Any = torch.cuda.make_graphed_callables(_Cast(self.model), (x,))
        return graphs  # type: ignore[no-any-return]


class _Cast(nn.Module):
    """A network in training precision; `make_graphed_callables` replaces its forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with precision(x.device, cached=False):
            y: Tensor = self.model(x)
            return y


def train_step(
    state: State, recipe: Recipe, crops: Crops, net: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Take one optimiser step; returns the loss, and the loss of an empty map.

    Args:
        net: the state's model, or a wrapper of it; each of several processes takes its share of
            the batch.
    """
    model = state.model
    network = model if net is None else net
    rank, world = place()
    batch = crops.at(state.step, slice(rank, None, world))
    mean, std = (channels(values, crops.device) * 255 for values in (model.mean, model.std))
    x = ((batch.pixels - mean) / std).contiguous(memory_format=torch.channels_last)
    for group in state.optimiser.param_groups:
        group["lr"] = group["full_lr"] * rate(recipe, state.step, group["start"])
        if world == 1:  # unused gradients cost time, but several processes must agree on them
            for parameter in group["params"]:
                parameter.requires_grad_(state.step >= group["start"])
    state.optimiser.zero_grad()
    # where all crops have one size, cuDNN may search for its fastest algorithm
    torch.backends.cudnn.benchmark = recipe.crops == "random"
    with precision(crops.device):
        predicted = network(x).float() / model.density_scale  # (B, 1, h, w)
    if batch.weight is not None:
        predicted = predicted * batch.weight
    loss = LOSSES[recipe.loss](predicted, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    for group in state.optimiser.param_groups:
        if state.step < group["start"]:  # AdamW would accumulate moments of unused gradients
            for parameter in group["params"]:
                parameter.grad = None
    state.optimiser.step()
    state.step += 1
    keep = min(recipe.ema, (1 + state.step) / (10 + state.step))  # an early average is short
    both = zip(state.average.parameters(), model.parameters())
    averages, own = zip(*(pair for pair in both if pair[1].requires_grad))
    with torch.no_grad():
        get_ema_multi_avg_fn(keep)(averages, own, None)
        return loss.detach(), of_empty(recipe, batch)
