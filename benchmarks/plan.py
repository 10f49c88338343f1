"""What is measured, on what, and whether memory suffices."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from train.data import Example

from .reference import BYTES_A_PIXEL

LARGE = 2**24  # pixels
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is measured, and on what.

    Attributes:
        model: folder or Hub id.
        device: device of the network.
        sizes: width and height of the drawn photographs in pixels.
        rounds: number of rounds in which all ways take turns, at up to a megapixel.
        held_out: photographs whose counts are compared; none: not measured.
        int8: a file from `csrnet export --int8`; None: not measured.
        photos: number of photographs that one process counts in a row.
    """

    model: str
    device: torch.device
    sizes: Sequence[tuple[int, int]]
    rounds: int = 5
    held_out: Sequence[Example] = ()
    int8: Path | None = None
    photos: int = 1000
    say: Callable[[str], None] = print


def fits(plan: Plan, pixels: int) -> bool:
    """Whether memory suffices for the reference, which processes a picture whole."""
    if pixels * BYTES_A_PIXEL < memory_free(plan.device) * 0.8:
        return True
    needed = f"{pixels * BYTES_A_PIXEL / 1e9:.0f} GB"
    plan.say(f"{pixels:,} pixels: skipping the reference, which would need {needed}")
    return False


def memory_free(device: torch.device) -> int:
    """Bytes available on a device without paging."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    for line in meminfo.read_text().splitlines() if meminfo.exists() else []:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
