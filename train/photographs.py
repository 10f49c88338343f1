"""What a run finds out of its photographs before the first step."""

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


def check_pictures(recipe: Recipe, examples: Sequence[Example]) -> None:
    """Refuse names in a recipe that nothing has, which would be ignored without a word, and
    photographs that are too small for its crops.

    Raises:
        TrainingError: with what to edit in the recipe.
    """
    if strangers := set(recipe.train_only) - {example.name for example in examples}:
        raise TrainingError(
            f"train_only names images that are not there: {', '.join(sorted(strangers))}: edit "
            "train_only in the recipe"
        )
    parts = {example.part for example in examples} - {""}
    for entry in ("repeat", "part_loss"):
        if strangers := set(getattr(recipe, entry)) - parts:
            there = ", ".join(sorted(parts)) or "no parts, being made of one folder"
            raise TrainingError(
                f"{entry} names parts that are not there: {', '.join(sorted(strangers))}; the file "
                f"has {there}: edit {entry} in the recipe"
            )
    small = [example.name for example in examples if min(example.pixels.shape[:2]) < 2 * STRIDE]
    if recipe.crops == "quarters" and small:
        raise TrainingError(
            f"quarters want pictures of {2 * STRIDE} x {2 * STRIDE} pixels or more, unlike "
            f"{', '.join(small)}: exclude them in the recipe"
        )


def tell_of_scenes(train: Sequence[Example], held_out: Sequence[Example], images: int) -> None:
    """Say what is trained on where whole scenes are held out: it may be far less than expected."""
    if (left := images - len(train) - len(held_out)) and place()[0] == 0:
        print(
            f"fit: {len(held_out)} images are held out, and {left} that show the same scenes; "
            f"{len(train)} are trained on. A smaller validation in the recipe leaves more.",
            file=sys.stderr,
        )


def warn_of_twins(train: Sequence[Example], held_out: Sequence[Example]) -> None:
    """Say so where one picture is trained on and validated on, under two names."""
    names = {digest(example): example.name for example in train}
    twins = [(one.name, names[digest(one)]) for one in held_out if digest(one) in names]
    if twins:
        also = f", and {len(twins) - 1} more such pairs" if len(twins) > 1 else ""
        warnings.warn(
            "{} is validated on and is the same picture as {}, which is trained on{}: errors, and "
            "the interval, come out too good; name one of them in exclude in the recipe".format(
                *twins[0], also
            ),
            stacklevel=3,
        )


def warn_of_seen(model: str | None, known: Seen, held_out: Sequence[Example]) -> int:
    """Say so where the model that a run starts from was trained on validation images, which may
    have been prepared otherwise; how many it was."""
    held = [(*one.pixels.shape[:2], one.heads, one.name) for one in held_out]
    if names := [image[-1] for image in held if known.has(*image)]:
        warnings.warn(
            f"{model} was trained on {len(names)} of the {len(held)} validation images, such as "
            f"{names[0]}: errors on them, and the interval, come out too good",
            stacklevel=3,
        )
    return len(names)


def set_sizes(model: CSRNet, recipe: Recipe, train: Sequence[Example]) -> None:
    """Tell the model at what size to count a picture: at those of its training."""
    resized = recipe.crops == "random"
    model.min_side = recipe.crop if resized else 0
    model.working_pixels = _working_pixels(train)
    # in the maps of other losses heads are not as wide as kernels
    drawn = resized and {recipe.loss, *recipe.part_loss.values()} <= {*DRAWN}
    widest = max((float(widths(one, recipe).max(initial=0)) for one in train), default=0.0)
    model.largest_sigma = min(max(widest, SMALLEST), LARGEST) if drawn and widest else 0.0


def _working_pixels(train: Sequence[Example]) -> int:
    """What counting should shrink a larger photograph to: as these were, or the largest's."""
    if any(one.shrunk_to for one in train):
        return max(one.shrunk_to for one in train)
    return max(MEGAPIXEL, *(math.prod(one.pixels.shape[:2]) for one in train))
