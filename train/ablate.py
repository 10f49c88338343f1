"""Train a recipe with some entries varied, several seeds each, and compare them on validation:

python -m train.ablate RECIPE.toml --data PREPARED.h5 --out FOLDER --vary loss=pyramid,dmcount

The same command again goes on where it was stopped. FOLDER/ablation.md has the table so far; each
run's folder has its recipe, its start and its photographs, and is refused to others. Each seed
draws validation pictures and crops of its own, the same for all variants: what counts is the
difference of two variants on the same seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from csrnet_hub.cli import print_any_name
from csrnet_hub.datasets import DatasetError
from csrnet_hub.devices import out_of_memory, pick_device
from csrnet_hub.hub import one_line
from csrnet_hub.model_files import ModelError
from csrnet_hub.named import named_path

from .data import Example, fingerprint, load_prepared
from .fit import TOO_LARGE, fit
from .log import FILE, read_log
from .recipe import Recipe, RecipeError, parse_values, read_recipe
from .state import TrainingError, other_entries

# Entries that are not varied: seeds have an option of their own, and all are measured on the same.
FIXED = ("name", "seed", "exclude", "validation", "train_only")
KEPT = "recipe.json"  # in each run's folder: what its figures are of


@dataclass
class Run:
    """One run: its recipe, its folder, and what became of it."""

    variant: str
    recipe: Recipe
    out: Path
    trouble: str = ""
    errors: list[dict[str, Any]] = field(default_factory=list)  # its validations, in their order

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


def plan(
    recipe: Path,
    vary: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    out: Path,
    steps: int | None = None,
) -> list[Run]:
    """The runs of every combination of entries, seed by seed, so that a part of them compares.

    Raises:
        RecipeError: for an entry or a value that a recipe cannot have.
    """
    if wrong := sorted(set(vary) & set(FIXED)):
        raise RecipeError(f"{', '.join(wrong)} cannot be varied")
    runs = []
    for seed in seeds:
        for values in product(*vary.values()):
            changes = dict(zip(vary, values))
            variant = ", ".join(f"{key}={_shown(value)}" for key, value in changes.items())
            own = read_recipe(recipe, **{"steps": steps, **changes, "seed": seed})
            folder = variant.replace(", ", ",").replace(" ", "")
            runs.append(Run(variant or own.name, own, out / f"{folder or 'run'},seed={seed}"))
    return runs


def _shown(value: Any) -> str:
    if isinstance(value, dict):  # without the colons, which not every folder's name may have
        return "{" + ",".join(f"{key}={_shown(own)}" for key, own in value.items()) + "}"
    return str(value).replace("'", "").replace(" ", "") if isinstance(value, list) else str(value)


def ablate(
    runs: Sequence[Run],
    examples: Sequence[Example],
    out: Path,
    device: torch.device,
    train: Callable[..., float] = fit,
    **options: Any,
) -> str:
    """Train what is not done yet, and write ``ablation.md`` after each run.

    Args:
        options: of `fit`: vgg, init, compiled.

    Returns:
        The table. A run that failed stands in it with its reason; the others go on.

    Raises:
        TrainingError: before anything runs, if a run's folder holds one of another recipe, with
            another start or on other photographs.
    """
    out.mkdir(parents=True, exist_ok=True)
    _keep_recipes(runs, examples, {key: options.get(key) for key in ("vgg", "init")})
    for number, run in enumerate(runs, start=1):
        if not run.read().done:
            print(f"run {number} of {len(runs)}: {run.out.name}", flush=True)
            last = run.out / "last.pt"
            try:
                train(
                    run.recipe,
                    examples,
                    run.out,
                    device=device,
                    resume=last if last.is_file() else None,
                    **(options if not last.is_file() else {**options, "init": None}),
                )
            except (DatasetError, MemoryError, RuntimeError) as error:
                run.trouble = _trouble(error)
            run.read()
        (out / "ablation.md").write_text(table(runs), encoding="utf-8")
    return table(runs)


def _keep_recipes(
    runs: Sequence[Run], examples: Sequence[Example], start: Mapping[str, Any]
) -> None:
    data = fingerprint(examples)
    records = {run.out / KEPT: {**run.recipe.to_dict(), **start, "data": data} for run in runs}
    for path, record in records.items():
        before = _kept(path) if path.is_file() else record
        if other := other_entries(record, before, {"name"}):
            raise TrainingError(
                f"{path.parent} holds a run with another {', '.join(other)}: give another --out"
            )
    for path, record in records.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _kept(path: Path) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # it was cut off
        raise TrainingError(
            f"{path} is damaged: remove {path.parent}, or give another --out"
        ) from error
    return kept


def _trouble(error: Exception) -> str:
    """Why a run failed, in a line; what is neither its own trouble nor lack of memory is raised."""
    expected = isinstance(error, (TrainingError, DatasetError, ModelError))
    if not expected and not out_of_memory(error):
        raise error
    return one_line(error)


def table(runs: Sequence[Run]) -> str:
    """The finished runs in Markdown: mean and standard deviation over the seeds, and how much less
    or more than the first variant on the same seeds; a line for each part of a set of several."""
    variants = list(dict.fromkeys(run.variant for run in runs))
    done = [run for run in runs if run.done]
    parts = list(dict.fromkeys(part for run in done for part in run.best.get("parts", {})))
    steps = " or ".join(str(steps) for steps in dict.fromkeys(run.recipe.steps for run in runs))
    lines = [
        f"{runs[0].recipe.name}: {steps} steps; validation errors of the weights that each run "
        "keeps, and MAE at its end; mean and standard deviation over seeds. NAE against that of "
        f"{variants[0]}: the mean difference of the relative errors of one image on one seed, with "
        "its standard error.",
        "",
        f"| variant | seeds | MAE | RMSE | NAE | MAE at the end | MAE less that of {variants[0]} | "
        "NAE, image by image |",
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
    """The mean difference of relative errors image by image, and its standard error."""
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
    """The part that a photograph is of, whose name is put before its own."""
    return max((part for part in parts if name.startswith(f"{part}-")), key=len, default="")


def _spread(values: Sequence[float], sign: str = "", digits: int = 1) -> str:
    if not values:
        return ""
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.{digits}f}{spread}"


def _each_once(entries: Iterable[tuple[str, list[Any]]]) -> dict[str, list[Any]]:
    vary: dict[str, list[Any]] = {}
    for key, values in entries:
        if key in vary:
            raise RecipeError(f"--vary {key} is given twice: give all its values to one")
        if any(value in values[:i] for i, value in enumerate(values)):
            raise RecipeError(f"--vary {key} names a value twice")
        vary[key] = values
    return vary


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of ``python -m train.ablate``."""
    parser = argparse.ArgumentParser(
        prog="python -m train.ablate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add: Callable[..., Any] = parser.add_argument
    add("recipe", type=named_path, help="a TOML file, such as train/recipes/partA_gpu.toml")
    add("--data", type=named_path, required=True, help="file made by train.prepare")
    add("--out", type=named_path, required=True, help="folder of the runs and the table")
    add(
        "--vary",
        action="append",
        default=[],
        metavar="ENTRY=VALUE,VALUE",
        help="an entry of the recipe and what it shall be; again for every combination",
    )
    add("--seeds", default="0,1,2", help="with commas between them (0,1,2)")
    add("--steps", type=int, help="in place of the recipe's")
    add("--vgg", default="torchvision", help="'torchvision', or a safetensors file with VGG-16")
    add("--init", metavar="MODEL", help="folder or Hub id to start from, in place of VGG-16")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--compile", action="store_true", help="torch.compile the network (needs its compilers)")
    options = parser.parse_args(argv)
    print_any_name()
    try:
        vary = _each_once(map(parse_values, options.vary))
        if not re.fullmatch(r"\d+(,\d+)*", options.seeds):
            raise RecipeError(f"--seeds {options.seeds}: give numbers with commas between them")
        seeds = [int(seed) for seed in options.seeds.split(",")]
        if len(set(seeds)) < len(seeds):
            raise RecipeError(f"--seeds {options.seeds} names a seed twice: it would count twice")
        runs = plan(options.recipe, vary, seeds, options.out, options.steps)
        examples = load_prepared(options.data, runs[0].recipe.exclude)
        device = pick_device(options.device)
        how = {"vgg": options.vgg, "init": options.init, "compiled": options.compile}
        print(ablate(runs, examples, options.out, device, **how), end="")
    except (RecipeError, DatasetError, ModelError, TrainingError, ValueError, OSError) as error:
        print(f"ablate: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:  # for the photographs, before any run
        print(f"ablate: {one_line(error)}\nablate: {TOO_LARGE}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ablate: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 1 if any(run.trouble for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
