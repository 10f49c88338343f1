"""How fast training is: python -m benchmarks.training --device cuda.

Measures crops per second over whole training steps (crops, forward, loss, backward, optimiser,
average), and the share of the device's rate of matrix products that this reaches. That rate is the
best of several products of large square matrices in the precision of training, in the same process;
the operations of the network's forward and backward pass are counted by torch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from csrnet_hub.cli import exit_code
from csrnet_hub.devices import fast_bfloat16, name_device, pick_device
from csrnet_hub.model import CSRNet
from train.crops import Crops
from train.data import Example
from train.recipe import CHOICES, Recipe, read_recipe
from train.state import begin
from train.step import Captured, train_step

RECIPE = Path(__file__).parents[1] / "train" / "recipes" / "partA_gpu.toml"
WAYS: dict[str, Callable[[CSRNet], Any]] = {
    "eager": lambda model: model,
    "captured": Captured,
    "compiled": torch.compile,
}
PICTURES, SIDES, HEADS = 32, (768, 1024), 500  # about as in ShanghaiTech part A


def measure(
    recipe: Recipe,
    device: torch.device,
    steps: int,
    warmup: int,
    way: str = "eager",
    matrix: int = 8192,
) -> dict[str, Any]:
    """Time training steps on drawn photographs that are resident on the device.

    Args:
        steps, warmup: numbers of timed steps, and of untimed steps before.
        way: how the network is run, one of `WAYS`.
        matrix: side of the square matrices whose product gives the device's rate.

    Raises:
        ValueError: for a captured network on a CPU.

    Returns:
        ``crops_per_second``, ``step_seconds`` (the median), ``flops_per_crop``, ``matrix_flops``
        (per second), ``share_of_matrix_rate``, ``crops_seconds`` (to make a batch alone),
        ``memory`` (peak bytes, on a GPU), and what was measured.
    """
    if way == "captured" and device.type != "cuda":
        raise ValueError("only a GPU runs a captured network")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    torch.manual_seed(0)
    torch.set_flush_denormal(True)  # as training does
    model = CSRNet(recipe.variant, density_scale=recipe.density_scale)
    state = begin(recipe, model, {}, device)
    crops = Crops(pictures(), recipe, device)
    net = WAYS[way](state.model)

    def step() -> None:
        train_step(state, recipe, crops, net)

    seconds = timed(step, device, steps, warmup)
    alone = timed(lambda: crops.at(state.step), device, steps, 1)
    rate, precision = matrix_rate(device, matrix)
    per_second = recipe.batch / statistics.median(seconds)
    flops = flops_per_crop(recipe)
    found = {
        "device": name_device(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": precision,
        "loss": recipe.loss,
        "batch": recipe.batch,
        "crop": recipe.crop,
        "network": way,
        "steps": steps,
        "step_seconds": statistics.median(seconds),
        "crops_seconds": statistics.median(alone),
        "crops_per_second": per_second,
        "flops_per_crop": flops,
        "matrix_flops": rate,
        "share_of_matrix_rate": flops * per_second / rate,
    }
    if device.type == "cuda":
        found["memory"] = torch.cuda.max_memory_allocated(device)
    return found


def pictures() -> list[Example]:
    """Noise pictures with heads at random positions."""
    rng = np.random.default_rng(0)
    drawn = []
    for number in range(PICTURES):
        pixels = rng.integers(0, 256, (*SIDES, 3), dtype=np.uint8)
        heads = rng.random((HEADS, 2)) * SIDES[::-1]
        drawn.append(Example(f"{number}", pixels, heads, np.full(HEADS, 4.0), HEADS))
    return drawn


def timed(call: Callable[[], object], device: torch.device, times: int, warmup: int) -> list[float]:
    """Seconds of each call; with CUDA, of the work alone, by events, without waits in between."""
    for _ in range(warmup):
        call()
    if device.type != "cuda":
        wait = torch.mps.synchronize if device.type == "mps" else lambda: None
        wait()
        ends = [time.perf_counter()]
        for _ in range(times):
            call()
            wait()
            ends.append(time.perf_counter())
        return [after - before for before, after in pairwise(ends)]
    torch.cuda.synchronize(device)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]
    events[0].record()
    for event in events[1:]:
        call()
        event.record()
    torch.cuda.synchronize(device)
    return [a.elapsed_time(b) / 1000 for a, b in pairwise(events)]


def flops_per_crop(recipe: Recipe) -> int:
    """Floating-point operations of the network's forward and backward pass on one crop, without
    those for frozen layers; a multiply-add counts as two."""
    with torch.device("meta"):
        model = CSRNet(recipe.variant)
        model.frontend[: recipe.frozen_layers].requires_grad_(False)
        x = torch.empty(1, 3, recipe.crop, recipe.crop)
        with FlopCounterMode(display=False) as counter:
            model(x).sum().backward()
    return int(counter.get_total_flops())


def matrix_rate(
    device: torch.device, side: int, kind: torch.dtype | None = None
) -> tuple[float, str]:
    """The best rate of square matrix products, in operations per second, and its precision: unless
    given, bfloat16 where that is faster on the device (training then uses it), else float32."""
    if kind is None:
        kind = torch.bfloat16 if fast_bfloat16(device) else torch.float32
    one, other = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    seconds = min(timed(lambda: one @ other, device, 20, 5))
    return 2 * side**3 / seconds, str(kind).removeprefix("torch.")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of ``python -m benchmarks.training``; prints one JSON object per measurement."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--loss", nargs="+", choices=CHOICES["loss"], default=["pyramid"], help="default: pyramid"
    )
    parser.add_argument("--batch", type=int, help="crops (default: 16, on a CPU 2)")
    parser.add_argument("--crop", type=int, default=256, help="side in pixels (default: 256)")
    parser.add_argument("--steps", type=int, help="timed steps (default: 100, on a CPU 5)")
    parser.add_argument(
        "--network", nargs="+", choices=WAYS, help="default: captured on a GPU, else eager"
    )
    work = partial(_measure, parser.parse_args(argv))
    return exit_code("benchmarks.training", work, memory="lower --batch or --crop")


def _measure(options: argparse.Namespace) -> int:
    device = pick_device(options.device)
    quick = device.type == "cpu"
    batch = (2 if quick else 16) if options.batch is None else options.batch
    steps = (5 if quick else 100) if options.steps is None else options.steps
    if steps < 1:
        raise ValueError("--steps must be at least 1")
    ways = options.network or ["captured" if device.type == "cuda" else "eager"]
    for loss, way in product(options.loss, ways):
        # all layers learn
        recipe = read_recipe(RECIPE, batch=batch, crop=options.crop, loss=loss, frozen_layers=0)
        warmup, matrix = (1, 512) if quick else (20, 8192)
        found = measure(recipe, device, steps, warmup, way, matrix)
        print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
