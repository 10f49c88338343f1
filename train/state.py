"""The state of a run: its start, its checkpoints, and the model that it produces."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from csrnet_hub.devices import out_of_memory
from csrnet_hub.hub import one_line
from csrnet_hub.model import CSRNet, load_vgg16_frontend
from csrnet_hub.model_files import CONFIG_NAME, end_unfinished, printable
from csrnet_hub.named import quoted

from .data import Example, digest, fingerprint
from .loss import RECORD
from .recipe import Recipe

PAUSES = [0.5] * 10  # seconds: virus scanners and sync clients soon release a file
FREE_TO_CHANGE = {"name", "steps", "validate_every"}  # entries that a resumed run may change
OTHER_START = (
    "the model of --refit started from other weights: give the --init or --vgg that it was trained "
    "with"
)


class TrainingError(RuntimeError):
    """A run that cannot start or continue; says why and where the last good state is."""


@dataclass
class State:
    """Everything that a run needs to continue as if it had never stopped.

    It holds no random state: each crop's random numbers follow from the recipe's seed and its
    index.
    """

    model: CSRNet
    average: CSRNet  # exponential moving average of the weights, validated and kept
    optimiser: torch.optim.Optimizer
    origin: dict[str, Any]  # source of the initial weights, for the training record
    loss: str  # every loss the run was trained with, in case the code changed midway
    step: int = 0
    seconds: float = 0.0  # from the first step to the last
    best: float = math.inf
    photographs: set[str] = field(default_factory=set)  # digests of all that were trained on
    data: str = ""  # fingerprint of the photographs
    ended: bool = False  # resumed from the end of a run


def new_state(recipe: Recipe, vgg: str, device: torch.device) -> State:
    """A new run: front end from VGG-16, the rest random by the recipe's seed.

    The paper's N(0, 0.01) halves the signal in each layer of the back end. He initialisation keeps
    its scale, so that rates low enough for a steady end train from the start.
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
    """Load a model that a run of this recipe on these photographs, without its validation images,
    produced and measured; from a folder or Hub repository.

    Raises:
        TrainingError: if the model is from another recipe or other photographs, or has no
            validation figures of its own.
    """
    model = CSRNet.from_pretrained(source)
    record = model.training_record or {}
    if "refit" in record or "step" not in record or "validation" not in (model.metrics or {}):
        raise TrainingError(f"{source} has no validation figures of its own")
    now = {**recipe.to_dict(), "loss": RECORD[recipe.loss]}
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
    """The entries, except the free ones, in which a recorded recipe differs from this one."""
    return [key for key, value in now.items() if key not in free and value != before.get(key)]


def lend_figures(state: State, judged: CSRNet) -> None:
    """Copy a model's errors and interval to a run that cannot measure its own.

    Raises:
        TrainingError: if the two runs did not start from the same weights.
    """
    record = judged.training_record or {}
    if any(state.origin.get(key) != record.get(key) for key in ("frontend", "init")):
        raise TrainingError(OTHER_START)
    state.average.metrics = {"validation": (judged.metrics or {})["validation"]}
    state.average.interval = judged.interval
    state.average.min_side = judged.min_side  # as it was measured
    state.average.working_pixels = judged.working_pixels
    state.average.largest_sigma = judged.largest_sigma
    if state.step and "refit" not in state.origin:  # its checkpoint had not seen them
        state.origin["refit_from"] = state.step
    state.origin["refit"] = record["step"]
    # what chose the measured step; the refit's own entry chose nothing
    state.origin["choose_by"] = record.get("choose_by", "mae")
    if "seen" in record:  # the figures are too good, and the card says so
        state.origin["seen"] = record["seen"]


def begin(recipe: Recipe, model: CSRNet, origin: dict[str, Any], device: torch.device) -> State:
    """A run at step 0 on a device: a model, its average and its optimiser."""
    model.train().to(device)
    model.frontend[: recipe.frozen_layers].requires_grad_(False)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimiser = _optimiser(recipe, model, device)
    return State(model, average, optimiser, origin, RECORD[recipe.loss])


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
    # second beta: runs are short, so the gradients' scale must be estimated quickly
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=decay, fused=fused)


