"""Runs of several variants of a recipe, compared in a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from .log import FILE, read_log
from .recipe import Recipe


@dataclass
class Run:
    """One run: its recipe, folder and outcome."""

    variant: str
    recipe: Recipe
    out: Path
    trouble: str = ""
    errors: list[dict[str, Any]] = field(default_factory=list)  # its validations, in order

    def read(self) -> Run:
        """Take the validations that the run's log holds so far."""
        self.errors = [entry for entry in read_log(self.out / FILE) if "mae" in entry]
        return self

    @property
    def done(self) -> bool:
        return bool(self.errors) and self.errors[-1]["step"] >= self.recipe.steps

    @property
    def best(self) -> dict[str, Any]:
        if self.recipe.choose_by == "last":
            return self.errors[-1]
        return min(self.errors, key=self._error)

    def _error(self, entry: dict[str, Any]) -> float:
        error = entry[self.recipe.choose_by]
        return math.inf if error is None else float(error)


def table(runs: Sequence[Run]) -> str:
    """The finished runs in Markdown: mean and standard deviation over the seeds, and the difference
    from the first variant on the same seeds; one line for each part of a set of several."""
    variants = list(dict.fromkeys(run.variant for run in runs))
    done = [run for run in runs if run.done]
    parts = list(dict.fromkeys(part for run in done for part in run.best.get("parts", {})))
    steps = " or ".join(str(steps) for steps in dict.fromkeys(run.recipe.steps for run in runs))
    lines = [
        f"{runs[0].recipe.name}: {steps} steps; validation errors of the weights that each run "
        "keeps, and MAE at its end: mean and standard deviation over the seeds. The last column is "
        f"the difference in relative error from {variants[0]}, image by image: mean and standard "
        "error.",
        "",
        "| variant | seeds | MAE | RMSE | NAE | MAE at the end | "
        f"MAE minus that of {variants[0]} | NAE difference |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for variant in variants:
        own = [run for run in done if run.variant == variant]
        first = {run.recipe.seed: run for run in done if run.variant == variants[0] != variant}
        pairs = [(run, first[run.recipe.seed]) for run in own if run.recipe.seed in first]
        seeds = ", ".join(str(run.recipe.seed) for run in own) or "none yet"
        lines.append(_line([variant, seeds], own, pairs))
        if own:
            lines += [_line([f"{variant}, {part} alone", ""], own, pairs, part) for part in parts]
    lines += [f"\n{run.out.name} failed: {run.trouble}" for run in runs if run.trouble]
    return "\n".join(lines) + "\n"


def _line(
    named: Sequence[str], own: Sequence[Run], pairs: Sequence[tuple[Run, Run]], part: str = ""
) -> str:
    kept = [_of_part(run.best, part) for run in own]
    ends = [_of_part(run.errors[-1], part)["mae"] for run in own]
    less = [_of_part(run.best, part)["mae"] - _of_part(one.best, part)["mae"] for run, one in pairs]
    relative = [errors["nae"] for errors in kept if errors["nae"] is not None]
    cells = [
        *named,
        _spread([errors["mae"] for errors in kept]),
        _spread([errors["rmse"] for errors in kept]),
        _spread(relative, digits=3),
        _spread(ends),
        _spread(less, "+"),
        _paired([(run.best, one.best) for run, one in pairs], part),
    ]
    return f"| {' | '.join(cells)} |"


def _of_part(errors: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    own: Mapping[str, Any] = errors["parts"][part] if part else errors
    return own


def _paired(pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], part: str) -> str:
    """The mean per-image difference of relative errors, and its standard error."""
    less = []
    for own, first in pairs:
        parts = list(own.get("parts", {}))
        for name, (heads, count) in own["counts"].items():
            if heads and (not part or _part_of(name, parts) == part):
                less.append((abs(count - heads) - abs(first["counts"][name][1] - heads)) / heads)
    if not less:
        return ""
    error = f" (standard error {stdev(less) / math.sqrt(len(less)):.3f})" if len(less) > 1 else ""
    return f"{mean(less):+.3f}{error}"


def _part_of(name: str, parts: Iterable[str]) -> str:
    """The part that a photograph belongs to, by the prefix of its name."""
    return max((part for part in parts if name.startswith(f"{part}-")), key=len, default="")


def _spread(values: Sequence[float], sign: str = "", digits: int = 1) -> str:
    if not values:
        return ""
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.{digits}f}{spread}"
