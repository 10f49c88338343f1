"""Where and in what precision a network runs."""

from __future__ import annotations

import time
from functools import cache

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PROBE = 256  # side of the matrices that are multiplied, many times for 20 ms
ROUNDS, BUDGET = (5, 40), 0.1  # at least and at most, and seconds that they may take


def pick_device(device: str | torch.device) -> torch.device:
    if device != "auto":
        try:
            picked = torch.device(device)
        except RuntimeError as error:
            raise ValueError(
                f"there is no device {device!r}; use auto, cpu, cuda or mps"
            ) from error
        if picked.type not in ("cpu", "cuda", "mps"):  # others are known by name, and fail later
            raise ValueError(f"there is no device {device!r}; use auto, cpu, cuda or mps")
        if picked.type == "cuda" and not torch.cuda.is_available():
            raise ValueError("device cuda was asked for, but torch sees no CUDA GPU; use auto")
        if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"there is no device {device}; torch sees {torch.cuda.device_count()}")
        if picked.type == "mps" and not torch.backends.mps.is_available():
            raise ValueError("device mps was asked for, but torch sees none; use auto")
        return picked
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device is quicker in bfloat16 than in float32: asked of a GPU, measured on a CPU.

    Without its instructions it is emulated, many times slower. Having them is not enough: with
    AVX512-BF16 an AMD EPYC took half the time of float32, an Intel Xeon without AMX twice as long.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = device.type == "cpu" and any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return native and _gain_of_bfloat16() > 1


@cache
def _gain_of_bfloat16() -> float:
    """How many times as fast this CPU multiplies matrices in bfloat16 as in float32."""
    kinds = (torch.float32, torch.bfloat16)
    # no random numbers: a program's own would be other ones afterwards
    factors = [torch.full((PROBE, PROBE), 0.5, dtype=kind) for kind in kinds]
    seconds: list[list[float]] = [[], []]
    least, most = ROUNDS
    while len(seconds[0]) < least or (len(seconds[0]) < most and sum(map(sum, seconds)) < BUDGET):
        for factor, own in zip(factors, seconds):
            start = time.perf_counter()
            factor @ factor
            own.append(time.perf_counter() - start)
    single, half = map(min, seconds)  # the least: other work beside it can only add
    return single / half


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The precision that a name stands for; ``auto``: as fast as keeps the count."""
    if dtype == "auto":
        if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0):
            return torch.float16  # bfloat16 is no faster there, and has three bits fewer
        return torch.bfloat16 if fast_bfloat16(device) else torch.float32
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be auto, {', '.join(DTYPES)}, not {dtype!r}")
    return DTYPES[dtype]
