"""The photographs of several folders as one set, and warnings before training on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from csrnet_hub.datasets import DatasetError, Sample, paper_sigma, pick_split, read_dataset
from csrnet_hub.datasets.check import not_annotated
from csrnet_hub.datasets.registry import Format, find_format

Sigma: TypeAlias = float | None  # kernel width in pixels; None: geometry-adaptive


class Gathered(NamedTuple):
    """The result of `gather`.

    Attributes:
        samples: the samples of all folders.
        sigmas: the kernel width by sample name.
        unlisted: the photographs in the folders that no annotation lists.
        alike: the folders whose held-out images look like training images.
    """

    samples: list[Sample]
    sigmas: dict[str, Sigma]
    unlisted: list[str]
    alike: list[str]


def gather(
    folders: Sequence[Path],
    format: str | None = None,
    split: str | None = None,
    bad: list[DatasetError] | None = None,
    wanted: Sequence[Sigma | Literal["paper"]] = ("paper",),
) -> Gathered:
    """The samples of several folders as one set.

    With several folders, each name is prefixed with its folder's: part_A-IMG_1; where two folders
    share a name, also with that of the parent folder: 2024-photos-IMG_1.

    Args:
        format: the format of all folders; None: guessed for each.
        split: None: train, or everything in a folder that is not split.
        wanted: kernel widths in pixels, one for all folders or one each; None: geometry-adaptive;
            ``"paper"``: the width that the CSRNet paper uses for the data set.

    Raises:
        DatasetError: if a folder is unreadable or given twice, or the number of widths is wrong.
    """
    if len(wanted) not in (1, len(folders)):
        raise DatasetError(
            f"{len(wanted)} kernel widths for {len(folders)} folders: give one for each"
        )
    found = Gathered([], {}, [], [])
    each = list(wanted) * (len(folders) // len(wanted))
    for folder, part, asked in zip(folders, _parts(folders), each):
        chosen = split or pick_split(folder, "train", format)
        sigma = paper_sigma(folder, format) if asked == "paper" else asked
        for sample in read_dataset(folder, format, chosen, bad):
            name = f"{part}-{sample.name}" if part else sample.name
            found.samples.append(replace(sample, name=name, part=part))
            found.sigmas[name] = sigma
        if folder.is_dir():
            names = not_annotated(folder, format)
            found.unlisted.extend(f"{part}/{name}" if part else name for name in names)
            if _alike(find_format(folder, format)[1], found.samples, part):
                found.alike.append(part or folder.resolve().name)
    return found


def _parts(folders: Sequence[Path]) -> list[str]:
    """The prefix that distinguishes each folder's photographs."""
    if len(folders) == 1:
        return [""]
    paths = [folder.resolve() for folder in folders]
    names = Counter(path.name for path in paths)
    parts = [
        path.name if names[path.name] == 1 else f"{path.parent.name}-{path.name}" for path in paths
    ]
    (part, times), *_ = Counter(parts).most_common(1)
    if times > 1:
        raise DatasetError(
            f"{times} of the folders would have the name {part}, so their photographs could not be "
            "told apart: give each folder once, or rename one."
        )
    return parts


def _alike(kind: Format, samples: Sequence[Sample], part: str) -> bool:
    scenes = {sample.scene for sample in samples if sample.part == part and sample.scene}
    return kind.video and (kind.one_camera or len(scenes) < 2)
