"""Train a CSRNet: python -m train.fit RECIPE.toml --data PREPARED.h5 --out RUN_FOLDER.

On several GPUs: torchrun --nproc-per-node 4 -m train.fit, and the same options.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from csrnet_hub.cli import exit_code
from csrnet_hub.devices import name_device
from csrnet_hub.memory import keep_memory
from csrnet_hub.model import CSRNet
from csrnet_hub.named import named_path
from csrnet_hub.resources import resource

from .crops import Crops
from .data import Example, digest, fingerprint, load_prepared, split
from .log import FILE, Log
from .loop import loop
from .photographs import (
    check_pictures,
    set_sizes,
    tell_of_rates,
    tell_of_scenes,
    warn_of_seen,
    warn_of_twins,
)
from .processes import alone, leave, own_device, place
from .recipe import Recipe, read_recipe
from .record import of_training, of_validation
from .seen import Seen
from .state import (
    OTHER_START,
    State,
    TrainingError,
    go_on,
    lend_figures,
    longer,
    new_state,
    same_recipe,
    start_from,
)
from .step import Captured

TOO_LARGE = (
    "lower batch or crop, or prepare fewer or smaller photographs. Each takes three bytes per "
    "pixel in memory and again on the training device (twice with worse), even if that is the CPU"
)
LEFT = ("last.pt", "best", "refit", FILE)  # what a run, begun or finished, leaves in its folder


def fit(
    recipe: Recipe,
    examples: Sequence[Example],
    out: Path,
    vgg: str,
    device: torch.device,
    resume: Path | None = None,
    init: str | None = None,
    compiled: bool = False,
    refit: str | None = None,
) -> float:
    """Train by a recipe; writes checkpoints, log, curves and the best model to ``out``.

    Args:
        resume: a checkpoint of a run of the same recipe on the same photographs. The lowest error
            so far still counts only if the model that achieved it is in ``out/best``.
        refit: folder or Hub id of a model from a run of the same recipe. Its validation images are
            trained on too; the final weights go to ``out/refit``, with the errors and the interval
            of that model, which had not seen those images.

    Returns:
        The validation error of the kept model, by the recipe's ``choose_by`` (MAE where it keeps
        the last); infinite if none was kept.

    Raises:
        TrainingError, DatasetError, ModelError: saying what is wrong and what to do.
    """
    torch.set_flush_denormal(True)  # denormal gradients are slow on CPUs
    if device.type == "cpu":
        keep_memory()
    if resource("model_card.md") is None:  # otherwise found out hours later
        raise TrainingError("model_card.md is missing from this installation: install it again")
    rank, world = place()
    if recipe.batch % world:
        raise TrainingError(f"a batch of {recipe.batch} cannot be shared by {world} processes")
    check_pictures(recipe, examples)
    with alone(out) if rank == 0 else nullcontext():
        state, train, held_out = _begin(recipe, examples, out, vgg, device, resume, init, refit)
        net = _network(state.model, recipe, device, compiled)
        crops = Crops(train, recipe, device)
        with Log(out, state.step, recipe.steps) if rank == 0 else nullcontext() as log:
            loop(state, recipe, crops, net, held_out, out, log)
    return state.best


def _begin(
    recipe: Recipe,
    examples: Sequence[Example],
    out: Path,
    vgg: str,
    device: torch.device,
    resume: Path | None,
    init: str | None,
    refit: str | None,
) -> tuple[State, list[Example], list[Example]]:
    """A run's initial or resumed state, and its training and validation examples."""
    train, held_out = split(examples, recipe.validation, recipe.seed, recipe.train_only)
    judged, measured = None, of_validation(train, held_out)
    if refit:
        judged = same_recipe(recipe, refit, train)
        if not resume and bool(init) != ("init" in (judged.training_record or {})):
            raise TrainingError(OTHER_START)  # before VGG-16 is downloaded
        train, held_out = list(examples), []
    elif recipe.choose_by == "nae" and not any(example.count for example in held_out):
        raise TrainingError('no validation image has people: set choose_by = "mae" in the recipe')
    warn_of_twins(train, held_out)
    tell_of_scenes(train, held_out, len(examples))
    tell_of_rates(recipe)
    if resume:
        state = go_on(resume, recipe, device, examples, out)
    else:
        state = start_from(recipe, init, device) if init else new_state(recipe, vgg, device)
        state.data = fingerprint(examples)
        known = Seen(state.photographs, state.average.working_pixels)  # from --init's model
        if number := warn_of_seen(init, known, held_out):
            state.origin["seen"] = number
    state.photographs |= {digest(example) for example in train}
    state.origin |= of_training(recipe, train, state.origin.get("init")) | measured
    state.origin["device"] = name_device(device, place()[1])
    set_sizes(state.average, recipe, train)
    if judged:
        lend_figures(state, judged)
    elif "refit" in state.origin:
        raise TrainingError("this checkpoint is from a --refit run: resume it with --refit MODEL")
    if resume and state.step >= recipe.steps:
        raise TrainingError(f"all {recipe.steps} steps are done; {longer(resume)}")
    return state, train, held_out


