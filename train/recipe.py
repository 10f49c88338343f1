"""Training recipes: TOML files with the settings of a run."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from csrnet_hub.datasets.text import UTF16
from csrnet_hub.model import STRIDE

from .loss import LOSSES, divides

CHOICES = {
    "variant": ("A", "B", "C", "D"),
    "crops": ("random", "quarters"),
    "loss": tuple(LOSSES),
    "optimiser": ("adamw", "sgd"),
    "backend_init": ("he", "paper"),
    "choose_by": ("mae", "nae", "last"),
}
SHARES = ("native", "beyond", "worse", "grey", "light", "empty", "cooldown", "ema")
FROM_ZERO = (
    "seed",
    "frozen_layers",
    "backend_first",
    "lr_frontend",
    "lr_backend",
    "weight_decay",
    "warmup",
)
MOST = 2**63  # torch accepts no larger seeds, nor rates beyond float32's range
ZOOM = 16.0  # maximum factor of enlarging or shrinking a photograph; beyond, nothing is left of it


class RecipeError(ValueError):
    """A recipe that cannot be used; names the file and the entry."""


@dataclass(frozen=True)
class Recipe:
    """What a run does; see the files in train/recipes for what each entry means."""

    name: str
    variant: str
    density_scale: float
    seed: int
    validation: int
    exclude: list[str]
    train_only: list[str]
    repeat: dict[str, int]
    steps: int
    batch: int
    crops: str
    crop: int
    scale: list[float]
    native: float
    beyond: float
    worse: float
    sigma: list[float]
    grey: float
    light: float
    empty: float
    loss: str
    optimiser: str
    backend_init: str
    frozen_layers: int
    backend_first: int
    lr_frontend: float
    lr_backend: float
    weight_decay: float
    warmup: int
    cooldown: float
    ema: float
    validate_every: int
    choose_by: str

    def to_dict(self) -> dict[str, Any]:
        """The recipe as stored in config.json."""
        return asdict(self)


def read_recipe(path: Path, /, **changes: Any) -> Recipe:
    """Read a recipe, with some entries changed.

    Raises:
        RecipeError: if the file is missing or not TOML, or entries are missing, unknown or of the
            wrong type.
    """
    try:
        content = path.read_bytes()
        marked = content.startswith(UTF16)  # as Windows PowerShell's > writes it
        entries = tomllib.loads(content.decode("utf-16" if marked else "utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise RecipeError(f"The recipe {path} is not valid TOML: {error}.") from error
    entries |= {key: value for key, value in changes.items() if value is not None}
    kinds = {field.name: str(field.type).split("[")[0] for field in fields(Recipe)}
    if missing := sorted(set(kinds) - set(entries)):
        raise RecipeError(f"The recipe {path} lacks {', '.join(missing)}.")
    if unknown := sorted(set(entries) - set(kinds)):
        raise RecipeError(f"The recipe {path} has unknown entries: {', '.join(unknown)}.")
    for key, kind in kinds.items():
        if kind == "float" and type(entries[key]) is int:
            entries[key] = float(entries[key])
        if type(entries[key]).__name__ != kind:
            raise RecipeError(f"The recipe {path}: {key} must be of type {kind}.")
    recipe = Recipe(**entries)
    if fault := next(_faults(recipe), None):
        raise RecipeError(f"The recipe {path}: {fault}.")
    return recipe


def _faults(recipe: Recipe) -> Iterator[str]:
    """Faults in the values of a recipe; each check assumes that those before it found none."""
    if recipe.crop % 8 or recipe.crop < 64:
        yield "crop must be a multiple of 8, at least 64"
    for key in SHARES:
        if not 0 <= getattr(recipe, key) <= 1:
            yield f"{key} must lie between 0 and 1"
    for key in FROM_ZERO:
        if not 0 <= getattr(recipe, key) < MOST:
            yield f"{key} must be at least 0 and below 2**63"
    if not 0 < recipe.density_scale < math.inf:
        yield "density_scale must be a number above 0"
    if min(recipe.steps, recipe.batch, recipe.validate_every) < 1:
        yield "steps, batch and validate_every must be at least 1"
    if recipe.backend_first >= recipe.steps:
        yield "backend_first must be below steps, or the front end is never trained"
    for key, pair in (("scale", recipe.scale), ("sigma", recipe.sigma)):
        numbers = all(isinstance(value, (int, float)) for value in pair)
        if len(pair) != 2 or not numbers or not 0 < pair[0] <= pair[1] < math.inf:
            yield f"{key} must be two numbers above 0, the smaller one first"
    if not 1 / ZOOM <= recipe.scale[0] <= recipe.scale[1] <= ZOOM:
        yield f"scale must lie between 1/{ZOOM:g} and {ZOOM:g}"
    for key in ("exclude", "train_only"):
        if not all(isinstance(name, str) for name in getattr(recipe, key)):
            yield f"{key} must be names in quotes, such as IMG_2"
    if not all(type(times) is int and times > 0 for times in recipe.repeat.values()):
        yield "the numbers in repeat must be whole and at least 1"
    for key, choices in CHOICES.items():
        if getattr(recipe, key) not in choices:
            yield f"{key} must be one of {', '.join(choices)}"
    if recipe.loss == "pyramid" and recipe.crops == "quarters":
        yield 'crops = "quarters" cannot be used with the pyramid loss'
    if recipe.loss == "pyramid" and not divides(recipe.crop // STRIDE):
        yield (
            "the pyramid loss needs crop = 64 or a multiple of 128; otherwise its blocks miss the "
            "last rows and columns"
        )
    others = recipe.empty, recipe.worse, recipe.grey, recipe.light, recipe.repeat
    if recipe.crops == "quarters" and (recipe.batch != 1 or any(others)):
        yield (
            'crops = "quarters", which differ in size and are only mirrored, needs batch = 1, '
            "empty = 0, worse = 0, grey = 0, light = 0 and no repeat"
        )


def parse_values(text: str) -> tuple[str, list[Any]]:
    """Parse ``entry=value,value`` into the entry's name and its values, written as in TOML; quotes
    around words may be omitted.

    Raises:
        RecipeError: if there is no entry or no value.
    """
    key, _, values = (part.strip() for part in text.partition("="))
    if not key or not values:
        raise RecipeError(f"{text!r} is not of the form entry=value,value")
    try:
        return key, list(tomllib.loads(f"values = [{values}]")["values"])
    except ValueError as error:
        words = [value.strip() for value in values.split(",")]
        if not all(re.fullmatch(r"[A-Za-z]\w*", word) for word in words):
            said = f'{text!r}: write the values as in TOML, such as 0.5, [0.7, 1.4] or "word"'
            raise RecipeError(said) from error
        return key, words
