"""Errors of a model on a split: python -m train.evaluate MODEL DATA --split test --json OUT."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from csrnet_hub.counting import CrowdCounter
from csrnet_hub.datasets import DatasetError, Sample, read_shanghaitech
from csrnet_hub.images import ImageError
from csrnet_hub.metrics import counting_errors
from csrnet_hub.model import ModelError


def evaluate(counter: CrowdCounter, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """One row a photograph: ``image``, ``heads`` (annotated points), ``count``, ``error``.

    Raises:
        DatasetError: naming the photograph that cannot be read.
    """
    rows = []
    for sample in tqdm(samples, "evaluate", unit="image"):
        try:
            count = counter.count(sample.path).count
        except ImageError as error:
            raise DatasetError(f"{sample.path}: {error}") from error
        heads = len(sample.heads)
        rows.append({"image": sample.name, "heads": heads, "count": count, "error": count - heads})
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of ``python -m train.evaluate``."""
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description=__doc__)
    parser.add_argument("model", help="model folder or Hub id")
    parser.add_argument("data", type=Path, help="folder of a part, such as ShanghaiTech/part_A")
    parser.add_argument("--split", default="test", choices=["train", "test"])
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the errors")
    parser.add_argument("--csv", type=Path, metavar="PER_IMAGE", help="write a row an image")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these images, such as IMG_1")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    options = parser.parse_args(argv)
    try:
        samples = _only(read_shanghaitech(options.data, options.split), options.only)
        counter = CrowdCounter.from_pretrained(options.model, options.device, options.dtype)
        rows = evaluate(counter, samples)
    except (DatasetError, ModelError, ValueError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    errors = counting_errors([row["count"] for row in rows], [row["heads"] for row in rows])
    result = {"model": counter.name, "data": options.data.name, "split": options.split, **errors}
    print(json.dumps(result))  # first: whatever happens to the files, the figures are not lost
    try:
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        if options.csv:
            options.csv.parent.mkdir(parents=True, exist_ok=True)
            _write_csv(options.csv, rows)
    except OSError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    return 0


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
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
