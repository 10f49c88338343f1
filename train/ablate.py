"""Train a recipe with some entries varied, several seeds each, and compare them on validation:

python -m train.ablate RECIPE.toml --data PREPARED.h5 --out FOLDER --vary loss=pyramid,dmcount

Run the same command again to continue after an interruption. FOLDER/ablation.md has the table so
far; a run's folder is only reused for the same recipe, start and photographs. Each seed draws its
own validation images and crops, the same for all variants, so compare variants on the same seeds.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from csrnet_hub.cli import exit_code
from csrnet_hub.datasets import DatasetError
from csrnet_hub.devices import out_of_memory, pick_device
from csrnet_hub.hub import one_line
from csrnet_hub.model_files import ModelError

from .compare import Run, table
from .data import Example, fingerprint, load_prepared
from .fit import LEFT, TOO_LARGE, add_options, fit
from .recipe import RecipeError, parse_values, read_recipe
from .state import TrainingError, other_entries

# Entries that cannot vary: seeds have their own option, and all runs share one validation set.
FIXED = ("name", "seed", "exclude", "validation", "train_only")
KEPT = "recipe.json"  # in each run's folder: what its figures describe


def plan(
    recipe: Path,
    vary: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    out: Path,
    steps: int | None = None,
) -> list[Run]:
    """The runs of all combinations of entries, seed by seed, so that partial results compare.

    Raises:
        RecipeError: if a recipe cannot have an entry or a value.
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
    if isinstance(value, dict):  # without colons, which not all systems allow in folder names
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
    """Train the runs that are not done yet, and write ``ablation.md`` after each.

    Args:
        options: for `fit`: vgg, init, compiled.

    Returns:
        The table. A failed run is listed with its reason; the others continue.

    Raises:
        TrainingError: before anything runs, if a run's folder holds a run of another recipe, from
            another start or on other photographs.
    """
    out.mkdir(parents=True, exist_ok=True)
    _keep_recipes(runs, examples, {key: options.get(key) for key in ("vgg", "init")})
    for number, run in enumerate(runs, start=1):
        if not run.read().done:
            print(f"run {number} of {len(runs)}: {run.out.name}", file=sys.stderr, flush=True)
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
        begun = any((path.parent / name).exists() for name in LEFT)
        before = _kept(path) if begun and path.is_file() else record
        if other := other_entries(record, before, {"name"}):
            raise TrainingError(
                f"{path.parent} holds a run that differs in {', '.join(other)}: give another --out"
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
    """Why a run failed, in one line; re-raises anything but its own errors and out-of-memory."""
    expected = isinstance(error, (TrainingError, DatasetError, ModelError))
    if not expected and not out_of_memory(error):
        raise error
    return one_line(error)


def _each_once(entries: Iterable[tuple[str, list[Any]]]) -> dict[str, list[Any]]:
    vary: dict[str, list[Any]] = {}
    for key, values in entries:
        if key in vary:
            raise RecipeError(f"--vary {key} is given twice: put all its values into one")
        if any(value in values[:i] for i, value in enumerate(values)):
            raise RecipeError(f"--vary {key} has a value twice")
        vary[key] = values
    return vary


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of ``python -m train.ablate``."""
    work = partial(_ablate, _parser().parse_args(argv))
    return exit_code(
        "ablate",
        work,
        errors=(TrainingError,),
        memory=TOO_LARGE,  # for the photographs, before any run
        stopped=lambda: "the same command continues",
    )


def _ablate(options: argparse.Namespace) -> int:
    vary = _each_once(map(parse_values, options.vary))
    if not re.fullmatch(r"\d+(,\d+)*", options.seeds):
        raise RecipeError(f"--seeds {options.seeds}: give whole numbers separated by commas")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    if len(set(seeds)) < len(seeds):
        raise RecipeError(f"--seeds {options.seeds} has a seed twice: it would count twice")
    runs = plan(options.recipe, vary, seeds, options.out, options.steps)
    examples = load_prepared(options.data, runs[0].recipe.exclude)
    device = pick_device(options.device)
    how = {"vgg": options.vgg, "init": options.init, "compiled": options.compile}
    print(ablate(runs, examples, options.out, device, **how), end="")
    return 1 if any(run.trouble for run in runs) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.ablate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, out="folder for the runs and the table")
    add: Callable[..., Any] = parser.add_argument
    add(
        "--vary",
        action="append",
        default=[],
        metavar="ENTRY=VALUE,VALUE",
        help="a recipe entry and the values to try; repeat for all combinations",
    )
    add("--seeds", default="0,1,2", help="separated by commas (default: 0,1,2)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
