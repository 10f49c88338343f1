"""The command line: csrnet count PATHS..., csrnet convert OLD NEW_FOLDER, csrnet data check,
csrnet export MODEL OUT."""

from __future__ import annotations

import argparse
import codecs
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import __version__
from .count_table import TABLE, is_counted, open_table, rows_before, spelt
from .counting import ENGINES, CountResult, CrowdCounter, not_counted
from .devices import DTYPES, NO_MEMORY, out_of_memory
from .images import SUFFIXES, ImageError, hide_library_warnings, missing_reader
from .maps import save_map, unused
from .model import DILATIONS, CSRNet
from .model_files import ModelError
from .named import find_images, named_path, quoted


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``csrnet``; returns the exit code."""
    options = _parser().parse_args(argv)
    hide_library_warnings()
    print_any_name()
    try:
        code: int = options.run(options)
        return code
    except BrokenPipeError:  # whoever read our output has enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell reports a process that SIGPIPE ended
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else error
        print(f"csrnet: {reason}", file=sys.stderr)
        return 2
    except (ModelError, ValueError) as error:
        print(f"csrnet: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print("csrnet: there is not enough memory; on a GPU, give --device cpu", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("csrnet: stopped", file=sys.stderr)
        return 130


def print_any_name() -> None:
    """Let the program print the name of any file: what the terminal lacks, as ``\\xe9``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="csrnet", description="Count people in photographs.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    count = commands.add_parser("count", help="count the people in photographs")
    count.add_argument("paths", nargs="+", metavar="PATH", help="files, folders or globs")
    count.add_argument(
        "--model",
        help="Hub id (org/name, or org/name@revision), folder or FILE.xml of csrnet export (or the "
        "shipped model)",
    )
    count.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    count.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", *DTYPES],
        help="precision; auto: the quickest on the device that keeps the count",
    )
    count.add_argument(
        "--engine", default="torch", choices=list(ENGINES), help="what the network runs on"
    )
    count.add_argument(
        "--scale",
        default="auto",
        type=scale,
        metavar="TIMES",
        help="count at so many times the photo's width and height, up to 2; 1: as it is; auto: as "
        "the model was trained",
    )
    count.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    count.add_argument("--csv", type=named_path, metavar="FILE", help="write a table")
    count.add_argument(
        "--resume",
        action="store_true",
        help="go on with the table of --csv, with the options of before: photographs that it has "
        "counts of, and maps with --save-maps, are left out",
    )
    count.add_argument(
        "--save-maps",
        type=named_path,
        metavar="FOLDER",
        help="write each density map as PNG and .npy",
    )
    count.set_defaults(run=_count)

    convert = commands.add_parser("convert", help="turn a legacy checkpoint into a model folder")
    convert.add_argument(
        "old", type=named_path, help=".pth.tar, .pth, .npz or .safetensors state dict"
    )
    convert.add_argument(
        "new_folder", type=named_path, help="folder that from_pretrained will read"
    )
    convert.add_argument(
        "--variant",
        default="B",
        choices=list(DILATIONS),
        help="back end of the paper (B if not given)",
    )
    convert.add_argument(
        "--density-scale",
        type=float,
        default=1.0,
        help="what the output is divided by to be heads per cell (1 if not given)",
    )
    convert.set_defaults(run=_convert)

    export = commands.add_parser("export", help="write a model for ONNX Runtime or OpenVINO")
    export.add_argument("model", help="Hub id or folder")
    export.add_argument(
        "out", type=named_path, metavar="OUT", help="OUT.onnx, or OUT.xml for OpenVINO"
    )
    export.add_argument(
        "--int8",
        type=named_path,
        metavar="PHOTOS",
        help="quantise OUT.xml on these: a folder, or a file of train.prepare",
    )
    export.set_defaults(run=_export)

    data = commands.add_parser("data", help="look at annotated photographs")
    checks = data.add_subparsers(required=True, metavar="COMMAND")
    check = checks.add_parser("check", help="say what a data set holds and what is wrong with it")
    check.add_argument(
        "folder", type=named_path, help="folder of a data set, or an annotation file"
    )
    check.add_argument("--format", metavar="NAME", help="shanghaitech, csv, coco, ... (or guessed)")
    check.add_argument("--json", action="store_true", help="one JSON object on stdout")
    check.add_argument(
        "--plot", type=named_path, metavar="PNG", help="draw sizes and counts to a file"
    )
    check.set_defaults(run=_data_check)
    return parser


def _data_check(options: argparse.Namespace) -> int:
    from .datasets.check import as_text, check, save_histograms

    if plot := options.plot:  # before all is read
        if plot.suffix.lower() != ".png" or plot.exists():
            raise ValueError(f"--plot {plot}: give the name of a new file that ends in .png.")
        if not plot.parent.is_dir():
            raise ValueError(f"--plot {plot}: there is no folder {plot.parent}.")
    report = check(options.folder, options.format)
    print(json.dumps(report) if options.json else as_text(report))
    if plot:
        save_histograms(report, plot)
    return 1 if report["findings"] else 0