def save_checkpoint(state: State, recipe: Recipe, path: Path) -> None:
    """Write, flush and rename, so that a file of that name is always complete."""
    content = {
        "recipe": recipe.to_dict(),
        "model": state.model.state_dict(),
        "average": state.average.state_dict(),
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
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
        partial.unlink(missing_ok=True)
        raise OSError(
            f"{path} could not be written ({one_line(error)}): is the disk full?"
        ) from error
    _patiently(lambda: partial.replace(path))


def load_checkpoint(path: Path, recipe: Recipe, device: torch.device) -> State:
    """Load a run's state, to continue under the same recipe (its length may differ).

    Raises:
        TrainingError: if the checkpoint is missing, damaged, or from another recipe.
        OSError: if it cannot be read.
    """
    if not path.is_file():
        raise TrainingError(f"there is no checkpoint {path} to resume from")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        before, origin, loss = saved["recipe"], saved["origin"], saved["loss"]
        step, seconds, best, data = (saved[name] for name in ("step", "seconds", "best", "data"))
        photographs = set(saved["photographs"].split())
        weights = [saved[name] for name in ("model", "average", "optimiser")]
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds on damaged or foreign files
        if out_of_memory(error):
            raise
        raise TrainingError(f"{path} is damaged, or not a checkpoint of train.fit") from error
    if unknown := sorted(before.keys() - recipe.to_dict().keys()):
        raise TrainingError(f"the recipe in {path} has unknown entries: {', '.join(unknown)}")
    if changed := other_entries(recipe.to_dict(), before, FREE_TO_CHANGE):
        raise TrainingError(f"{path} is from a run that differs in {', '.join(changed)}")
    blank = CSRNet(recipe.variant, density_scale=recipe.density_scale)
    state = begin(recipe, blank, origin, device)
    parts: tuple[Any, ...] = (state.model, state.average, state.optimiser)
    for part, own in zip(parts, weights):
        part.load_state_dict(own)
    state.step, state.seconds, state.best = step, seconds, best
    state.data, state.photographs = data, photographs
    state.ended = step >= before["steps"]
    if not loss.endswith(state.loss):
        state.loss = f"{loss} up to step {state.step}; then {state.loss}"
    else:
        state.loss = loss
    return state


def go_on(
    path: Path, recipe: Recipe, device: torch.device, examples: Sequence[Example], out: Path
) -> State:
    """Load a checkpoint, to continue in a folder ``out`` on the photographs the run began with.

    The lowest validation error is reset if the model that achieved it is not in the folder.

    Raises:
        TrainingError: as `load_checkpoint`, and if the run used other photographs, or more steps in
            its own folder would replace its final model by one of higher rates.
    """
    state = load_checkpoint(path, recipe, device)
    if state.data != fingerprint(examples):
        raise TrainingError(
            f"{path} is from a run on different photographs, or the same ones prepared "
            "differently. Resuming could validate on images it was trained on: use the original "
            "prepared file"
        )
    replaced = recipe.choose_by == "last" or "refit" in state.origin
    if state.ended and recipe.steps > state.step and replaced and path.parent.samefile(out):
        raise TrainingError(f"the run in {out} has ended, and its model is kept; {longer(path)}")
    if not (out / "best" / CONFIG_NAME).exists():
        state.best = math.inf
    return state


def longer(checkpoint: Path) -> str:
    """How to train longer than the run that a checkpoint ended."""
    high = checkpoint.with_name("before_cooldown.pt")
    start = quoted(high if high.exists() else checkpoint)
    return f"to train longer: --steps N --resume {start} --out ANOTHER"


def save_model(state: State, recipe: Recipe, out: Path) -> None:
    """Save the averaged weights as a float16 model folder with their training record, first
    repairing what a run killed while saving left there.

    Raises:
        OSError: if the folder cannot be written; its content is unchanged.
    """
    model = copy.deepcopy(state.average).half()
    record = {**recipe.to_dict(), "step": state.step, "loss": state.loss, **state.origin}
    record["seconds"] = round(state.seconds)
    record["photographs"] = " ".join(sorted(state.photographs))
    model.training_record = record

    def save() -> None:
        end_unfinished(out)
        model.save_pretrained(out)

    _patiently(save)


def _patiently(write: Callable[[], object]) -> None:
    for pause in PAUSES:
        try:
            write()
            return
        except PermissionError:  # Windows, while another program has one of its files open
            time.sleep(pause)
    write()
