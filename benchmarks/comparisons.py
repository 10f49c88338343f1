"""The comparisons: ways of doing the same thing, taking turns in one process."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from csrnet_hub import CrowdCounter, CSRNet
from csrnet_hub.bands import density_bands
from csrnet_hub.datasets import DatasetError
from csrnet_hub.density import adaptive_sigma, density_map
from csrnet_hub.devices import fast_bfloat16, pick_dtype
from csrnet_hub.metrics import counting_errors
from train.data import Example, load_prepared, split
from train.recipe import read_recipe

from .child import photo
from .plan import LARGE, Plan, Row, fits
from .reference import ReferenceCounter, direct_density, reference_density
from .training import matrix_rate, timed

IMAGES = 30  # number whose counts are compared
RECIPE = Path(__file__).parents[1] / "train" / "recipes" / "partA_cpu.toml"
Ways = Mapping[str, Callable[[], Any]]


def take_turns(ways: Ways, rounds: int, untimed: int = 1) -> dict[str, list[float]]:
    """Seconds of each way in each round, after untimed rounds; which goes first changes."""
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(untimed + rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            ways[name]()
            if turn >= untimed:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def rows_of(seconds: Mapping[str, Sequence[float]], **about: Any) -> list[Row]:
    """One row per way: its median, and how many times as fast as the first way it was (the median
    over rounds of the ratio within a round)."""
    first = next(iter(seconds.values()))
    return [
        {
            **about,
            "way": name,
            "seconds": statistics.median(own),
            "times_as_fast": statistics.median(a / b for a, b in zip(first, own)),
        }
        for name, own in seconds.items()
    ]


def counters(plan: Plan) -> dict[str, CrowdCounter]:
    """The product in each way available on this machine, at the reference's picture size."""
    model, device = CSRNet.from_pretrained(plan.model), plan.device
    as_is = partial(CrowdCounter, model, device, scale=1.0)
    found = {"float32": as_is("float32")}
    if fast_bfloat16(device):
        found["bfloat16"] = as_is("bfloat16")
    if device.type == "cuda":
        found["float16"] = as_is("float16")
    if device.type == "cpu" and importlib.util.find_spec("openvino"):
        for dtype in found.copy():
            found[f"OpenVINO {dtype}"] = as_is(dtype, engine="openvino")
        if plan.int8:
            found["OpenVINO int8"] = CrowdCounter.from_pretrained(plan.int8, scale=1.0)
    return found


def counting(plan: Plan) -> list[Row]:
    """Time from a JPEG file's bytes to the count, for photographs of up to sixteen megapixels
    (larger ones take minutes: see `memory`). On a CPU those above one megapixel are timed once;
    each way counts a small one first."""
    theirs, ours = ReferenceCounter(CSRNet.from_pretrained(plan.model), plan.device), counters(plan)
    every: list[Callable[[bytes], object]] = [theirs.count, *(one.count for one in ours.values())]
    for count in every:
        count(photo(64, 64))  # keeps a first call's set-up out of the times
    rows = []
    for width, height in plan.sizes:
        file, pixels = photo(width, height), width * height
        if pixels > LARGE:
            continue
        ways: dict[str, Callable[[], Any]] = {}
        if fits(plan, pixels):
            ways["reference"] = partial(theirs.count, file)
        ways |= {name: partial(counter.count, file) for name, counter in ours.items()}
        plan.say(f"{width}x{height}: {', '.join(ways)}")
        few = pixels > 2**20 and plan.device.type == "cpu"
        seconds = take_turns(ways, 1 if few else plan.rounds, 0 if few else 1)
        for row in rows_of(seconds, size=f"{width}x{height}"):
            rows.append({**row, "us_a_pixel": row["seconds"] / pixels * 1e6})
    return rows


