"""csrnet count: reports each picture as a line or an object, a table row and a map."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .count_table import TABLE, as_row, is_counted, open_table, rows_before, spare_counts, spelt
from .counting import ENGINES, CountResult, CrowdCounter, not_counted
from .devices import DTYPES, NO_MEMORY
from .images import ImageError, missing_reader
from .maps import save_map, unused
from .named import find_images, named_path, spare
from .paths import alone, real


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add: Callable[..., Any] = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="files, folders or globs")
    add(
        "--model",
        help="Hub id (org/name or org/name@revision), folder, or FILE.xml of csrnet export "
        "(default: the shipped model)",
    )
    add("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    add(
        "--dtype",
        default="auto",
        choices=["auto", *DTYPES],
        help="precision (default: auto, the fastest on the device that keeps the count)",
    )
    add(
        "--engine",
        default="torch",
        choices=list(ENGINES),
        help="runtime of the network (default: torch)",
    )
    add(
        "--scale",
        default="auto",
        type=scale,
        metavar="TIMES",
        help="resize factor before counting, up to 2; 1: original size (default: auto, as the "
        "model was trained)",
    )
    add("--json", action="store_true", help="print one JSON object per photograph")
    add("--csv", type=named_path, metavar="FILE", help="write a table of the counts")
    add(
        "--resume",
        action="store_true",
        help="continue the --csv table with the same options, skipping photographs already "
        "counted (with --save-maps: those that also have maps)",
    )
    add("--force", action="store_true", help="replace a --csv table that holds counts")
    add(
        "--save-maps",
        type=named_path,
        metavar="FOLDER",
        help="save each density map as PNG and .npy",
    )


def run(options: argparse.Namespace) -> int:
    """Count the pictures that the options name and return the exit code.

    Raises:
        ModelError, ValueError, OSError: with what is wrong and what to do.
    """
    if options.resume and not options.csv:
        raise ValueError("--resume continues the table of --csv FILE: give --csv too.")
    paths, nothing = find_images(options.paths)
    if not paths:
        raise ValueError(" ".join(f"{name}: {why}" for name, why in nothing.items()))
    _spare_photographs(options, paths)
    with ExitStack() as stack:
        if options.csv:
            said = f"Another run is writing {options.csv}: wait, or give another name."
            stack.enter_context(alone(options.csv, ValueError(said)))
            if not (options.resume or options.force):
                spare_counts(options.csv)
        report = _count(options, paths, nothing, stack)
    if report.unread:
        print(f"csrnet: {report.unread}", file=sys.stderr)
    return 1 if report.bad else 0


def _count(
    options: argparse.Namespace, paths: Sequence[Path], nothing: dict[str, str], stack: ExitStack
) -> _Report:
    counter = CrowdCounter.from_pretrained(
        options.model,
        options.device,
        options.dtype,
        engine=options.engine,
        scale=options.scale,
    )
    before = rows_before(options.csv, counter.name) if options.resume else []
    known = {line["image"] for line in before if is_counted(line, bool(options.save_maps))}
    left = [path for path in paths if spelt(path) not in known]
    if before:
        done = f"{len(paths) - len(left):,} of {len(paths):,} photographs"
        maps = " with their maps" if options.save_maps else ""
        print(f"csrnet: {done} are already in {options.csv}{maps}", file=sys.stderr)
    if options.save_maps:
        options.save_maps.mkdir(parents=True, exist_ok=True)
        said = f"Another run is writing maps to {options.save_maps}: wait, or give another folder."
        stack.enter_context(alone(options.save_maps, ValueError(said)))
    report = _Report(options, open_table(options.csv, stack, before) if options.csv else None)
    for name, why in nothing.items():
        report.failed(name, why)
    for path, result in _results(counter, left):
        if isinstance(result, ImageError):
            report.failed(path, str(result))
        else:
            report.counted(path, result)
    return report


class _Report:
    """Reports each picture: a line or an object on stdout, a row of the table, its map.

    Attributes:
        bad: number of pictures with an error.
        unread: what to install for pictures that could not be read, or "".
    """

    def __init__(
        self, options: argparse.Namespace, table: Callable[[dict[str, Any]], None] | None
    ) -> None:
        self.options, self.table = options, table
        self.names: set[str] = set()
        self.bad = 0
        self.unread = ""

    def failed(self, path: Path | str, why: str) -> None:
        self.bad += 1
        self.unread = self.unread or missing_reader(path)
        tqdm.write(f"csrnet: {path}: {why}", file=sys.stderr)
        self._write({"image": str(path), "error": why})

    def counted(self, path: Path, result: CountResult) -> None:
        line = row(path, result)
        full: OSError | None = None
        if self.options.save_maps:
            stem = unused(self.options.save_maps, path, self.names)
            try:
                save_map(stem, path, result)
                line["map"] = f"{stem}.npy"
            except ValueError as error:  # it has been changed or removed meanwhile
                self.failed(path, str(error))
                return
            except MemoryError:
                self.bad += 1
                tqdm.write(f"csrnet: the map of {path}: {NO_MEMORY}", file=sys.stderr)
            except OSError as error:  # the next would fail too; this one has been counted
                full = error
        if not self.options.json:
            _say(f"{path}: {max(result.count, 0.0):.1f}{margin(result)}")
            for notice in result.notices:
                tqdm.write(f"csrnet: {path}: {notice}", file=sys.stderr)
        self._write(line)
        if full is not None:
            raise full

    def _write(self, line: dict[str, Any]) -> None:
        if self.options.json:
            _say(json.dumps(line))
        if self.table:
            self.table(as_row(line))


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def _spare_photographs(options: argparse.Namespace, paths: Sequence[Path]) -> None:
    """Refuse to write a table or map over a photograph, as with --csv without a name."""
    if options.csv:
        spare("--csv", options.csv, TABLE)
    maps = options.save_maps
    if not maps:
        return
    # a photograph may be a link: spare both its folder and its target's
    holding = {own for path in paths for own in (real(path).parent, real(path.parent))}
    if real(maps) in holding:
        raise ValueError(f"--save-maps {maps} holds the photographs: give another folder.")


def _results(
    counter: CrowdCounter, paths: Sequence[Path]
) -> Iterator[tuple[Path, CountResult | ImageError]]:
    """Each path and its result, with a progress bar over the pictures, or one picture's pieces."""
    if not paths:  # all were counted before
        return
    if len(paths) > 1:
        results = zip(paths, counter.count_many(paths))
        yield from tqdm(results, total=len(paths), unit="image", disable=None)
        return
    found: CountResult | ImageError
    with tqdm(unit="piece", disable=None, delay=2, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            found = counter.count(paths[0], progress)
        except ImageError as error:
            found = error
        except (MemoryError, RuntimeError) as error:  # as in count_many
            found = not_counted(error)
    yield paths[0], found


def scale(text: str) -> float | str:
    """Parse ``--scale``; argparse uses this name when it reports a wrong value."""
    return text if text == "auto" else float(text)


def margin(result: CountResult) -> str:
    """The prediction interval in words; empty if the model has none, or if the picture is unlike
    those for which it holds."""
    if result.interval is None or result.level is None or result.notices:
        return ""
    low, high = result.interval
    return f" ({result.level:.0%} interval {low:.0f} to {high:.0f})"


def row(path: Path, result: CountResult) -> dict[str, Any]:
    """One line of ``--json`` and ``--csv``."""
    return {
        "image": str(path),
        "count": round(result.count, 3) + 0.0,  # never -0.0
        "width": result.width,
        "height": result.height,
        "model": result.model,
        "seconds": round(result.seconds, 4),
        "scale": round(result.scale, 4),
        "device": result.device,
        "interval": [round(end, 3) for end in result.interval] if result.interval else None,
        "notices": list(result.notices),
    }
