"""The training loop: steps, with reports, validations and checkpoints in between."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from .crops import Crops
from .data import Example
from .log import Log
from .processes import place
from .recipe import Recipe
from .state import State, TrainingError, save_checkpoint, save_model
from .step import rate, train_step
from .validation import validate

SAVE_SECONDS = 120.0  # minimum between two checkpoints
LOG_EVERY = 20  # steps


def loop(
    state: State,
    recipe: Recipe,
    crops: Crops,
    net: Callable[[Tensor], Tensor],
    held_out: Sequence[Example],
    out: Path,
    log: Log | None,
) -> None:
    """Run the remaining steps.

    Args:
        net: the state's model, or a wrapper of it.
        log: None in all processes but the first, the only one that writes.

    Raises:
        TrainingError: where the loss or the weights are no longer finite.
        OSError: where a checkpoint or a model cannot be written.
    """
    losses: list[tuple[Tensor, Tensor]] = []
    start, begun, before = time.perf_counter(), state.step, state.seconds
    saved = start
    while state.step < recipe.steps:
        falls = rate(recipe, state.step + 1) < 1 <= rate(recipe, state.step)
        if log and recipe.cooldown and state.step and falls and _finite(state):
            save_checkpoint(state, recipe, out / "before_cooldown.pt")  # to extend the run from
        losses.append(train_step(state, recipe, crops, net))
        state.seconds = before + time.perf_counter() - start
        ended = state.step == recipe.steps
        due = {
            name: ended or state.step % every == 0
            for name, every in (("log", LOG_EVERY), ("validate", recipe.validate_every))
        }
        rested = time.perf_counter() - saved >= SAVE_SECONDS
        due["save"] = ended or (due["log"] and rested)
        if log and crops.device.type != "cuda":  # a GPU takes many steps between reports
            log.step(state.step)
        if not any(due.values()):
            continue  # reading the loss would wait for a GPU
        loss, empty = _means(losses)
        losses.clear()
        if not (math.isfinite(loss) and _finite(state)):  # before anything is kept
            raise TrainingError(
                f"the loss became NaN or infinite near step {state.step}: lower the learning "
                f"rates. The last checkpoint, if any, is {out / 'last.pt'}"
            )
        if log:
            speed = (state.step - begun) * recipe.batch / (time.perf_counter() - start)
            log.training(state.step, loss, empty, rate(recipe, state.step), speed)
            if due["validate"]:
                _keep_best(state, recipe, held_out, crops.device, out, log)
            if due["save"]:
                save_checkpoint(state, recipe, out / "last.pt")
                saved = time.perf_counter()
        if due["validate"] and place()[1] > 1:
            dist.barrier()


def _means(losses: list[tuple[Tensor, Tensor]]) -> list[float]:
    """The means over steps and processes, each of which has its own crops of the batch."""
    means = torch.stack([torch.stack(column).mean() for column in zip(*losses)])
    if (world := place()[1]) > 1:
        dist.all_reduce(means)
        means /= world
    return means.tolist()  # type: ignore[no-any-return]


def _finite(state: State) -> bool:
    sums = [parameter.detach().sum() for parameter in state.model.parameters()]
    return bool(torch.isfinite(torch.stack(sums)).all())


def _keep_best(
    state: State,
    recipe: Recipe,
    held_out: Sequence[Example],
    device: torch.device,
    out: Path,
    log: Log,
) -> None:
    if not held_out:  # all are trained on: nothing to choose by
        save_model(state, recipe, out / "refit")
        return
    errors = validate(state, held_out, device)
    latest = recipe.choose_by == "last"
    error = errors["mae" if latest else recipe.choose_by]
    if latest or (error is not None and error < state.best):  # relative errors need heads
        state.best = error
        save_model(state, recipe, out / "best")
    log.validation(state.step, errors)  # by which `ablate` takes a run for finished
