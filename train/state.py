"""The state of a run: its beginning, its checkpoints, and the model that it leaves."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from csrnet_hub.devices import out_of_memory
from csrnet_hub.hub import one_line
from csrnet_hub.model import CSRNet, load_vgg16_frontend
from csrnet_hub.model_files import CONFIG_NAME, end_unfinished, printable

from .data import Example, digest, fingerprint
from .loss import name_losses
from .recipe import Recipe

PAUSES = [0.5] * 10  # seconds: a virus scanner or a synchroniser is soon done with a file
FREE_TO_CHANGE = {"name", "steps", "validate_every"}  # entries that a resumed run may change
RETIRED = {"border": 0}  # entries of older recipes, with the value at which a run is as now


class TrainingError(RuntimeError):
    """A run that cannot start or go on; says why and where the last good state lies."""


@dataclass
class State:
    """Everything that a run needs to go on as if it had never stopped.

    Random numbers are no part of it: each crop has its own, by the recipe's seed and its number.
    """

    model: CSRNet
    average: CSRNet  # exponential moving average of the weights: what is validated and kept
    optimiser: torch.optim.Optimizer
    origin: dict[str, Any]  # what the first weights were, for the training record
    loss: str  # all that the run was trained with, should the code have changed on the way
    step: int = 0
    seconds: float = 0.0  # from the first step to the last
    best: float = math.inf
    photographs: set[str] = field(default_factory=set)  # digests of all that were trained on
    data: str = ""  # fingerprint of the photographs


def new_state(recipe: Recipe, vgg: str, device: torch.device) -> State:
    """Front end from VGG-16, the rest random by the recipe's seed.

    The paper's N(0, 0.01) halves the signal in each layer of the back end; at He's width it keeps
    its size, and rates low enough for a steady end learn from the start.
    """
    torch.manual_seed(recipe.seed)
    model = CSRNet(recipe.variant, density_scale=recipe.density_scale)
    if recipe.backend_init == "he":
        for layer in model.backend:
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    load_vgg16_frontend(model, vgg)
    name = "torchvision's IMAGENET1K_V1" if vgg == "torchvision" else printable(Path(vgg).name)
    return begin(recipe, model, {"frontend": name}, device)


def start_from(recipe: Recipe, source: str, device: torch.device) -> State:
    """A new run from the weights of a model folder or Hub repository (fine-tuning)."""
    model = CSRNet.from_pretrained(source)
    for entry in ("variant", "density_scale"):
        own, asked = getattr(model, entry), getattr(recipe, entry)
        if own != asked:
            raise TrainingError(
                f"{source} has {entry} {own}, not the {asked} of the recipe: change the recipe"
            )
    record = dict(model.training_record or {})
    photographs = record.pop("photographs", "")
    model.training_record = model.metrics = model.interval = None  # they are not the new run's
    name = printable(Path(source).resolve().name) if Path(source).is_dir() else source
    state = begin(recipe, model, {"init": {"model": name, **record}}, device)
    state.photographs = set(str(photographs).split())
    return state


def same_recipe(recipe: Recipe, source: str, train: Iterable[Example]) -> CSRNet:
    """The model of a folder or Hub repository that a run of this recipe on these photographs, its
    validation images left out, measured.

    Raises:
        TrainingError: if another recipe or other photographs made it, or it has no validation
            figures of its own.
    """
    model = CSRNet.from_pretrained(source)
    record = model.training_record or {}
    if "refit" in record or "step" not in record or "validation" not in (model.metrics or {}):
        raise TrainingError(f"{source} has no validation figures of its own")
    now = {**recipe.to_dict(), "loss": name_losses(recipe)}
    # a refit measures nothing and chooses nothing
    if other := other_entries(now, record, {"validate_every", "choose_by"}):
        raise TrainingError(f"{source} is from a run that differs in {', '.join(other)}")
    known = set(str(record.get("photographs", "")).split())
    if known and not {digest(example) for example in train} <= known:
        raise TrainingError(
            f"{source} was not trained on the photographs of --data, so its errors are not those "
            "of this run"
        )
    return model


def other_entries(
    now: Mapping[str, Any], before: Mapping[str, Any], free: Collection[str]
) -> list[str]:
    """The entries of a recipe in which a recorded one differs from it, but for the free ones."""
    return [
        key
        for key, value in {**now, **RETIRED}.items()
        if key not in free and value != before.get(key, RETIRED.get(key))
    ]


def lend_figures(state: State, judged: CSRNet) -> None:
    """Give the errors and the interval of a model to those of a run that cannot measure its own.

    Raises:
        TrainingError: if the two runs did not begin with the same weights.
    """
    record = judged.training_record or {}
    if any(state.origin.get(key) != record.get(key) for key in ("frontend", "init")):
        raise TrainingError(
            "the model of --refit started from other weights: give the --init or --vgg that it was "
            "trained with"
        )
    state.average.metrics = {"validation": (judged.metrics or {})["validation"]}
    state.average.interval = judged.interval
    state.average.min_side = judged.min_side  # as it was measured
    state.average.working_pixels = judged.working_pixels
    state.average.largest_sigma = judged.largest_sigma
    if state.step and "refit" not in state.origin:  # what it goes on from had not seen them
        state.origin["refit_from"] = state.step
    state.origin["refit"] = record["step"]
    # what chose the step that was measured, in place of the refit's own entry, which chose nothing
    state.origin["choose_by"] = record.get("choose_by", "mae")
    if "seen" in record:  # they are too good, and its card says so
        state.origin["seen"] = record["seen"]


def begin(recipe: Recipe, model: CSRNet, origin: dict[str, Any], device: torch.device) -> State:
    """A run at step 0 with a model's weights, its average and its optimiser on a device."""
    model.train().to(device)
    model.frontend[: recipe.frozen_layers].requires_grad_(False)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimiser = _optimiser(recipe, model, device)
    return State(model, average, optimiser, origin, name_losses(recipe))