def _convert(options: argparse.Namespace) -> int:
    from .convert import convert

    convert(options.old, options.new_folder, options.variant, options.density_scale)
    folder = options.new_folder
    print(f"{folder} is ready: csrnet count PHOTO --model {quoted(folder)}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from .export import COMPARED, export

    theirs, ours = export(CSRNet.from_pretrained(options.model), options.out, options.int8)
    compared = f"{COMPARED} crops of the photographs" if options.int8 else "a drawn picture"
    print(f"{options.out} is ready: {theirs:.3f} heads in {compared}, torch says {ours:.3f}")
    return 0


def _count(options: argparse.Namespace) -> int:
    if options.resume and not options.csv:
        raise ValueError("--resume goes on with the table of --csv FILE: give that too.")
    paths, nothing = find_images(options.paths)
    if not paths:
        raise ValueError(" ".join(f"{name}: {why}" for name, why in nothing.items()))
    _spare_photographs(options, paths)
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
        print(f"csrnet: {done} are in {options.csv} already", file=sys.stderr)
    again = {*map(spelt, left), *nothing}
    before = [line for line in before if line["image"] not in again]  # of other folders too
    if options.save_maps:
        options.save_maps.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        report = _Report(options, open_table(options.csv, stack, before) if options.csv else None)
        for name, why in nothing.items():
            report.failed(name, why)
        for path, result in _results(counter, left):
            if isinstance(result, ImageError):
                report.failed(path, str(result))
            else:
                report.counted(path, result)
    if report.unread:
        print(f"csrnet: {report.unread}", file=sys.stderr)
    return 1 if report.bad else 0


class _Report:
    """What is said of each picture: a line or an object on stdout, a row of the table, its map.

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
            except ValueError as error:  # it was changed or removed since
                self.failed(path, str(error))
                return
            except MemoryError:
                self.bad += 1
                tqdm.write(f"csrnet: the map of {path}: {NO_MEMORY}", file=sys.stderr)
            except OSError as error:  # the next would fail like this one, which has been counted
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
            self.table(line)


def _say(line: str) -> None:
    if sys.stdout is not None:  # as in a program without a console
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()


def _spare_photographs(options: argparse.Namespace, paths: Sequence[Path]) -> None:
    """Refuse what would write a table or a map over a photograph, such as --csv without a name."""
    if options.csv:
        spare("--csv", options.csv, TABLE)
    maps = options.save_maps
    if not maps:
        return
    # a photograph may be a link, whose folder and whose target's are both to be spared
    holding = {own for path in paths for own in (_real(path).parent, _real(path.parent))}
    if _real(maps) in holding:
        raise ValueError(f"--save-maps {maps} holds the photographs; give a folder for the maps.")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # resolve() raises where links go in a circle


def spare(option: str, path: Path, mark: str) -> None:
    """Refuse to write over a file that holds anything but what an earlier run wrote there.

    Args:
        mark: what files that the option writes begin with.

    Raises:
        ValueError: the file is another, or its name a picture's.
    """
    if path.suffix.lower() in SUFFIXES:
        raise ValueError(f"{option} {path} is a picture's name; give another.")
    if not path.is_file():  # a pipe would wait for its writer
        return
    with path.open("rb") as file:
        start = file.read(len(codecs.BOM_UTF8) + len(mark.encode()))
    if start and not start.removeprefix(codecs.BOM_UTF8).startswith(mark.encode()):
        raise ValueError(
            f"{option} {path} would write over a file that this command did not make: give "
            "another name, or remove it first."
        )


def _results(
    counter: CrowdCounter, paths: Sequence[Path]
) -> Iterator[tuple[Path, CountResult | ImageError]]:
    """Each path and its result; a bar over the pictures, or over the pieces of a single one."""
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
    """What ``--scale`` is given, under the name that argparse tells of a wrong value."""
    return text if text == "auto" else float(text)


def margin(result: CountResult) -> str:
    """The prediction interval in words; nothing where the model has none, or where the picture is
    unlike those that it holds for."""
    if result.interval is None or result.level is None or result.notices:
        return ""
    low, high = result.interval
    return f" ({result.level:.0%} interval {low:.0f} to {high:.0f})"


def row(path: Path, result: CountResult) -> dict[str, Any]:
    """One line of ``--json`` and ``--csv``."""
    return {
        "image": str(path),
        "count": round(result.count, 3),
        "width": result.width,
        "height": result.height,
        "model": result.model,
        "seconds": round(result.seconds, 4),
        "scale": round(result.scale, 4),
        "device": result.device,
        "interval": [round(end, 3) for end in result.interval] if result.interval else None,
        "notices": list(result.notices),
    }


if __name__ == "__main__":
    sys.exit(main())