def _network(
    model: CSRNet, recipe: Recipe, device: torch.device, compiled: bool
) -> Callable[[Tensor], Tensor]:
    """The model as training steps run it: compiled, captured or distributed."""
    several = place()[1] > 1
    net: Callable[[Tensor], Tensor] = model
    if several:
        net = DistributedDataParallel(model, [device] if device.type == "cuda" else None)
    if compiled:
        net = torch.compile(net)
    elif device.type == "cuda" and not several and recipe.crops == "random":  # all one shape
        net = Captured(model)
    return net


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of ``python -m train.fit``."""
    parser = _parser()
    options = parser.parse_args(argv)
    last = options.out / "last.pt"
    resume = None if options.resume is None else Path(options.resume or last)
    goes_on = resume is not None and resume.resolve() == last.resolve()
    if not goes_on and any((options.out / name).exists() for name in LEFT):
        how = "continue it with --resume, " if last.exists() else ""
        parser.error(f"{options.out} holds a run; {how}give another --out, or remove it first")
    if resume and options.init:
        parser.error("--resume already supplies the weights; give --resume or --init, not both")

    def kept() -> str:
        return f"--resume continues from {last}" if last.exists() else "no checkpoint was kept yet"

    work = partial(_fit, options, resume)
    return exit_code("fit", work, errors=(TrainingError,), memory=TOO_LARGE, stopped=kept)


def _fit(options: argparse.Namespace, resume: Path | None) -> int:
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
    if int(os.environ.get("RANK", "0")) == 0:
        print(_ending(recipe, best, options.out, options.refit))
    return 0


def _ending(recipe: Recipe, best: float, out: Path, refit: str | None) -> str:
    if refit:
        return f"the model is in {out / 'refit'}; its errors are those of {refit}"
    if recipe.choose_by == "last":
        return f"validation MAE {best:.1f} at the end; the model is in {out / 'best'}"
    kind, form = recipe.choose_by.upper(), {"mae": ".1f", "nae": ".3f"}[recipe.choose_by]
    if not (out / "best").exists():
        return f"the validation {kind} was never a number, so no model was kept; see {out / FILE}"
    return f"best validation {kind} {best:{form}}; the model is in {out / 'best'}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.fit", description=__doc__)
    add_options(parser, out="folder for this run")
    add: Callable[..., Any] = parser.add_argument
    add(
        "--refit",
        metavar="MODEL",
        help="train on the validation images too, and take the errors from MODEL, the result of a "
        "run of the same recipe without them",
    )
    last: dict[str, Any] = {"nargs": "?", "const": "", "metavar": "CHECKPOINT"}
    add("--resume", **last, help="continue from OUT/last.pt, or from another checkpoint")
    return parser


def add_options(parser: argparse.ArgumentParser, out: str) -> None:
    """Add the options for one or several runs to a command line.

    Args:
        out: help text of --out.
    """
    add: Callable[..., Any] = parser.add_argument
    add("recipe", type=named_path, help="a TOML file, such as train/recipes/partA_cpu.toml")
    add("--data", type=named_path, required=True, help="file made by train.prepare")
    add("--out", type=named_path, required=True, help=out)
    add("--vgg", default="torchvision", help="'torchvision', or a safetensors file with VGG-16")
    add("--init", metavar="MODEL", help="folder or Hub id to start from instead of VGG-16")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--steps", type=int, help="number of steps (overrides the recipe)")
    add("--compile", action="store_true", help="torch.compile the network (needs a compiler)")


if __name__ == "__main__":
    leave(main())
