"""Errors of a model on a split: python -m train.evaluate MODEL DATA --split test --json OUT."""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from csrnet_hub.cli import print_any_name
from csrnet_hub.count_command import scale
from csrnet_hub.counting import CrowdCounter
from csrnet_hub.datasets import DatasetError, Sample, paper_sigma, pick_split, read_dataset
from csrnet_hub.density import density_map, heads_in_frame
from csrnet_hub.devices import NO_MEMORY, out_of_memory
from csrnet_hub.images import ImageError
from csrnet_hub.metrics import (
    counting_errors,
    errors_by_range,
    game,
    mae_interval,
    map_likeness,
)
from csrnet_hub.model_files import ModelError
from csrnet_hub.named import named_path, spare
from csrnet_hub.regions import CELL

from .report import MADE_BY, MARKS, WORST, Worst, plot_files, write_report
from .seen import Seen, seen_by

LEVELS = (1, 2, 3)  # of GAME; level 0 is the counting error
FIRST = ("image", "heads", "count", "error", "scale")  # columns of the table
JSON_MARK = f'{{\n  "made_by": "{MADE_BY}"'
Row = dict[str, Any]


@dataclass(frozen=True)
class Likeness:
    """That PSNR and SSIM are wanted, of maps with this kernel width (None: geometry-adaptive)."""

    sigma: float | None = None


def evaluate(
    counter: CrowdCounter,
    samples: Sequence[Sample],
    likeness: Likeness | None = None,
    bad: list[DatasetError] | None = None,
    worst: list[Worst] | None = None,
    seen: Seen | None = None,
) -> list[Row]:
    """One row a photograph: ``image``, ``heads`` (annotated points), ``count``, ``error``,
    ``scale`` (times its sides, at which it was counted), ``game1`` to ``game3``; ``low`` and
    ``high`` where the model gives an interval; ``psnr`` (None for equal maps) and ``ssim`` (None
    for tiny pictures) if asked for; ``seen`` where it is known what the model was trained on.

    With a region of interest only what lies inside it counts, of heads and of the map.

    Args:
        bad: a list that takes what cannot be read, while the others are counted; None: raise.
        worst: a list that is filled with the photographs of the largest errors and their maps.
        seen: the photographs that the model was trained on.

    Raises:
        DatasetError: naming the photograph that cannot be read.
    """
    rows = []
    for sample in tqdm(samples, "evaluate", unit="image"):
        try:
            row, density = _evaluate_one(counter, sample, likeness, seen)
        except (ImageError, DatasetError, MemoryError, RuntimeError) as error:
            named = DatasetError(f"{sample.path}: {_trouble(error)}")
            if bad is None:
                raise named from error
            bad.append(named)
            continue
        rows.append(row)
        if worst is not None:
            worst.append(Worst(row, sample.path, density))
            worst.sort(key=lambda one: -abs(one.row["error"]))
            del worst[WORST:]
    return rows


def _trouble(error: Exception) -> str:
    """What is wrong with a photograph; what is neither its own trouble nor lack of memory is
    raised."""
    if isinstance(error, (ImageError, DatasetError)):
        return str(error)
    if not out_of_memory(error):
        raise error
    return NO_MEMORY


def _evaluate_one(
    counter: CrowdCounter, sample: Sample, likeness: Likeness | None, seen: Seen | None
) -> tuple[Row, NDArray[np.float32]]:
    result = counter.count(sample.path)
    size = (result.height, result.width)
    density, count = result.density, result.count
    heads = sample.counted(*size)
    if sample.mask is not None:
        density, count = inside_mask(density, sample.mask(*size))
    row: Row = {
        "image": sample.name,
        "heads": len(heads),
        "count": count,
        "error": count - len(heads),
        "scale": result.scale,
    }
    row |= {f"game{level}": game(density, heads, *size, level) for level in LEVELS}
    if result.interval is not None and sample.mask is None:
        row["low"], row["high"] = result.interval
    if likeness is not None:
        row |= {"psnr": None, "ssim": None}
        if min(size) >= 11:  # the window of SSIM
            inside, _ = heads_in_frame(heads, *size)
            truth = density_map(inside, *size, likeness.sigma)
            if sample.mask is not None:
                truth = truth * sample.mask(*size)
            signal, row["ssim"] = map_likeness(density, truth)
            row["psnr"] = signal if math.isfinite(signal) else None
    if seen:
        row["seen"] = seen.has(*size, heads, sample.name)
    return row, density