def _optimiser(recipe: Recipe, model: CSRNet, device: torch.device) -> torch.optim.Optimizer:
    front = [parameter for parameter in model.frontend.parameters() if parameter.requires_grad]
    back = [*model.backend.parameters(), *model.output_layer.parameters()]
    groups = [
        {"params": front, "full_lr": recipe.lr_frontend, "start": recipe.backend_first},
        {"params": back, "full_lr": recipe.lr_backend, "start": 0},
    ]
    groups = [{**group, "lr": group["full_lr"]} for group in groups if group["params"]]
    decay, fused = recipe.weight_decay, device.type == "cuda"
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=0.95, weight_decay=decay, fused=fused)
    # the second beta: a run is short, and the scale of its gradients must be found soon
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=decay, fused=fused)


def save_checkpoint(state: State, recipe: Recipe, path: Path) -> None:
    """Write, flush and rename, so that a file of that name is always whole."""
    content = {
        "recipe": recipe.to_dict(),
        "model": state.model.state_dict(),
        "average": state.average.state_dict(),
        "mean": state.model.mean,
        "std": state.model.std,
        "optimiser": state.optimiser.state_dict(),
        "origin": state.origin,
        "loss": state.loss,
        "step": state.step,
        "seconds": state.seconds,
        "best": state.best,
        "data": state.data,
        "photographs": " ".join(sorted(state.photographs)),
    }
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch's own, where the disk is full
        partial.unlink(missing_ok=True)
        raise OSError(
            f"{path} could not be written ({one_line(error)}): is the disk full?"
        ) from error
    partial.replace(path)


def load_checkpoint(path: Path, recipe: Recipe, device: torch.device) -> State:
    """The state of a run, to go on under the same recipe (its length may differ).

    Raises:
        TrainingError: if there is no such checkpoint, it is damaged, or another recipe made it.
        OSError: if it may not be read.
    """
    if not path.is_file():
        raise TrainingError(f"there is no checkpoint {path} to resume from")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        before, origin, loss = saved["recipe"], saved["origin"], saved["loss"]
        colours = {name: saved[name] for name in ("mean", "std")}
        step, seconds, best, data = (saved[name] for name in ("step", "seconds", "best", "data"))
        photographs = set(saved["photographs"].split())
        weights = [saved[name] for name in ("model", "average", "optimiser")]
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds on damaged or foreign files
        if out_of_memory(error):
            raise
        raise TrainingError(f"{path} is damaged, or not a checkpoint of train.fit") from error
    if unknown := sorted(before.keys() - recipe.to_dict().keys() - RETIRED.keys()):
        raise TrainingError(f"the recipe in {path} has unknown entries: {', '.join(unknown)}")
    if changed := other_entries(recipe.to_dict(), before, FREE_TO_CHANGE):
        raise TrainingError(f"{path} is from a run that differs in {', '.join(changed)}")
    blank = CSRNet(recipe.variant, density_scale=recipe.density_scale, **colours)
    state = begin(recipe, blank, origin, device)
    parts: tuple[Any, ...] = (state.model, state.average, state.optimiser)
    for part, own in zip(parts, weights):
        part.load_state_dict(own)
    state.step, state.seconds, state.best = step, seconds, best
    state.data, state.photographs = data, photographs
    if not loss.endswith(state.loss):
        state.loss = f"{loss} up to step {state.step}; then {state.loss}"
    else:
        state.loss = loss
    return state


def go_on(
    path: Path, recipe: Recipe, device: torch.device, examples: Sequence[Example], out: Path
) -> State:
    """The state of a checkpoint, to go on in a folder ``out`` on the photographs it was begun with.

    The least validation error is forgotten where the model that had it is not in the folder.

    Raises:
        TrainingError: as `load_checkpoint`, and if the run was on other photographs.
    """
    state = load_checkpoint(path, recipe, device)
    if state.data != fingerprint(examples):
        raise TrainingError(
            f"{path} is from a run on different photographs, or the same ones prepared "
            "differently. Resuming could validate on images it was trained on: use the original "
            "prepared file"
        )
    if not (out / "best" / CONFIG_NAME).exists():
        state.best = math.inf
    return state


def save_model(state: State, recipe: Recipe, out: Path) -> None:
    """The averaged weights as a model folder in float16, with their training record. What a run
    that was killed while it saved left there is set right first.

    Raises:
        OSError: where the folder cannot be written; it holds what it held.
    """
    model = copy.deepcopy(state.average).half()
    record = {**recipe.to_dict(), "step": state.step, "loss": state.loss, **state.origin}
    record["seconds"] = round(state.seconds)
    record["photographs"] = " ".join(sorted(state.photographs))
    model.training_record = record
    for pause in PAUSES:
        try:
            end_unfinished(out)
            model.save_pretrained(out)
            return
        except PermissionError:  # Windows, while another program has a file of it open
            time.sleep(pause)
    model.save_pretrained(out)
