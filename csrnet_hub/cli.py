"""The command line: csrnet count PATHS..., csrnet convert OLD NEW_FOLDER, csrnet data check,
csrnet export MODEL OUT."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__, count_command
from .devices import out_of_memory
from .images import hide_library_warnings
from .model import DILATIONS, CSRNet
from .model_files import ModelError
from .named import named_path, quoted


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``csrnet``; returns the exit code."""
    options = _parser().parse_args(argv)
    hide_library_warnings()
    open_streams()
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


def open_streams() -> None:
    """Let a program without a console, which has neither stream, print all the same."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


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
    count_command.add_options(count)
    count.set_defaults(run=count_command.run)

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


if __name__ == "__main__":
    sys.exit(main())
