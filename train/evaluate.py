"""Errors of a model on a split: python -m train.evaluate MODEL DATA --split test --json OUT."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from csrnet_hub.card import CARD_NAME, card_of, may_be_replaced
from csrnet_hub.cli import exit_code
from csrnet_hub.count_command import scale
from csrnet_hub.counting import CrowdCounter
from csrnet_hub.datasets import DatasetError, Sample, paper_sigma, pick_split, read_dataset
from csrnet_hub.model_files import CONFIG_NAME, DRAFT, entries, put_in_place
from csrnet_hub.named import named_path, spare
from csrnet_hub.paths import is_folder

from .measure import FIRST, Row, evaluate, summary
from .report import MADE_BY, MARK, Worst, write_report
from .seen import seen_by

NOT_ERRORS = ("made_by", "model", "data", "scale", "seen", "skipped")  # the last names paths
JSON_MARK = f'{{\n  "made_by": "{MADE_BY}"'


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of ``python -m train.evaluate``."""
    printed: list[str] = []
    return exit_code(
        "evaluate",
        partial(_evaluate, _parser().parse_args(argv), printed),
        memory="on a GPU, use --device cpu",
        stopped=lambda: "" if printed else "nothing was written",
    )


def _evaluate(options: argparse.Namespace, printed: list[str]) -> int:
    bad: list[DatasetError] | None = [] if options.skip_bad else None
    worst: list[Worst] | None = [] if options.report else None
    try:
        _check_outputs(options)
        config = _recordable(options) if options.record else b""
        split = options.split or pick_split(options.data, "test", options.format)
        samples = _only(read_dataset(options.data, options.format, split, bad), options.only)
        counter = CrowdCounter.from_pretrained(
            options.model, options.device, options.dtype, scale=options.scale
        )
        sigma = paper_sigma(options.data, options.format)
        rows = evaluate(
            counter, samples, options.likeness, sigma, bad, worst, seen_by(counter.model)
        )
        if not rows:
            raise DatasetError("No photograph could be read.")
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
            "photographs, so these errors are too optimistic",
            file=sys.stderr,
        )
    if bad:
        result["skipped"] = [str(error) for error in bad]
    printed.append(json.dumps(result))
    print(*printed)  # first, so that the figures are not lost if writing files fails
    _write(options, result, rows, worst or [])
    if options.record:
        _record(Path(options.model), config, result)
    return 0


def _write(
    options: argparse.Namespace, result: dict[str, Any], rows: Sequence[Row], worst: Sequence[Worst]
) -> None:
    for path in filter(None, (options.json, options.csv, options.report)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if options.json:
        options.json.write_bytes(f"{json.dumps(result, indent=2)}\n".encode())
    if options.csv:
        _write_csv(options.csv, rows)
    if options.report:
        write_report(options.report, result, rows, worst)


def _check_outputs(options: argparse.Namespace) -> None:
    """Before hours of counting, refuse outputs that cannot be written or would overwrite files."""
    if options.report and options.report.suffix.lower() != ".html":
        raise ValueError(f"--report {options.report} must end in .html")
    marks = {"json": JSON_MARK, "csv": ",".join(FIRST), "report": MARK}
    taken: dict[str, str] = {}
    for name, mark in marks.items():
        if (path := getattr(options, name)) is None:
            continue
        spare(f"--{name}", path, mark)
        other = taken.setdefault(os.path.realpath(path), name)
        if other != name and (path.is_file() or not path.exists()):  # not a pipe or /dev/null
            raise ValueError(f"--{other} and --{name} are both {path}: give two names.")


def _recordable(options: argparse.Namespace) -> bytes:
    """The model's config.json, if the errors may be recorded there."""
    if options.only or options.scale != "auto":
        raise ValueError("--record is for a whole split, counted as usual: drop --only and --scale")
    if not is_folder(options.model):
        raise ValueError(f"--record writes into a model folder, and {options.model} is none")
    return (Path(options.model) / CONFIG_NAME).read_bytes()


def _record(folder: Path, before: bytes, result: dict[str, Any]) -> None:
    """Add the errors to ``metrics`` in a model's config.json, and write its card anew from that."""
    path = folder / CONFIG_NAME
    if result.get("seen"):
        raise ValueError("not recorded: a card must not show errors on photographs of the training")
    if path.read_bytes() != before:
        raise ValueError(f"not recorded: {path} changed while its model was measured")
    config = entries(before.decode("utf-8-sig"), CONFIG_NAME)
    data, split = result["data"], result["split"]
    errors = {key: value for key, value in result.items() if key not in NOT_ERRORS}
    # fit's own errors are named validation
    name = data if split == "all" and data != "validation" else f"{data}, {split}"
    known = config.get("metrics") or {}
    if name in known:
        print(f"evaluate: these errors replace those on {name}", file=sys.stderr)
    config["metrics"] = {**known, name: {"dataset": data, **errors}}
    with TemporaryDirectory(prefix=DRAFT, dir=folder) as draft:
        text = json.dumps(config, indent=2) + "\n"
        (Path(draft) / CONFIG_NAME).write_text(text, encoding="utf-8")
        if may_be_replaced(folder / CARD_NAME):
            (Path(draft) / CARD_NAME).write_text(card_of(config), encoding="utf-8")
        else:
            print(
                f"evaluate: {folder / CARD_NAME} was edited and is kept: add the errors to it",
                file=sys.stderr,
            )
        put_in_place(Path(draft), folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description=__doc__)
    parser.add_argument("model", help="model folder, Hub id, or FILE.xml made by csrnet export")
    parser.add_argument(
        "data", type=named_path, help="folder, such as ShanghaiTech/part_A (or a file)"
    )
    parser.add_argument(
        "--format", metavar="NAME", help="shanghaitech, csv, coco, ... (default: guessed)"
    )
    parser.add_argument("--split", help="default: test, or all if the data has no splits")
    parser.add_argument(
        "--scale",
        default="auto",
        type=scale,
        metavar="TIMES",
        help="resize factor for counting; 1: original size; auto (default): as in training",
    )
    parser.add_argument("--json", type=named_path, metavar="OUT", help="write the errors as JSON")
    parser.add_argument("--csv", type=named_path, metavar="PER_IMAGE", help="write a row per image")
    parser.add_argument(
        "--report", type=named_path, metavar="FILE.html", help="write a page with plots"
    )
    parser.add_argument(
        "--record", action="store_true", help="add the errors to the model's config.json and card"
    )
    parser.add_argument("--likeness", action="store_true", help="PSNR and SSIM too (slower)")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="only these images, such as IMG_1"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out files that cannot be read"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    return parser


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    columns = dict.fromkeys([*FIRST, *(key for row in rows for key in row)])
    # file names may not be valid Unicode
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
