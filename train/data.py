"""The prepared set: its file, the photographs in memory, and their split."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csrnet_hub.datasets import DatasetError
from csrnet_hub.extras import ExtraError

from . import seen

try:
    import h5py
except ImportError as missing:  # told before a command begins
    sys.exit(f"train: {ExtraError('train', missing)}")

FORMAT = 1  # version of a prepared file


@dataclass(frozen=True)
class Example:
    """A prepared photograph: pixels (H, W, 3) uint8, heads (N, 2) and sigma (N,) in pixels.

    ``count`` is the number of annotated points, against which errors are measured. ``mask`` (H, W)
    is true inside the region of interest, None if that is the whole picture. ``part`` is the source
    folder, where the file was made from several. ``fixed`` says that all kernels were given one
    width, which is kept; otherwise they are geometry-adaptive. ``shrunk_to`` is the number of
    pixels that a larger photograph was shrunk to, else 0. ``scene`` is the scene of a fixed
    camera's frame, else empty.
    """

    name: str
    pixels: NDArray[np.uint8]
    heads: NDArray[np.float64]
    sigma: NDArray[np.float64]
    count: int
    mask: NDArray[np.bool_] | None = None
    part: str = ""
    fixed: bool = False
    shrunk_to: int = 0
    scene: str = ""

    @property
    def own_name(self) -> str:
        """The name in its folder, without the prefix of its part."""
        return self.name.removeprefix(f"{self.part}-") if self.part else self.name


def new_file(path: Path) -> h5py.File:
    """Begin a prepared file, in place of any that is there."""
    file = h5py.File(path, "w")
    file.attrs["format"] = FORMAT
    return file


def write_example(file: h5py.File, example: Example) -> None:
    """Add a photograph to a prepared file.

    Layout: ``images/NAME`` (H, W, 3) uint8; ``heads/NAME`` (N, 2) float32 x, y in pixels;
    ``sigma/NAME`` (N,) float32 in pixels; ``mask/NAME`` (H, W) bool where there is a region of
    interest. Attributes of sigma: ``fixed``; of heads: ``annotated``, which is the count, ``part``,
    ``scene`` and ``shrunk_to``; see `Example`.
    """
    name = example.name
    if example.mask is not None:
        file.create_dataset(f"mask/{name}", data=example.mask, compression="gzip")
    file[f"images/{name}"] = example.pixels
    file[f"heads/{name}"] = example.heads.astype(np.float32)
    file[f"heads/{name}"].attrs["annotated"] = example.count
    file[f"heads/{name}"].attrs["part"] = example.part
    file[f"heads/{name}"].attrs["scene"] = example.scene
    file[f"heads/{name}"].attrs["shrunk_to"] = example.shrunk_to
    file[f"sigma/{name}"] = example.sigma.astype(np.float32)
    file[f"sigma/{name}"].attrs["fixed"] = example.fixed


def load_prepared(path: Path, exclude: Sequence[str] = ()) -> list[Example]:
    """Every photograph of a prepared file except the excluded ones.

    Raises:
        DatasetError: if the file is missing, damaged or not one of ours, no photograph is left, or
            a name to exclude is not in it (a misspelt name would let a leak go unnoticed).
    """
    if not path.is_file():
        raise DatasetError(f"There is no prepared file {path}; make it with train.prepare.")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise DatasetError(f"{path} was not made by this train.prepare; prepare it again.")
            names = list(file["images"])
            if strangers := sorted(set(exclude) - set(names)):
                raise DatasetError(
                    f"{path} has no image {', '.join(strangers)} to exclude: edit exclude in the "
                    "recipe (own.toml is the recipe for photographs of your own)."
                )
            wanted = [name for name in names if name not in set(exclude)]
            if not wanted:
                raise DatasetError(f"Every photograph in {path} is excluded by the recipe.")
            return [_read_example(file, name) for name in wanted]
    except (OSError, KeyError, RuntimeError) as error:
        raise DatasetError(f"{path} cannot be read as a prepared file: {error}.") from error


def _read_example(file: h5py.File, name: str) -> Example:
    heads = file[f"heads/{name}"]
    return Example(
        name=name,
        pixels=file[f"images/{name}"][()],
        heads=heads[()].astype(np.float64),
        sigma=file[f"sigma/{name}"][()].astype(np.float64),
        count=int(heads.attrs["annotated"]),
        mask=file[f"mask/{name}"][()].astype(bool) if f"mask/{name}" in file else None,
        part=str(heads.attrs.get("part", "")),
        fixed=bool(file[f"sigma/{name}"].attrs.get("fixed", False)),
        shrunk_to=int(heads.attrs.get("shrunk_to", 0)),
        scene=str(heads.attrs.get("scene", "")),
    )


def fingerprint(examples: Sequence[Example]) -> str:
    """Sixteen letters and digits that identify a set of photographs with its ground truth."""
    lines = [f"{one.name} {one.count} {_truth(one)}" for one in examples]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def _truth(one: Example) -> str:
    inside = b"" if one.mask is None else one.mask.tobytes()
    drawn = hashlib.sha256(one.heads.tobytes() + one.sigma.tobytes() + inside).hexdigest()
    scene = f" {one.scene}" if one.scene else ""
    return f"{one.pixels.shape} {one.fixed} {drawn}{scene}"


def digest(example: Example) -> str:
    """A photograph's identity, whatever its name: `train.seen.digest`."""
    height, width = example.pixels.shape[:2]
    return seen.digest(height, width, example.heads, example.own_name)