def share_of_rate(plan: Plan) -> list[Row]:
    """The network alone on batches of 1024x768, as a share of the device's matrix-product rate.
    Operations are counted for direct convolutions; Winograd convolutions need fewer, so their
    share may exceed 100 %."""
    device = plan.device
    batch, times, side = (1, 3, 2048) if device.type == "cpu" else (8, 20, 8192)
    dtype = pick_dtype("auto", device)
    x = torch.randn(batch, 3, 768, 1024, device=device)
    x = x.to(dtype=dtype, memory_format=torch.channels_last)
    network = CSRNet.from_pretrained(plan.model).eval().to(device, dtype)
    network = network.to(memory_format=torch.channels_last)
    # with convolutions and ReLUs fused, where the product has that
    product = partial(_whole, network, dtype)
    ways: dict[str, Any] = {"eager": network, "product": product}
    if device.type == "cuda":
        ways["compiled"] = torch.compile(network)
    rate, _ = matrix_rate(device, side, dtype)
    precision = str(dtype).removeprefix("torch.")
    rows = []
    for name, way in ways.items():
        with torch.inference_mode():
            seconds = statistics.median(timed(partial(way, x), device, times, 2))
        flops = forward_flops(batch, 768, 1024) / seconds
        share = {"flops": flops, "matrix_flops": rate, "share": flops / rate}
        about = {"way": name, "batch": batch, "precision": precision}
        rows.append({**about, "seconds": seconds, **share})
    return rows


def _whole(network: CSRNet, dtype: torch.dtype, x: Tensor) -> Tensor:
    return next(density_bands(network, [(x, True)], dtype))


def forward_flops(batch: int, height: int, width: int) -> int:
    """Floating-point operations of the network; a multiply-add counts as two."""
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        CSRNet()(torch.empty(batch, 3, height, width))
    return int(counter.get_total_flops())


def validation_images(data: Path) -> list[Example]:
    """Thirty of the validation images in a file that train.prepare made from part A.

    Raises:
        DatasetError: if the file cannot be read, or contains other photographs.
    """
    recipe = read_recipe(RECIPE)
    try:
        examples = load_prepared(data, recipe.exclude)
    except DatasetError as error:
        raise DatasetError(f"--data must be a file of part A alone. {error}") from error
    return split(examples, recipe.validation, recipe.seed, recipe.train_only)[1][:IMAGES]


# TF32, torch's default for convolutions on a GPU, has factors of ten bits
@torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
def counts(plan: Plan) -> list[Row]:
    """Counts of validation photographs by each way, compared with those in float32."""
    held_out = plan.held_out
    if not held_out:
        plan.say("counts: skipped, because it needs --data")
        return []
    heads = [example.count for example in held_out]
    rows: list[Row] = []
    exact: NDArray[np.float64] | None = None
    for name, counter in counters(plan).items():
        plan.say(f"counts: {len(held_out)} photographs, {name}")
        found = np.array([counter.count(example.pixels).count for example in held_out])
        exact = found if exact is None else exact
        apart = np.abs(found / exact - 1)
        errors = counting_errors(found, heads)
        rows.append(
            {
                "way": name,
                "images": len(heads),
                "mean_difference": float(apart.mean()),
                "most": float(apart.max()),
                "mae": errors["mae"],
            }
        )
    return rows


def ground_truth(plan: Plan) -> list[Row]:
    """A density map of 500 heads on 1024x768 at full resolution, and its error."""
    plan.say("ground-truth: the reference takes half a minute")
    heads = np.random.default_rng(0).random((500, 2)) * (1024, 768)
    begin = time.perf_counter()
    reference_density(heads, 768, 1024)
    theirs = time.perf_counter() - begin
    ways = {
        "product": lambda: density_map(heads, 768, 1024),
        "product, cells of 8x8": lambda: density_map(heads, 768, 1024, stride=8),
    }
    seconds = take_turns(ways, 4 * plan.rounds)
    rows = [{"way": "reference", "seconds": theirs, "times_as_fast": 1.0}]
    for name, own in seconds.items():
        median = statistics.median(own)
        rows.append({"way": name, "seconds": median, "times_as_fast": theirs / median})
    exact = direct_density(heads, adaptive_sigma(heads), 768, 1024)
    rows[1]["most_apart"] = float(np.abs(density_map(heads, 768, 1024) - exact).max())
    return rows