def inside_mask(
    density: NDArray[np.float32], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], float]:
    """A map inside a mask (H, W) of the picture, and its sum."""
    inside = density * mask_shares(mask)
    return inside, float(inside.sum(dtype=np.float64))


def mask_shares(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A mask (H, W) -> (ceil(H / 8), ceil(W / 8)) share of each cell's pixels inside it."""
    edges = [np.arange(0, side, CELL) for side in mask.shape]
    inside = np.add.reduceat(np.add.reduceat(mask.astype(np.float32), edges[0], 0), edges[1], 1)
    down, across = (np.minimum(CELL, side - at) for side, at in zip(mask.shape, edges))
    shares: NDArray[np.float32] = (inside / np.outer(down, across)).astype(np.float32)
    return shares


def summary(rows: Sequence[Row], samples: Sequence[Sample] = ()) -> dict[str, Any]:
    """The figures of the rows: those of `counting_errors`; ``mae_interval`` (95 %, bootstrap);
    ``ranges`` of the number of heads; ``game`` by level; ``psnr``, ``ssim``, and
    ``interval_coverage`` (share of intervals that hold the heads) and ``interval_width`` (mean of
    width / count, of counts over 1) where rows have them; ``seen``, how many photographs the model
    was trained on, where that is known; ``groups`` where samples have them."""
    counts, heads = ([row[key] for row in rows] for key in ("count", "heads"))
    errors: dict[str, Any] = dict(counting_errors(counts, heads))
    errors["mae_interval"] = mae_interval(counts, heads)
    errors["game"] = {"0": errors["mae"]}
    errors["game"] |= {str(n): _mean([row[f"game{n}"] for row in rows]) for n in LEVELS}
    for key in ("psnr", "ssim"):
        if any(key in row for row in rows):
            errors[key] = _mean([row[key] for row in rows if row[key] is not None])
    if known := [row for row in rows if "low" in row]:
        held = [row["low"] <= row["heads"] <= row["high"] for row in known]
        wide = [(row["high"] - row["low"]) / row["count"] for row in known if row["count"] > 1]
        errors["interval_coverage"], errors["interval_width"] = _mean(held), _mean(wide)
    if known := [row["seen"] for row in rows if "seen" in row]:
        errors["seen"] = sum(known)
    errors["ranges"] = errors_by_range(counts, heads)
    group = {sample.name: sample.group for sample in samples if sample.group}
    if group:
        of_group: dict[str, list[Row]] = {}
        for row in rows:
            of_group.setdefault(group.get(row["image"], ""), []).append(row)
        errors["groups"] = {
            name: counting_errors([r["count"] for r in part], [r["heads"] for r in part])
            for name, part in of_group.items()
        }
    return errors


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of ``python -m train.evaluate``."""
    options = _parser().parse_args(argv)
    bad: list[DatasetError] | None = [] if options.skip_bad else None
    worst: list[Worst] | None = [] if options.report else None
    print_any_name()
    try:
        _check_outputs(options)
        split = options.split or pick_split(options.data, "test", options.format)
        samples = _only(read_dataset(options.data, options.format, split, bad), options.only)
        sigma = paper_sigma(options.data, options.format)
        counter = CrowdCounter.from_pretrained(
            options.model, options.device, options.dtype, scale=options.scale
        )
        likeness = Likeness(sigma) if options.likeness else None
        rows = evaluate(counter, samples, likeness, bad, worst, seen_by(counter.model))
        if not rows:
            raise DatasetError("No photograph could be read.")
    except (DatasetError, ModelError, ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("evaluate: stopped; nothing was written", file=sys.stderr)
        return 130
    finally:
        for trouble in bad or ():
            print(f"evaluate: left out: {trouble}", file=sys.stderr)
    result = {
        "made_by": MADE_BY,
        "model": counter.name,
        "data": Path(os.path.abspath(options.data)).name,  # noqa: PTH100 - "." has none
        "split": split,
        "scale": counter.scale,
    }
    result |= summary(rows, samples)
    if result.get("seen"):
        print(
            f"evaluate: the model was trained on {result['seen']} of these {result['images']} "
            "photographs, which it may know by heart: errors on others are larger",
            file=sys.stderr,
        )
    if bad:
        result["skipped"] = [str(error) for error in bad]
    print(json.dumps(result))  # first: whatever happens to the files, the figures are not lost
    try:
        for path in filter(None, (options.json, options.csv, options.report)):
            path.parent.mkdir(parents=True, exist_ok=True)
        if options.json:
            options.json.write_bytes(f"{json.dumps(result, indent=2)}\n".encode())
        if options.csv:
            _write_csv(options.csv, rows)
        if options.report:
            write_report(options.report, result, rows, worst or [])
    except OSError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    return 0


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuse, before hours of counting, what cannot be written or would write over other files."""
    if options.report and options.report.suffix.lower() not in (".html", ".md"):
        raise ValueError(f"{options.report} must end in .html or .md")
    if options.report and options.report.suffix.lower() == ".md" and not options.report.exists():
        for plot in plot_files(options.report).values():
            if plot.exists():
                raise ValueError(f"--report would write over {plot}; give another name.")
    marks = {"json": JSON_MARK, "csv": ",".join(FIRST)}
    marks["report"] = MARKS[options.report.suffix.lower()] if options.report else ""
    taken: dict[str, str] = {}
    for name, mark in marks.items():
        if (path := getattr(options, name)) is None:
            continue
        if path.is_dir():
            raise ValueError(f"--{name} {path} is a folder; give the name of a file.")
        spare(f"--{name}", path, mark)
        other = taken.setdefault(os.path.realpath(path), name)
        if other != name and (path.is_file() or not path.exists()):  # no pipe, no /dev/null
            raise ValueError(f"--{other} and --{name} give one name, {path}: give two.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description=__doc__)
    parser.add_argument("model", help="model folder, Hub id or FILE.xml of csrnet export")
    parser.add_argument(
        "data", type=named_path, help="folder, such as ShanghaiTech/part_A (or a file)"
    )
    parser.add_argument(
        "--format", metavar="NAME", help="shanghaitech, csv, coco, ... (or guessed)"
    )
    parser.add_argument("--split", help="test if not given, or all where nothing is split")
    parser.add_argument(
        "--scale",
        default="auto",
        type=scale,
        metavar="TIMES",
        help="count at so many times the sides; 1: as it is; auto: as the model was trained",
    )
    parser.add_argument("--json", type=named_path, metavar="OUT", help="write the errors")
    parser.add_argument("--csv", type=named_path, metavar="PER_IMAGE", help="write a row an image")
    parser.add_argument(
        "--report", type=named_path, metavar="FILE", help="write a page, .html or .md"
    )
    parser.add_argument("--likeness", action="store_true", help="PSNR and SSIM too (slower)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these images, such as IMG_1")
    parser.add_argument("--skip-bad", action="store_true", help="leave out what cannot be read")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    return parser


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    columns = dict.fromkeys([*FIRST, *(key for row in rows for key in row)])
    # a file's name may be no Unicode
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)


def _only(samples: list[Sample], names: Sequence[str] | None) -> list[Sample]:
    if names is None:
        return samples
    if strangers := sorted(set(names) - {sample.name for sample in samples}):
        raise DatasetError(f"There is no image {', '.join(strangers)} in this split.")
    return [sample for sample in samples if sample.name in set(names)]


if __name__ == "__main__":
    sys.exit(main())