def split(
    examples: Sequence[Example], validation: int, seed: int, train_only: Sequence[str] = ()
) -> tuple[list[Example], list[Example]]:
    """Training and validation sets: one validation image is drawn from each of ``validation``
    equal strata by count; as many from each part where a file has several.

    Where a part has scenes of fixed cameras, whole scenes are held out: the frame with the median
    count represents its scene, and a drawn scene's other frames are in neither set.

    Args:
        train_only: names never drawn for validation (near-duplicates of each other).

    Raises:
        DatasetError: if there are too few images or scenes.
    """
    held_out: set[str] = set()
    kept_out: set[str] = set()  # including all that look like them
    for part in sorted({example.part for example in examples}):
        scenes = _scenes([one for one in examples if one.part == part])
        able = [scene for scene in scenes if not {one.name for one in scene} & set(train_only)]
        ranked = sorted(able, key=lambda scene: _rank(_middle(scene)))
        if not 0 < validation < len(ranked):
            where = f" of {part}" if part else ""
            kind = "scenes" if any(len(scene) > 1 for scene in scenes) else "images"
            if len(ranked) < 2:
                raise DatasetError(
                    f"There are too few {kind}{where}: at least two are needed besides those in "
                    "train_only, one to train on and one to validate on."
                )
            some = f"{len(ranked)} scenes" if kind == "scenes" else len(ranked)
            raise DatasetError(
                f"{validation} validation images cannot be drawn from {some}{where}: lower "
                "validation in the recipe (at least 1)."
            )
        rng = np.random.default_rng(seed)
        strata = np.array_split(np.arange(len(ranked)), validation)
        drawn = [ranked[rng.choice(stratum)] for stratum in strata]
        held_out |= {_middle(scene).name for scene in drawn}
        kept_out |= {one.name for scene in drawn for one in scene}
    return (
        [example for example in examples if example.name not in kept_out],
        [example for example in examples if example.name in held_out],
    )


def _scenes(part: Sequence[Example]) -> list[list[Example]]:
    """The frames by scene; photographs, and frames where all are of one scene, stand alone."""
    if len({one.scene for one in part} - {""}) < 2:
        return [[one] for one in part]
    scenes: dict[tuple[str, str], list[Example]] = {}
    for one in part:
        scenes.setdefault((one.scene, "" if one.scene else one.name), []).append(one)
    return list(scenes.values())


def _middle(scene: Sequence[Example]) -> Example:
    return sorted(scene, key=_rank)[len(scene) // 2]


def _rank(example: Example) -> tuple[int, str]:
    return example.count, example.name
