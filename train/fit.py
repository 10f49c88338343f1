"""Train a CSRNet: python -m train.fit RECIPE.toml --data PREPARED.h5 --out RUN_FOLDER."""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from csrnet_hub.counting import CrowdCounter, pick_device
from csrnet_hub.datasets import DatasetError
from csrnet_hub.metrics import counting_errors
from csrnet_hub.model import CSRNet, ModelError, load_vgg16_frontend

from .data import Augmentation, Example, load_prepared, random_crop, split
from .loss import LOSS, pyramid_loss
from .recipe import Recipe, RecipeError, read_recipe

SAVE_EVERY = 100  # steps
FREE_TO_CHANGE = {"name", "steps", "validate_every"}  # entries that a resumed run may change


class TrainingError(RuntimeError):
    """A run that cannot start or go on; says why and where the last good state lies."""


@dataclass
class State:
    """Everything that a run needs to go on as if it had never stopped."""

    model: CSRNet
    average: CSRNet  # exponential moving average of the weights: what is validated and kept
    optimiser: torch.optim.AdamW
    frontend: str  # where the front end came from
    loss: str = LOSS  # all that the run was trained with, should the code have changed on the way
    step: int = 0
    best: float = math.inf


def new_state(recipe: Recipe, vgg: str, device: torch.device) -> State:
    """Front end from VGG-16, the rest random by the recipe's seed.

    The back end starts wider than the paper's N(0, 0.01), which halves the signal in each layer:
    at He's width it keeps its size, and rates low enough for a steady end learn from the start.
    """
    torch.manual_seed(recipe.seed)
    model = CSRNet(recipe.variant, density_scale=recipe.density_scale)
    for layer in model.backend:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    load_vgg16_frontend(model, vgg)
    name = "torchvision's IMAGENET1K_V1" if vgg == "torchvision" else Path(vgg).name
    return _state(recipe, model, name, device)


def _state(recipe: Recipe, model: CSRNet, frontend: str, device: torch.device) -> State:
    model.frontend[: recipe.frozen_layers].requires_grad_(False)
    # Without fast bf16, oneDNN's weight gradients are quicker on planar tensors; a frozen front
    # end has no gradients and is quickest with channels last.
    fast = _precision(device) == torch.bfloat16
    model.to(device)
    last: Any = {"memory_format": torch.channels_last}
    (model if fast else model.frontend[: recipe.frozen_layers]).to(**last)
    front = [parameter for parameter in model.frontend.parameters() if parameter.requires_grad]
    back = [*model.backend.parameters(), *model.output_layer.parameters()]
    groups = [
        {"params": front, "lr": recipe.lr_frontend},
        {"params": back, "lr": recipe.lr_backend},
    ]
    optimiser = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        betas=(0.9, 0.99),  # a run is short: the scale of the gradients must be found soon
        weight_decay=recipe.weight_decay,
    )
    for group in optimiser.param_groups:
        group["full_lr"] = group["lr"]
    return State(model, copy.deepcopy(model).requires_grad_(False), optimiser, frontend)


def _precision(device: torch.device) -> torch.dtype:
    # bfloat16 without the instructions for it is emulated, many times slower than float32.
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return torch.bfloat16 if native else torch.float32


def rate(recipe: Recipe, step: int) -> float:
    """Share of the full learning rate: linear warm-up, level, linear fall to zero at the end."""
    warm = (step + 1) / max(recipe.warmup, 1)
    left = (recipe.steps - step) / max(recipe.cooldown * recipe.steps, 1)
    return max(0.0, min(1.0, warm, left))


def batch_at(
    step: int, recipe: Recipe, examples: Sequence[Example], model: CSRNet
) -> tuple[Tensor, Tensor]:
    """The batch of a step, a function of the recipe's seed and the step alone.

    Each pass over the photographs is a shuffle of its own; each crop has its own generator.

    Returns:
        (B, 3, crop, crop) normalised pictures and (B, 1, crop / 8, crop / 8) heads per cell.
    """
    how = Augmentation(
        recipe.crop,
        (recipe.scale[0], recipe.scale[1]),
        (recipe.sigma[0], recipe.sigma[1]),
        recipe.grey,
        recipe.light,
    )
    crops = []
    for index in range(step * recipe.batch, (step + 1) * recipe.batch):
        turn, place = divmod(index, len(examples))
        order = np.random.default_rng((recipe.seed, 0, turn)).permutation(len(examples))
        rng = np.random.default_rng((recipe.seed, 1, index))
        crops.append(random_crop(examples[order[place]], rng, how))
    pixels = torch.stack([crop for crop, _ in crops])  # (B, 3, crop, crop)
    mean = torch.tensor(model.mean).view(1, 3, 1, 1) * 255
    std = torch.tensor(model.std).view(1, 3, 1, 1) * 255
    return (pixels - mean) / std, torch.stack([target for _, target in crops])


