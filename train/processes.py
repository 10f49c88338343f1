"""The processes of a run, one per GPU, and the folder they hold exclusively."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist

from csrnet_hub import paths
from csrnet_hub.devices import pick_device

from .state import TrainingError

PATIENCE = timedelta(hours=6)  # the others wait while the first validates; default ten minutes


def place() -> tuple[int, int]:
    """The rank of this process, and the number of processes."""
    together = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if together else (0, 1)


@contextmanager
def own_device(device: str) -> Iterator[torch.device]:
    """The device of this process; under torchrun, also joins the process group."""
    together = _together()
    gpus = together and torch.cuda.is_available()
    if gpus and device.partition(":")[0] in ("auto", "cuda"):
        device = f"cuda:{os.environ['LOCAL_RANK']}"  # its own, never the CPU instead
    own = pick_device(device)
    if together and own.type == "cuda":
        torch.cuda.set_device(own)
        dist.init_process_group("nccl", device_id=own, timeout=PATIENCE)
    elif together:
        dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield own
    finally:
        if together:
            dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process. One of several skips Python's finalisation, during which gloo's threads
    sometimes abort it (pytorch/pytorch#190489)."""
    if _together():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _together() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Make a folder and keep other runs out of it for the life of this process; a run that wrote
    nothing leaves no folder."""
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    taken = TrainingError(f"another run is writing to {out}: give another --out")
    try:
        with paths.alone(out, taken):
            yield
    finally:
        if made and not any(out.iterdir()):
            out.rmdir()
