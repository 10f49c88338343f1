"""The command line: csrnet count PATHS..., csrnet convert OLD NEW_FOLDER, csrnet data check,
csrnet export MODEL OUT."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import __version__, count_command
from .devices import out_of_memory
from .hub import one_line
from .images import hide_library_warnings
from .model import DILATIONS, CSRNet
from .model_files import ModelError
from .named import named_path, quoted

OURS = ("csrnet_hub", "train")  # folders of the code that the commands run
CLOSE_OTHERS = "close other programs first"  # advice where memory ran out


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``csrnet``; returns the exit code."""
    options = _parser().parse_args(argv)
    hide_library_warnings()
    return exit_code("csrnet", lambda: options.run(options), failed=2, memory=options.memory)


def exit_code(
    program: str,
    work: Callable[[], int],
    *,
    errors: tuple[type[Exception], ...] = (),
    failed: int = 1,
    memory: str = CLOSE_OTHERS,
    stopped: Callable[[], str] = str,
) -> int:
    """Run a program's work and return its exit code, after a line on stderr if it failed.

    Args:
        errors: the program's own errors, each with a sentence, besides ValueError, OSError and
            ModelError.
        failed: exit code after one of these, or after memory ran out.
        memory: advice for when memory ran out.
        stopped: describes what Ctrl+C has left behind.
    """
    open_streams()
    print_any_name()
    expected: tuple[type[Exception], ...] = (ValueError, OSError, ModelError, *errors)
    try:
        with _plain_warnings(program):
            return work()
    except BrokenPipeError:  # the reader of our output has enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell reports a process ended by SIGPIPE
    except expected as error:
        lines, code = [str(error) or type(error).__name__], failed
        if isinstance(error, OSError) and error.filename:
            lines = [f"{error.filename}: {error.strerror}"]
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        lines, code = [one_line(error), f"memory ran out: {memory}"], failed
    except KeyboardInterrupt:
        lines, code = ["; ".join(filter(None, ["stopped", stopped()]))], 130
    for line in lines:
        print(f"{program}: {line}", file=sys.stderr)
    return code


def open_streams() -> None:
    """Let a program without a console, which has neither stream, print anyway."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


def print_any_name() -> None:
    """Let the program print any file name, with ``\\xe9`` for what the terminal cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _plain_warnings(program: str) -> Iterator[None]:
    """Print our own warnings as a program's lines, without the place in the code."""

    def plain(message: Any, category: Any, filename: str, *rest: Any, **named: Any) -> str:
        if Path(filename).parent.name in OURS:
            return f"{program}: {message}\n"
        return in_code(message, category, filename, *rest, **named)

    in_code, warnings.formatwarning = warnings.formatwarning, plain
    try:
        yield
    finally:
        warnings.formatwarning = in_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="csrnet", description="Count people in photographs.")
    parser.set_defaults(memory=CLOSE_OTHERS)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    count = commands.add_parser("count", help="count the people in photographs")
    count_command.add_options(count)
    count.set_defaults(run=count_command.run, memory="on a GPU, use --device cpu")

    convert = commands.add_parser(
        "convert", help="turn a checkpoint of other code into a model folder"
    )
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
        help="back end of the paper (default: B)",
    )
    convert.add_argument(
        "--density-scale",
        type=float,
        help="factor by which the output exceeds heads per cell (default: the file's, or 1)",
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
        help="quantise OUT.xml to int8, calibrated on these: a folder, or a file of train.prepare",
    )
    export.set_defaults(run=_export)

    data = commands.add_parser("data", help="work with annotated photographs")
    checks = data.add_subparsers(required=True, metavar="COMMAND")
    check = checks.add_parser(
        "check", help="report what a data set holds and what is wrong with it"
    )
    check.add_argument(
        "folder", type=named_path, help="folder of a data set, or an annotation file"
    )
    check.add_argument(
        "--format", metavar="NAME", help="shanghaitech, csv, coco, ... (default: guessed)"
    )
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.add_argument(
        "--plot", type=named_path, metavar="PNG", help="plot histograms of sizes and counts"
    )
    check.set_defaults(run=_data_check)
    return parser


def _data_check(options: argparse.Namespace) -> int:
    from .datasets.check import as_text, check, save_histograms

    if plot := options.plot:  # before anything is read
        if plot.suffix.lower() != ".png" or plot.exists():
            raise ValueError(f"--plot {plot}: give the name of a new file ending in .png.")
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
    compared = f"{COMPARED} crops of the photographs" if options.int8 else "a test picture"
    print(f"{options.out} is ready: it counts {theirs:.3f} heads in {compared}, torch {ours:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
