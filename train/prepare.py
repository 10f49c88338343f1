"""Put annotated photographs into one prepared file: python -m train.prepare FOLDER ... OUT.h5."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from csrnet_hub.ahead import read_ahead
from csrnet_hub.cli import exit_code
from csrnet_hub.datasets import DatasetError, Sample
from csrnet_hub.density import adaptive_sigma, heads_in_frame
from csrnet_hub.devices import NO_MEMORY
from csrnet_hub.images import ImageError, load_image
from csrnet_hub.named import named_path
from csrnet_hub.paths import alone
from csrnet_hub.scale import MEGAPIXEL, resized, shrinking

from .data import Example, new_file, write_example
from .gather import Gathered, Sigma, gather

READERS = min(os.cpu_count() or 1, 8)  # the single writer could not keep up with more
SHOWN = 20  # names of pictures listed


def prepare(
    samples: Sequence[Sample],
    out: Path,
    sigma: Sigma | Mapping[str, Sigma] = None,
    bad: list[DatasetError] | None = None,
    max_pixels: int = MEGAPIXEL,
) -> dict[str, Any]:
    """Write pictures, heads and their kernel widths to one HDF5 file (`train.data.write_example`).
    Heads outside the frame are counted but not kept; those outside a region of interest, neither.

    Args:
        sigma: width of every kernel in pixels; None: geometry-adaptive (section 3.2 of the paper);
            or a mapping with one of these for each photograph's name.
        bad: a list that collects the errors of unreadable photographs while the others are written;
            None: the first error is raised.
        max_pixels: a clearly larger photograph is shrunk to about this many pixels, with its heads,
            kernels and mask, as for counting (`csrnet_hub.scale.shrinking`); 0: never.

    Returns:
        Numbers of images, heads, heads dropped because they lie outside the frame, and images
        shrunk; ``dropped_in``, the names of images with dropped heads; and ``nobody_in``, the names
        of those without annotated heads.

    Raises:
        DatasetError: naming an unreadable photograph, or a name that two photographs share.
    """
    twice = [name for name, times in Counter(one.name for one in samples).items() if times > 1]
    if twice:
        raise DatasetError(f"Two photographs are named {twice[0]}; rename one, or its folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    done: dict[str, Any] = {"images": 0, "heads": 0, "dropped": 0, "shrunk": 0, "dropped_in": []}
    done["nobody_in"] = []
    said = f"Another train.prepare is writing {out}: wait, or give another name."
    with alone(out, DatasetError(said)):  # HDF5's own lock would come too late: it empties the file
        try:
            reading = read_ahead(functools.partial(_read, sigma, max_pixels), samples, READERS)
            # Stop the readers before the file closes, not when they are garbage-collected.
            with new_file(partial) as file, closing(reading):
                bar = tqdm(reading, "prepare", len(samples), unit="image", disable=None)
                for one in bar:
                    try:
                        read = one.result()
                        write_example(file, read)
                    except DatasetError as error:
                        if bad is None:
                            raise
                        bad.append(DatasetError(str(error)))  # new: its traceback holds no pixels
                        continue
                    _tell(done, read)
            if not done["images"]:
                raise DatasetError("No photograph could be read; nothing was written.")
            partial.replace(out)  # a file of that name is complete or absent
        except RuntimeError as error:  # HDF5 raises it if the disk is full on closing
            raise DatasetError(f"{out} could not be written: {error}") from error
        finally:
            partial.unlink(missing_ok=True)
    return done


def _tell(done: dict[str, Any], read: Example) -> None:
    dropped = read.count - len(read.heads)
    done["images"] += 1
    done["heads"] += len(read.heads)
    done["dropped"] += dropped
    done["shrunk"] += read.shrunk_to > 0
    done["dropped_in"] += [read.name] if dropped else []
    done["nobody_in"] += [] if read.count else [read.name]


def _read(sigma: Sigma | Mapping[str, Sigma], max_pixels: int, sample: Sample) -> Example:
    try:
        sample.name.encode()
    except UnicodeEncodeError as error:  # HDF5 cannot store the name
        raise DatasetError(
            f"{sample.path}: its name is not valid UTF-8; rename the file."
        ) from error
    try:
        return _as_stored(sigma, max_pixels, sample)
    except ImageError as error:
        raise DatasetError(f"{sample.path}: {error}") from error
    except MemoryError as error:
        raise DatasetError(f"{sample.path}: {NO_MEMORY}") from error


def _as_stored(sigma: Sigma | Mapping[str, Sigma], max_pixels: int, sample: Sample) -> Example:
    pixels = load_image(sample.path)
    size = pixels.shape[:2]
    counted = sample.counted(*size)
    heads, _ = heads_in_frame(counted, *size)
    width = sigma[sample.name] if isinstance(sigma, Mapping) else sigma
    mask = None if sample.mask is None else sample.mask(*size)
    scale = shrinking(size[0], size[1], max_pixels) if max_pixels else 1.0
    if scale < 1:
        pixels = resized(pixels, scale)
        width = None if width is None else width * scale
        heads = heads * (np.array(pixels.shape[1::-1]) / size[::-1])
        heads = heads_in_frame(heads, *pixels.shape[:2])[0]  # rounding may put one on the edge
        mask = None if mask is None else _resized_mask(mask, pixels.shape[:2])
    return Example(
        sample.name,
        pixels,
        heads,
        adaptive_sigma(heads) if width is None else np.full(len(heads), width),
        count=len(counted),
        mask=mask,
        part=sample.part,
        fixed=width is not None,
        shrunk_to=max_pixels if scale < 1 else 0,
        scene=sample.scene,
    )


def _resized_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    picture = Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST)
    return np.asarray(picture)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of ``python -m train.prepare``."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.out.is_dir():
        parser.error(f"{options.out} is a folder; the last argument must be the file to write")
    if options.out.exists() and not options.force:
        parser.error(f"{options.out} exists; give another name, or --force to replace it")
    if options.out.is_file() and not _is_hdf5(options.out):  # such as the last of the inputs
        parser.error(
            f"{options.out} is no prepared file; the last argument must be the file to write"
        )
    work = functools.partial(_prepare, options)
    return exit_code("prepare", work, stopped=lambda: "nothing was written")


def _is_hdf5(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return not (start := file.read(8)) or start == b"\x89HDF\r\n\x1a\n"
    return False


def _prepare(options: argparse.Namespace) -> int:
    bad: list[DatasetError] | None = [] if options.skip_bad else None
    try:
        wanted = options.sigma or ["paper"]
        found = gather(options.data, options.format, options.split, bad, wanted)
        done = prepare(
            found.samples, options.out, found.sigmas, bad=bad, max_pixels=options.max_pixels
        )
    finally:
        for trouble in bad or ():
            print(f"prepare: left out: {trouble}", file=sys.stderr)
    told = "{images} images, {heads} heads ({dropped} outside the frame were dropped)"
    print(told.format(**done))
    if done["shrunk"]:
        print("prepare: {shrunk} images above --max-pixels were shrunk".format(**done))
    _warn(found, done)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.prepare", description=__doc__)
    add: Callable[..., Any] = parser.add_argument
    add("data", type=named_path, nargs="+", help="folders, such as ShanghaiTech/part_A (or files)")
    add("out", type=named_path, help="the HDF5 file to write")
    add("--format", metavar="NAME", help="shanghaitech, csv, coco, ... (default: guessed)")
    add("--split", help="default: train, or all if the data has no splits")
    add(
        "--sigma",
        type=_sigma,
        action="append",
        help="kernel width in pixels, 'adaptive', or 'paper' (default): the paper's width for this "
        "data set; once for all folders, or once for each, in their order",
    )
    add(
        "--max-pixels",
        type=_pixels,
        default=MEGAPIXEL,
        metavar="N",
        help="shrink photographs well above N pixels to about N (panoramas are scaled as their "
        "16:9 middle); default: 1048576, 0: never",
    )
    add("--skip-bad", action="store_true", help="leave out files that cannot be read")
    add("--force", action="store_true", help="replace an existing prepared file OUT")
    return parser


def _warn(found: Gathered, done: Mapping[str, Any]) -> None:
    for what, names in (
        ("left out, because no annotation of this format mentions them", found.unlisted),
        (
            "no annotated heads, so treated as containing no people (leave out any not annotated "
            "yet)",
            done["nobody_in"],
        ),
        ("heads outside the frame", done["dropped_in"]),
    ):
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        if names:
            print(f"prepare: {what}: {', '.join(names[:SHOWN])}{more}", file=sys.stderr)
    if found.alike:
        print(
            f"prepare: {', '.join(found.alike)}: frames of one camera look alike, so the errors on "
            "those that train.fit holds out will be far too small; measure on another split",
            file=sys.stderr,
        )


def _sigma(text: str) -> float | str | None:
    if text in ("adaptive", "paper"):
        return None if text == "adaptive" else text
    try:
        width = float(text)
    except ValueError:
        width = 0.0
    if not 0.01 <= width <= 1e5:
        raise argparse.ArgumentTypeError("must be 0.01 to 100000 pixels, 'adaptive' or 'paper'")
    return width


def _pixels(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("must be a whole number of pixels, or 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
