"""Checks of a run's photographs before the first step."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence

from csrnet_hub.model import STRIDE, CSRNet
from csrnet_hub.model_files import LARGEST, SMALLEST
from csrnet_hub.scale import MEGAPIXEL

from .crops import widths
from .data import Example, digest
from .processes import place
from .recipe import Recipe
from .record import DRAWN
from .seen import Seen
from .state import TrainingError
from .step import rate


def check_pictures(recipe: Recipe, examples: Sequence[Example]) -> None:
    """Refuse names in a recipe that match nothing, which would be silently ignored, and photographs
    that are too small for its crops.

    Raises:
        TrainingError: saying what to edit in the recipe.
    """
    if strangers := set(recipe.train_only) - {example.name for example in examples}:
        raise TrainingError(
            f"train_only names images that do not exist: {', '.join(sorted(strangers))}; edit "
            "train_only in the recipe"
        )
    parts = {example.part for example in examples} - {""}
    if strangers := set(recipe.repeat) - parts:
        there = ", ".join(sorted(parts)) or "no parts, because it was made of one folder"
        raise TrainingError(
            f"repeat names parts that do not exist: {', '.join(sorted(strangers))}; the file has "
            f"{there}; edit repeat in the recipe"
        )
    small = [example.name for example in examples if min(example.pixels.shape[:2]) < 2 * STRIDE]
    if recipe.crops == "quarters" and small:
        raise TrainingError(
            f'crops = "quarters" needs photographs of at least {2 * STRIDE} x {2 * STRIDE} pixels; '
            f"exclude {', '.join(small)} in the recipe"
        )


def tell_of_scenes(train: Sequence[Example], held_out: Sequence[Example], images: int) -> None:
    """Report the training images where whole scenes are held out: maybe far fewer than expected."""
    if (left := images - len(train) - len(held_out)) and place()[0] == 0:
        print(
            f"fit: {len(held_out)} images are held out for validation, and {left} more because "
            f"they show the same scenes; {len(train)} are left to train on. Lower validation in "
            "the recipe to train on more.",
            file=sys.stderr,
        )


def tell_of_rates(recipe: Recipe) -> None:
    """Report a run so short that it ends, or its rates fall, before the warm-up is complete."""
    if recipe.cooldown == 1:  # whatever the run's length
        return
    if rate(recipe, max(recipe.warmup, 1) - 1) < 1 and place()[0] == 0:
        why, kept = "the run ends", ""
        if recipe.cooldown:
            falls = math.floor((1 - recipe.cooldown) * recipe.steps)
            why, kept = f"they fall from step {falls} on,", "; before_cooldown.pt is not written"
        print(
            f"fit: in {recipe.steps} steps the learning rates never reach those of the recipe, "
            f"because {why} within the {recipe.warmup} steps of warmup{kept}. Raise --steps, or "
            "lower warmup in the recipe.",
            file=sys.stderr,
        )


def warn_of_twins(train: Sequence[Example], held_out: Sequence[Example]) -> None:
    """Warn if a picture is both trained and validated on, under two names. Pictures without heads
    are identified by name alone, so they cannot be checked."""
    names = {digest(example): example.name for example in train if len(example.heads)}
    twins = [(one.name, names[digest(one)]) for one in held_out if digest(one) in names]
    if twins and place()[0] == 0:
        also = f", and {len(twins) - 1} more such pairs" if len(twins) > 1 else ""
        warnings.warn(
            "{} is held out for validation but is the same picture as {}, which is trained on{}: "
            "the errors and the interval will be too optimistic; add one of them to exclude in the "
            "recipe".format(*twins[0], also),
            stacklevel=3,
        )


def warn_of_seen(model: str | None, known: Seen, held_out: Sequence[Example]) -> int:
    """Warn if the model that a run starts from was trained on validation images, perhaps prepared
    differently; returns how many."""
    told = [
        one.name
        for one in held_out
        if known.has(one.pixels.shape[0], one.pixels.shape[1], one.heads, one.own_name)
    ]
    if told and place()[0] == 0:
        warnings.warn(
            f"{model} was trained on {len(told)} of the {len(held_out)} validation images, such as "
            f"{told[0]}: the errors and the interval will be too optimistic",
            stacklevel=3,
        )
    return len(told)


def set_sizes(model: CSRNet, recipe: Recipe, train: Sequence[Example]) -> None:
    """Set the sizes at which the model counts pictures: those of its training."""
    resized = recipe.crops == "random"
    model.min_side = recipe.crop if resized else 0
    model.working_pixels = _working_pixels(train)
    # with other losses, heads in the maps are not as wide as kernels
    drawn = resized and recipe.loss in DRAWN
    widest = max((float(widths(one, recipe).max(initial=0)) for one in train), default=0.0)
    model.largest_sigma = min(max(widest, SMALLEST), LARGEST) if drawn and widest else 0.0


def _working_pixels(train: Sequence[Example]) -> int:
    """Pixels that counting should shrink larger photographs to: as these were, or the largest's."""
    if any(one.shrunk_to for one in train):
        return max(one.shrunk_to for one in train)
    return max(MEGAPIXEL, *(math.prod(one.pixels.shape[:2]) for one in train))
