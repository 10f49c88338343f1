"""The errors of a run's model on the held-out pictures."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm

from csrnet_hub.counting import CrowdCounter
from csrnet_hub.intervals import PredictionInterval
from csrnet_hub.metrics import counting_errors, errors_by_range

from .data import Example
from .measure import inside_mask
from .state import State


def validate(state: State, examples: Sequence[Example], device: torch.device) -> dict[str, Any]:
    """Errors of the averaged model, as it would be saved, against the numbers of annotated points,
    and ``counts``, each picture's number of heads and count.

    Pictures are counted whole, as a user would. The prediction interval is calibrated on the same
    errors, wide enough for each part of the set, and kept with the model. Errors inside a region of
    interest are excluded from it, since it applies to counts of whole pictures.
    """
    torch.backends.cudnn.benchmark = False  # whole pictures have many sizes
    model = copy.deepcopy(state.average).half().float()
    counter = CrowdCounter(model, device)
    bar = tqdm(examples, "validate", unit="image", leave=False)
    counts = [_count(counter, example) for example in bar]
    heads = [example.count for example in examples]
    errors = {**counting_errors(counts, heads), "ranges": errors_by_range(counts, heads)}
    parts = [example.part for example in examples]
    if len(set(parts)) > 1:
        errors["parts"] = {
            part: _errors_of(part, parts, counts, heads) for part in sorted(set(parts))
        }
    state.average.metrics = {"validation": errors}
    whole = [index for index, example in enumerate(examples) if example.mask is None]
    try:
        state.average.interval = PredictionInterval.calibrate(
            [counts[index] for index in whole],
            [heads[index] for index in whole],
            groups=[parts[index] for index in whole],
        )
    except ValueError:  # too few pictures
        state.average.interval = None
    each = zip(examples, heads, counts)
    return {**errors, "counts": {example.name: [true, count] for example, true, count in each}}


def _errors_of(
    part: str, parts: Sequence[str], counts: Sequence[float], heads: Sequence[int]
) -> dict[str, float | None]:
    chosen = [index for index, name in enumerate(parts) if name == part]
    return counting_errors([counts[k] for k in chosen], [heads[k] for k in chosen])


def _count(counter: CrowdCounter, example: Example) -> float:
    result = counter.count(example.pixels)
    if example.mask is None:
        return result.count
    return inside_mask(result.density, example.mask)[1]
