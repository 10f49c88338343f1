"""Train a CSRNet: python -m train.fit RECIPE.toml --data PREPARED.h5 --out RUN_FOLDER.

On several GPUs: torchrun --nproc-per-node 4 -m train.fit, and the same options.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from csrnet_hub.cli import print_any_name
from csrnet_hub.datasets import DatasetError
from csrnet_hub.devices import out_of_memory, pick_device
from csrnet_hub.hub import one_line
from csrnet_hub.memory import keep_memory
from csrnet_hub.model_files import ModelError
from csrnet_hub.named import named_path
from csrnet_hub.resources import resource

from .crops import Crops
from .data import Example, digest, fingerprint, load_prepared, split
from .log import FILE, Log
from .photographs import check_pictures, set_sizes, tell_of_scenes, warn_of_seen, warn_of_twins
from .processes import alone, own_device, place
from .recipe import Recipe, RecipeError, read_recipe
from .record import name_device, of_training, of_validation
from .seen import Seen
from .state import (
    State,
    TrainingError,
    go_on,
    lend_figures,
    new_state,
    same_recipe,
    save_checkpoint,
    save_model,
    start_from,
)
from .step import Captured, rate, train_step
from .validation import validate

SAVE_SECONDS = 120.0  # at least between two checkpoints
LOG_EVERY = 20  # steps
TOO_LARGE = (
    "memory ran out: lower batch or crop in the recipe, or prepare fewer or smaller photographs, "
    "all of which lie in memory, three bytes a pixel, and on the training device, be it the CPU, "
    "once more, or twice with worse in the recipe"
)
LEFT = ("last.pt", "best", "refit", FILE)  # in the folder of a run, begun or finished


def fit(
    recipe: Recipe,
    examples: Sequence[Example],
    out: Path,
    vgg: str = "torchvision",
    device: torch.device | None = None,
    resume: Path | None = None,
    init: str | None = None,
    compiled: bool = False,
    refit: str | None = None,
) -> float:
    """Train by a recipe; checkpoints, log, curves and the best model land in ``out``.

    Args:
        resume: a checkpoint of a run of the same recipe on the same photographs. The least error
            so far goes on counting only where the model that had it is in ``out/best``.
        refit: folder or Hub id of a model that a run of the same recipe left. Its validation
            images are trained on too; the weights of the end land in ``out/refit``, with the
            errors and the interval of that model, which had not seen them.

    Returns:
        The validation error of the model that was kept, of the kind that the recipe chooses by
        (MAE where it keeps the last); infinite if none was.

    Raises:
        TrainingError, DatasetError, ModelError: with what is wrong and what to do.
    """
    device = device or pick_device("auto")
    torch.set_flush_denormal(True)  # denormal gradients are slow on CPUs
    if device.type == "cpu":
        keep_memory()
    if resource("model_card.md") is None:  # else it would be missed after hours
        raise TrainingError("model_card.md is missing from this installation: install it anew")
    rank, world = place()
    if recipe.batch % world:
        raise TrainingError(f"a batch of {recipe.batch} cannot be shared by {world} processes")
    check_pictures(recipe, examples)
    with alone(out) if rank == 0 else nullcontext():
        return _fit(recipe, examples, out, vgg, device, resume, init, compiled, refit)


def _fit(
    recipe: Recipe,
    examples: Sequence[Example],
    out: Path,
    vgg: str,
    device: torch.device,
    resume: Path | None,
    init: str | None,
    compiled: bool,
    refit: str | None,
) -> float:
    rank, world = place()
    train, held_out = split(examples, recipe.validation, recipe.seed, recipe.train_only)
    judged, measured = None, of_validation(train, held_out)
    if refit:
        judged = same_recipe(recipe, refit, train)
        train, held_out = list(examples), []
    elif recipe.choose_by == "nae" and not any(example.count for example in held_out):
        raise TrainingError("no validation image has people: set choose_by to mae in the recipe")
    warn_of_twins(train, held_out)
    tell_of_scenes(train, held_out, len(examples))
    if resume:
        state = go_on(resume, recipe, device, examples, out)
    else:
        state = start_from(recipe, init, device) if init else new_state(recipe, vgg, device)
        state.data = fingerprint(examples)
        known = Seen(state.photographs, state.average.working_pixels)  # of the model of --init
        if number := warn_of_seen(init, known, held_out):
            state.origin["seen"] = number
    state.photographs |= {digest(example) for example in train}
    state.origin |= of_training(recipe, train, state.origin.get("init")) | measured
    state.origin["device"] = name_device(device, world)
    set_sizes(state.average, recipe, train)
    if judged:
        lend_figures(state, judged)
    elif "refit" in state.origin:
        raise TrainingError("that run trains on its validation images: go on with --refit MODEL")
    if state.step >= recipe.steps:
        raise TrainingError(f"step {state.step} of {recipe.steps} is done; give more with --steps")
    net: Callable[[Tensor], Tensor] = state.model
    if world > 1:
        net = DistributedDataParallel(state.model, [device] if device.type == "cuda" else None)
    if compiled:
        net = torch.compile(net)
    elif device.type == "cuda" and world == 1 and recipe.crops == "random":  # all of one shape
        net = Captured(state.model)
    crops = Crops(train, recipe, device)
    with Log(out, state.step, recipe.steps) if rank == 0 else nullcontext() as log:
        _run(state, recipe, crops, net, held_out, out, log)
    return state.best


def _run(
    state: State,
    recipe: Recipe,
    crops: Crops,
    net: Callable[[Tensor], Tensor],
    held_out: Sequence[Example],
    out: Path,
    log: Log | None,  # None in all processes but the first, which alone writes
) -> None:
    losses: list[tuple[Tensor, Tensor]] = []
    start, begun, before = time.perf_counter(), state.step, state.seconds
    saved = start
    while state.step < recipe.steps:
        falls = rate(recipe, state.step + 1) < 1 <= rate(recipe, state.step)
        if log and falls and _finite(state):
            save_checkpoint(state, recipe, out / "before_cooldown.pt")  # to train longer from
        losses.append(train_step(state, recipe, crops, net))
        state.seconds = before + time.perf_counter() - start
        ended = state.step == recipe.steps
        due = {
            name: ended or state.step % every == 0
            for name, every in (("log", LOG_EVERY), ("validate", recipe.validate_every))
        }
        rested = time.perf_counter() - saved >= SAVE_SECONDS
        due["save"] = ended or (due["log"] and rested)
        if log and crops.device.type != "cuda":  # a GPU makes many steps between two reports
            log.step(state.step)
        if not any(due.values()):
            continue  # reading the loss would wait for a GPU
        loss, empty = (float(torch.stack(column).mean()) for column in zip(*losses))
        losses.clear()
        if not (math.isfinite(loss) and _finite(state)):  # before anything is kept
            raise TrainingError(
                f"the loss is not finite near step {state.step}: lower the rates; the last good "
                f"state is {out / 'last.pt'}, if the run came that far"
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
    if not held_out:  # trained on too: there is nothing to choose by
        save_model(state, recipe, out / "refit")
        return
    errors = validate(state, held_out, device)
    log.validation(state.step, errors)
    latest = recipe.choose_by == "last"
    error = errors["mae" if latest else recipe.choose_by]
    if latest or (error is not None and error < state.best):  # relative errors need heads
        state.best = error
        save_model(state, recipe, out / "best")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of ``python -m train.fit``."""
    parser = _parser()
    options = parser.parse_args(argv)
    print_any_name()
    last = options.out / "last.pt"
    resume = None if options.resume is None else Path(options.resume or last)
    goes_on = resume is not None and resume.resolve() == last.resolve()
    if not goes_on and any((options.out / name).exists() for name in LEFT):
        how = "go on with --resume, or " if last.exists() else ""
        parser.error(f"{options.out} holds a run; {how}give another --out, or remove it first")
    if resume and options.init:
        parser.error("a run that goes on has weights of its own: give --resume or --init")
    try:
        recipe = read_recipe(options.recipe, steps=options.steps)
        examples = load_prepared(options.data, recipe.exclude)
        with own_device(options.device) as device:
            best = fit(
                recipe,
                examples,
                options.out,
                options.vgg,
                device,
                resume,
                options.init,
                options.compile,
                options.refit,
            )
    except (RecipeError, DatasetError, ModelError, TrainingError, ValueError, OSError) as error:
        print(f"fit: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print(f"fit: {one_line(error)}\nfit: {TOO_LARGE}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = f"--resume goes on from {last}" if last.exists() else "no checkpoint was kept yet"
        print(f"fit: stopped; {kept}", file=sys.stderr)
        return 130
    if int(os.environ.get("RANK", "0")) == 0:
        print(_ending(recipe, best, options.out, options.refit))
    return 0


def _ending(recipe: Recipe, best: float, out: Path, refit: str | None) -> str:
    if refit:
        return f"the model is in {out / 'refit'}, with the errors of {refit}"
    if recipe.choose_by == "last":
        return f"validation MAE {best:.1f} at the end; the model is in {out / 'best'}"
    kind, form = recipe.choose_by.upper(), {"mae": ".1f", "nae": ".3f"}[recipe.choose_by]
    if not (out / "best").exists():
        return f"no validation gave a {kind}, so no model was kept; see {out / FILE}"
    return f"best validation {kind} {best:{form}}; the model is in {out / 'best'}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.fit", description=__doc__)
    add: Callable[..., Any] = parser.add_argument
    add("recipe", type=named_path, help="a TOML file, such as train/recipes/partA_cpu.toml")
    add("--data", type=named_path, required=True, help="file made by train.prepare")
    add("--out", type=named_path, required=True, help="folder for this run")
    add("--vgg", default="torchvision", help="'torchvision', or a safetensors file with VGG-16")
    add("--init", metavar="MODEL", help="folder or Hub id to start from, in place of VGG-16")
    add(
        "--refit",
        metavar="MODEL",
        help="train on the validation images too; MODEL, which a run of the same recipe left, "
        "gives its errors",
    )
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--steps", type=int, help="in place of the recipe's")
    add("--compile", action="store_true", help="torch.compile the network (needs its compilers)")
    last: dict[str, Any] = {"nargs": "?", "const": "", "metavar": "CHECKPOINT"}
    add("--resume", **last, help="go on from OUT/last.pt or another")
    return parser


if __name__ == "__main__":
    sys.exit(main())
