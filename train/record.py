"""Entries of a training record besides the recipe: the photographs, and what a run used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .data import Example
from .recipe import Recipe

DRAWN = ("pyramid", "euclidean")  # losses whose targets are maps; the others' are the points


def of_training(recipe: Recipe, train: Sequence[Example], before: Any = None) -> dict[str, Any]:
    """``heads``, the fewest and the most annotated heads in a training photograph, if known for all
    of them and for whole photographs; ``kernels``, by part, the least and the greatest fixed width
    in pixels, or "adaptive", or "none" where the targets were the annotated points.

    Args:
        before: the record of the initial model, whose photographs count too.
    """
    told: dict[str, Any] = {"kernels": _kernels(recipe, train)}
    known = before.get("heads") if isinstance(before, dict) else []
    masked = any(example.mask is not None for example in train)
    if isinstance(known, list) and all(type(end) is int for end in known) and not masked:
        counts = [*(example.count for example in train), *known]
        told["heads"] = [min(counts), max(counts)]
    return told


def of_validation(train: Sequence[Example], held_out: Sequence[Example]) -> dict[str, Any]:
    """For held-out images: ``scenes``, how many represent one; ``shrunk``, how many were larger;
    each left out if zero."""
    seen = {(example.part, example.scene) for example in train}
    told = {
        "scenes": sum(bool(one.scene) and (one.part, one.scene) not in seen for one in held_out),
        "shrunk": sum(one.shrunk_to > 0 for one in held_out),
    }
    return {key: number for key, number in told.items() if number}


def _kernels(recipe: Recipe, train: Iterable[Example]) -> dict[str, Any]:
    kernels: dict[str, Any] = {}
    if recipe.loss not in DRAWN:
        return dict.fromkeys(sorted({example.part for example in train}), "none")
    for example in train:
        if not len(example.heads):
            continue
        low, high = float(example.sigma.min()), float(example.sigma.max())
        known = kernels.get(example.part)
        if not example.fixed or known == "adaptive":
            kernels[example.part] = "adaptive"
        else:
            least, most = known or (low, high)
            kernels[example.part] = [min(low, least), max(high, most)]
    return dict(sorted(kernels.items()))