def train_step(state: State, recipe: Recipe, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """One step of the optimiser; returns the loss, and that of an empty map beside it."""
    model, device = state.model, next(state.model.parameters()).device
    pixels, target = batch_at(state.step, recipe, examples, model)
    for group in state.optimiser.param_groups:
        group["lr"] = group["full_lr"] * rate(recipe, state.step)
    x = pixels.to(device).contiguous(memory_format=torch.channels_last)
    dtype = _precision(device)
    with torch.autocast(device.type, dtype) if dtype != torch.float32 else nullcontext():
        with torch.no_grad():
            x = model.frontend[: recipe.frozen_layers](x)
        x = x if dtype != torch.float32 else x.contiguous()
        x = model.output_layer(model.backend(model.frontend[recipe.frozen_layers :](x)))
    loss = pyramid_loss(x.float() / model.density_scale, target.to(device))
    if not torch.isfinite(loss):
        raise TrainingError(f"the loss is not finite at step {state.step}; lower the rates")
    state.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimiser.step()
    state.step += 1
    keep = min(recipe.ema, (1 + state.step) / (10 + state.step))  # an early average is short
    with torch.no_grad():
        for average, own in zip(state.average.parameters(), model.parameters()):
            if own.requires_grad:
                average.lerp_(own, 1 - keep)
    return loss.detach(), pyramid_loss(torch.zeros_like(target), target)


def validate(model: CSRNet, examples: Sequence[Example], device: torch.device) -> dict[str, Any]:
    """Errors of the counts against the numbers of annotated points, as a user would count."""
    counter = CrowdCounter(copy.deepcopy(model), device)
    counts = [
        counter.count(example.pixels).count
        for example in tqdm(examples, "validate", unit="image", leave=False)
    ]
    return counting_errors(counts, [example.count for example in examples])


def save_checkpoint(state: State, recipe: Recipe, path: Path) -> None:
    """Write, flush and rename, so that a file of that name is always whole."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save(
            {
                "recipe": recipe.to_dict(),
                "model": state.model.state_dict(),
                "average": state.average.state_dict(),
                "optimiser": state.optimiser.state_dict(),
                "frontend": state.frontend,
                "loss": state.loss,
                "step": state.step,
                "best": state.best,
            },
            file,
        )
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(path: Path, recipe: Recipe, device: torch.device) -> State:
    """The state of a run, to go on under the same recipe (its length may differ).

    Raises:
        TrainingError: if there is no such checkpoint, it is damaged, or another recipe made it.
    """
    if not path.is_file():
        raise TrainingError(f"there is no checkpoint {path} to go on from")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        before, frontend, loss = saved["recipe"], saved["frontend"], saved["loss"]
    except Exception as error:  # torch raises many kinds on damaged or foreign files
        raise TrainingError(f"{path} is no checkpoint of train.fit, or a damaged one") from error
    now = recipe.to_dict()
    changed = [key for key in now if key not in FREE_TO_CHANGE and now[key] != before.get(key)]
    if changed:
        raise TrainingError(f"{path} was made with another {', '.join(changed)}")
    blank = CSRNet(recipe.variant, density_scale=recipe.density_scale)
    state = _state(recipe, blank, frontend, device)
    state.model.load_state_dict(saved["model"])
    state.average.load_state_dict(saved["average"])
    state.optimiser.load_state_dict(saved["optimiser"])
    state.step, state.best = saved["step"], saved["best"]
    state.loss = loss if loss.endswith(LOSS) else f"{loss} up to step {state.step}; then {LOSS}"
    return state


def save_model(state: State, recipe: Recipe, errors: dict[str, Any], out: Path) -> None:
    """The averaged weights as a model folder in float16, with their training record."""
    model = copy.deepcopy(state.average).half()
    where = {"step": state.step, "frontend": state.frontend, "loss": state.loss}
    model.training_record = {**recipe.to_dict(), **where}
    model.metrics = {"validation": errors}
    # Whole before it takes the name: save_pretrained keeps an old card, and may be interrupted.
    partial, old = out.with_name(out.name + ".partial"), out.with_name(out.name + ".old")
    for folder in (partial, old):
        shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(partial)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def fit(
    recipe: Recipe,
    examples: Sequence[Example],
    out: Path,
    vgg: str = "torchvision",
    device: torch.device | None = None,
    resume: Path | None = None,
) -> float:
    """Train by a recipe; checkpoints, log and the best model land in ``out``.

    Returns:
        The best validation MAE.

    Raises:
        TrainingError, DatasetError, ModelError: with what is wrong and what to do.
    """
    device = device or pick_device("auto")
    torch.set_flush_denormal(True)  # denormal gradients are slow on CPUs
    train, held_out = split(examples, recipe.validation, recipe.seed, recipe.train_only)
    if strangers := sorted(set(recipe.train_only) - {example.name for example in examples}):
        raise TrainingError(f"train_only names images that are not there: {', '.join(strangers)}")
    state = load_checkpoint(resume, recipe, device) if resume else new_state(recipe, vgg, device)
    if state.step >= recipe.steps:
        raise TrainingError(f"step {state.step} of {recipe.steps} is done; give more with --steps")
    out.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=recipe.steps, initial=state.step, desc="train", unit="step")
    start, losses = time.time(), []
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:

        def note(**entry: Any) -> None:
            print(json.dumps({"step": state.step, **entry}), file=log, flush=True)

        while state.step < recipe.steps:
            if rate(recipe, state.step + 1) < 1 <= rate(recipe, state.step):
                save_checkpoint(state, recipe, out / "before_cooldown.pt")  # to train longer from
            losses.append(train_step(state, recipe, train))
            bar.update()
            if state.step % 20 == 0:
                loss, empty = (float(torch.stack(column).mean()) for column in zip(*losses))
                bar.set_postfix(loss=f"{loss:.1f}", of_empty=f"{loss / max(empty, 1e-9):.2f}")
                seconds = time.time() - start
                note(loss=loss, empty=empty, rate=rate(recipe, state.step), seconds=seconds)
                losses.clear()
            if state.step % recipe.validate_every == 0 or state.step == recipe.steps:
                errors = validate(state.average, held_out, device)
                note(**errors)
                bar.write(f"step {state.step}: validation {errors}")
                if errors["mae"] < state.best:
                    state.best = errors["mae"]
                    save_model(state, recipe, errors, out / "best")
            if state.step % SAVE_EVERY == 0 or state.step == recipe.steps:
                save_checkpoint(state, recipe, out / "last.pt")
    bar.close()
    return state.best


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of ``python -m train.fit``."""
    parser = argparse.ArgumentParser(prog="python -m train.fit", description=__doc__)
    parser.add_argument(
        "recipe", type=Path, help="a TOML file, such as train/recipes/partA_cpu.toml"
    )
    parser.add_argument("--data", type=Path, required=True, help="file made by train.prepare")
    parser.add_argument("--out", type=Path, required=True, help="folder for this run")
    parser.add_argument(
        "--vgg", default="torchvision", help="'torchvision', or a safetensors file with VGG-16"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--steps", type=int, help="in place of the recipe's")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="CHECKPOINT",
        help="go on from OUT/last.pt or another",
    )
    options = parser.parse_args(argv)
    last = options.out / "last.pt"
    resume = None if options.resume is None else Path(options.resume or last)
    if last.exists() and (resume is None or resume.resolve() != last.resolve()):
        parser.error(f"{options.out} holds a run; go on with --resume, or give another --out")
    try:
        recipe = read_recipe(options.recipe, steps=options.steps)
        examples = load_prepared(options.data, recipe.exclude)
        best = fit(recipe, examples, options.out, options.vgg, pick_device(options.device), resume)
    except (RecipeError, DatasetError, ModelError, TrainingError, ValueError, OSError) as error:
        print(f"fit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"fit: stopped; --resume goes on from the last checkpoint in {options.out}")
        return 130
    print(f"best validation MAE {best:.1f}; the model is in {options.out / 'best'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
