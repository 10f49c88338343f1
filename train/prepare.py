"""Annotated photographs to one prepared file: python -m train.prepare PART_FOLDER OUT.h5."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from csrnet_hub.datasets import DatasetError, Sample, read_shanghaitech
from csrnet_hub.density import adaptive_sigma, heads_in_frame
from csrnet_hub.images import ImageError, load_image

FORMAT = 1


def prepare(
    samples: Sequence[Sample], out: Path, sigma: float | None = None, progress: bool = True
) -> dict[str, int]:
    """Write pictures, heads inside the frame and their kernel widths to one HDF5 file.

    Layout: ``images/NAME`` (H, W, 3) uint8; ``heads/NAME`` (N, 2) float32 x, y in pixels;
    ``sigma/NAME`` (N,) float32 in pixels; the attribute ``annotated`` of heads counts all points
    of the annotation, those outside the frame too.

    Args:
        sigma: width of every kernel in pixels; None: geometry-adaptive (section 3.2 of the paper).

    Returns:
        Numbers of images, heads and heads dropped because they lie outside the frame.

    Raises:
        DatasetError: naming the photograph that cannot be read.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    heads_in_all = dropped_in_all = 0
    try:
        with h5py.File(partial, "w") as file:
            file.attrs["format"] = FORMAT
            file.attrs["sigma"] = "adaptive" if sigma is None else float(sigma)
            for sample in tqdm(samples, "prepare", unit="image", disable=not progress):
                try:
                    pixels = load_image(sample.path)
                except ImageError as error:
                    raise DatasetError(f"{sample.path}: {error}") from error
                heads, dropped = heads_in_frame(sample.heads, *pixels.shape[:2])
                widths = adaptive_sigma(heads) if sigma is None else np.full(len(heads), sigma)
                file[f"images/{sample.name}"] = pixels
                file[f"heads/{sample.name}"] = heads.astype(np.float32)
                file[f"heads/{sample.name}"].attrs["annotated"] = len(sample.heads)
                file[f"sigma/{sample.name}"] = widths.astype(np.float32)
                heads_in_all += len(heads)
                dropped_in_all += dropped
        partial.replace(out)  # a file of that name is whole, or not there
    finally:
        partial.unlink(missing_ok=True)
    return {"images": len(samples), "heads": heads_in_all, "dropped": dropped_in_all}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of ``python -m train.prepare``."""
    parser = argparse.ArgumentParser(prog="python -m train.prepare", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of a part, such as ShanghaiTech/part_A")
    parser.add_argument("out", type=Path, help="the HDF5 file to write")
    parser.add_argument("--split", default="train", choices=["train", "test"])
    parser.add_argument(
        "--sigma", type=float, help="fixed kernel width in pixels (15 for part B); else adaptive"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing OUT")
    options = parser.parse_args(argv)
    if options.out.exists() and not options.force:
        parser.error(f"{options.out} exists; give another name, or --force to replace it")
    if options.sigma is not None and not options.sigma > 0:
        parser.error("--sigma must be positive")
    try:
        done = prepare(read_shanghaitech(options.data, options.split), options.out, options.sigma)
    except (DatasetError, OSError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    print("{images} images, {heads} heads ({dropped} outside the frame dropped)".format(**done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
