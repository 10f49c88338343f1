"""The product against the reference, on this machine: python -m benchmarks.

Ways of doing the same thing take turns in one process; reported are medians, of seconds and of
ratios within a round. Tables are printed in Markdown, and kept in a folder with the JSON figures.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from csrnet_hub.cli import exit_code
from csrnet_hub.devices import fast_bfloat16, name_device, pick_device
from csrnet_hub.named import named_path
from csrnet_hub.paths import is_folder
from csrnet_hub.resources import DEFAULT_MODEL, resource

from .comparisons import counting, counts, ground_truth, share_of_rate, validation_images
from .plan import Plan, Row
from .processes import endurance, memory, start

ALL: dict[str, Callable[[Plan], list[Row]]] = {
    "counting": counting,
    "counts": counts,
    "share": share_of_rate,
    "memory": memory,
    "endurance": endurance,
    "start": start,
    "ground-truth": ground_truth,
}
SIZES = ("640x480", "1024x768", "4000x3000", "10000x10000")
FORMS = {
    "seconds": ".4g",
    "times_as_fast": ".2f",
    "us_a_pixel": ".3f",
    "mean_difference": ".3%",
    "most": ".3%",
    "mae": ".2f",
    "share": ".0%",
    "flops": ".3g",
    "matrix_flops": ".3g",
    "most_apart": ".1e",
}
BYTES = ("before", "peak", "held")


def machine(device: torch.device) -> dict[str, Any]:
    """The machine and software that the figures apply to."""
    return {
        "device": name_device(device),
        "threads": torch.get_num_threads(),
        "bfloat16": fast_bfloat16(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "date": time.strftime("%Y-%m-%d"),
    }


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table, with one column per key, in order of first appearance."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [
        keys,
        ["---"] * len(keys),
        *([_cell(key, row.get(key)) for key in keys] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key in BYTES:
        return f"{value / 1e6:,.0f} MB"
    return format(value, FORMS.get(key, ""))


def report(found: dict[str, Any]) -> str:
    """All results, as Markdown."""
    about = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    parts = [f"# Benchmarks\n\n{about}"]
    for name, rows in found["results"].items():
        if rows:
            said = inspect.getdoc(ALL[name])
            parts.append(f"## {name}\n\n{said}\n\n{table(rows)}")
    return "\n\n".join(parts) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of ``python -m benchmarks``."""
    options = _parser().parse_args(argv)
    return exit_code(
        "benchmarks",
        partial(_measure, options),
        errors=(RuntimeError,),
        stopped=lambda: f"the finished benchmarks are in {options.out}",
    )


def _measure(options: argparse.Namespace) -> int:
    if not hasattr(os, "sysconf"):  # Windows
        raise ValueError("the benchmarks need Linux or macOS to measure memory")
    if unknown := set(options.what) - set(ALL):
        raise ValueError(f"unknown benchmark {', '.join(sorted(unknown))}; see --help")
    if min(options.rounds, options.photos) < 1:
        raise ValueError("--rounds and --photos must be at least 1")
    options.out.mkdir(parents=True, exist_ok=True)  # before hours of measuring
    device = pick_device(options.device)
    plan = Plan(
        model=_found(options.model),
        device=device,
        sizes=[_size(text) for text in options.sizes],
        rounds=options.rounds,
        held_out=validation_images(options.data) if options.data else (),
        int8=options.int8,
        photos=options.photos,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    found: dict[str, Any] = {"machine": machine(device), "results": {}}
    stem = options.out / time.strftime("%Y%m%d-%H%M%S")
    for name in options.what or ALL:
        found["results"][name] = ALL[name](plan)
        _keep(found, stem)
    print(report(found))
    print(f"also written to {stem}.md and .json", file=sys.stderr)
    return 0


def _keep(found: dict[str, Any], stem: Path) -> None:
    # after each group, so that a later failure does not lose hours of results
    for ending, content in ((".md", report(found)), (".json", json.dumps(found, indent=1))):
        stem.with_suffix(ending).write_text(content, encoding="utf-8")


def _found(model: str) -> str:
    """A model's name, valid for processes that run in another folder too."""
    return str(Path(model).resolve()) if is_folder(model) else model


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ValueError(f"{text!r} is not a size such as 1024x768")
    return int(width), int(height)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"{', '.join(ALL)} (default: all)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--model",
        default=str(resource(DEFAULT_MODEL)),
        help="folder or Hub id (default: the shipped model)",
    )
    parser.add_argument(
        "--sizes", nargs="+", default=SIZES, metavar="WIDTHxHEIGHT", help="of the pictures"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="for pictures of up to a megapixel (default: 5)"
    )
    parser.add_argument(
        "--data",
        type=named_path,
        help="file that train.prepare made of part A, for its validation images",
    )
    parser.add_argument("--int8", type=named_path, help="file made by csrnet export --int8")
    parser.add_argument(
        "--photos",
        type=int,
        default=1000,
        metavar="N",
        help="photos that endurance counts in a row (default: 1000)",
    )
    parser.add_argument(
        "--out",
        type=named_path,
        default=Path("runs/benchmarks"),
        help="folder (default: runs/benchmarks)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
