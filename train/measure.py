"""Errors of a model on photographs: one row each, and summary figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from csrnet_hub.counting import CrowdCounter
from csrnet_hub.datasets import DatasetError, Sample
from csrnet_hub.density import density_map, heads_in_frame
from csrnet_hub.devices import NO_MEMORY, out_of_memory
from csrnet_hub.images import ImageError
from csrnet_hub.metrics import (
    counting_errors,
    errors_by_range,
    game,
    mae_interval,
    map_likeness,
)
from csrnet_hub.model import STRIDE

from .report import WORST, Worst
from .seen import Seen

LEVELS = (1, 2, 3)  # GAME levels; level 0 is the counting error
FIRST = ("image", "heads", "count", "error", "scale")  # first keys of every row, in order
Row = dict[str, Any]


def evaluate(
    counter: CrowdCounter,
    samples: Sequence[Sample],
    likeness: bool = False,
    sigma: float | None = None,
    bad: list[DatasetError] | None = None,
    worst: list[Worst] | None = None,
    seen: Seen | None = None,
) -> list[Row]:
    """One row per photograph: ``image``, ``heads`` (annotated points), ``count``, ``error``,
    ``scale`` (factor on its sides at which it was counted), ``game1`` to ``game3``; ``low`` and
    ``high`` where the model gives an interval; ``psnr`` (None for equal maps) and ``ssim`` (None
    for tiny pictures) if requested; ``seen`` where the model's training photographs are known.

    With a region of interest, only heads and density inside it count.

    Args:
        likeness: whether to compute PSNR and SSIM.
        sigma: kernel width of the true maps for these, in pixels; None: geometry-adaptive.
        bad: a list that collects errors of unreadable photographs while the others are counted;
            None: raise.
        worst: a list to fill with the photographs of the largest errors and their maps.
        seen: the photographs that the model was trained on.

    Raises:
        DatasetError: naming an unreadable photograph.
    """
    rows = []
    for sample in tqdm(samples, "evaluate", unit="image"):
        try:
            row, density = _evaluate_one(counter, sample, likeness, sigma, seen)
        except (ImageError, DatasetError, MemoryError, RuntimeError) as error:
            named = DatasetError(f"{sample.path}: {_trouble(error)}")
            if bad is None:
                raise named from error
            bad.append(named)
            continue
        rows.append(row)
        if worst is not None:
            worst.append(Worst(row, sample.path, density))
            worst.sort(key=lambda one: -abs(one.row["error"]))
            del worst[WORST:]
    return rows


def _trouble(error: Exception) -> str:
    """What is wrong with a photograph; re-raises anything but its own errors and out-of-memory."""
    if isinstance(error, (ImageError, DatasetError)):
        return str(error)
    if not out_of_memory(error):
        raise error
    return NO_MEMORY


def _evaluate_one(
    counter: CrowdCounter,
    sample: Sample,
    likeness: bool,
    sigma: float | None,
    seen: Seen | None,
) -> tuple[Row, NDArray[np.float32]]:
    result = counter.count(sample.path)
    size = (result.height, result.width)
    density, count = result.density, result.count
    heads = sample.counted(*size)
    if sample.mask is not None:
        density, count = inside_mask(density, sample.mask(*size))
    row: Row = {
        "image": sample.name,
        "heads": len(heads),
        "count": count,
        "error": count - len(heads),
        "scale": result.scale,
    }
    row |= {f"game{level}": game(density, heads, *size, level) for level in LEVELS}
    if result.interval is not None and sample.mask is None:
        row["low"], row["high"] = result.interval
    if likeness:
        row |= {"psnr": None, "ssim": None}
        if min(size) >= 11:  # the window of SSIM
            inside, _ = heads_in_frame(heads, *size)
            truth = density_map(inside, *size, sigma)
            if sample.mask is not None:
                truth = truth * sample.mask(*size)
            signal, row["ssim"] = map_likeness(density, truth)
            row["psnr"] = signal if math.isfinite(signal) else None
    if seen:
        row["seen"] = seen.has(*size, heads, sample.name)
    return row, density


def inside_mask(
    density: NDArray[np.float32], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], float]:
    """The part of a map inside a mask (H, W) of the picture, and its sum."""
    inside = density * mask_shares(mask)
    return inside, float(inside.sum(dtype=np.float64))


def mask_shares(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Share of each cell's pixels inside a mask (H, W): (ceil(H / 8), ceil(W / 8))."""
    pixels = torch.from_numpy(mask.astype(np.float32))[None]  # (1, H, W)
    shares: NDArray[np.float32] = avg_pool2d(pixels, STRIDE, ceil_mode=True)[0].numpy()
    return shares


def summary(rows: Sequence[Row], samples: Sequence[Sample] = ()) -> dict[str, Any]:
    """Summarise the rows: the figures of `counting_errors`; ``mae_interval`` (95 %, bootstrap);
    ``ranges`` of the number of heads; ``game`` by level; ``psnr``, ``ssim``, ``interval_coverage``
    (share of intervals that contain the number of heads) and ``interval_width`` (mean of width /
    count, for counts over 1) where rows have them; ``seen``, the number of photographs that the
    model was trained on, if known; ``groups`` where samples have them."""
    counts, heads = ([row[key] for row in rows] for key in ("count", "heads"))
    errors: dict[str, Any] = dict(counting_errors(counts, heads))
    errors["mae_interval"] = mae_interval(counts, heads)
    errors["game"] = {"0": errors["mae"]}
    errors["game"] |= {str(n): _mean([row[f"game{n}"] for row in rows]) for n in LEVELS}
    for key in ("psnr", "ssim"):
        if any(key in row for row in rows):
            errors[key] = _mean([row[key] for row in rows if row[key] is not None])
    if known := [row for row in rows if "low" in row]:
        held = [row["low"] <= row["heads"] <= row["high"] for row in known]
        wide = [(row["high"] - row["low"]) / row["count"] for row in known if row["count"] > 1]
        errors["interval_coverage"], errors["interval_width"] = _mean(held), _mean(wide)
    if known := [row["seen"] for row in rows if "seen" in row]:
        errors["seen"] = sum(known)
    errors["ranges"] = errors_by_range(counts, heads)
    group = {sample.name: sample.group for sample in samples if sample.group}
    if group:
        of_group: dict[str, list[Row]] = {}
        for row in rows:
            of_group.setdefault(group.get(row["image"], ""), []).append(row)
        errors["groups"] = {
            name: counting_errors([r["count"] for r in part], [r["heads"] for r in part])
            for name, part in of_group.items()
        }
    return errors


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
