"""Chooses the device and precision in which a network runs."""

from __future__ import annotations

import os
import platform
import re
import warnings
from functools import cache
from pathlib import Path

import torch

from .hub import one_line

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str | torch.device) -> torch.device:
    """The device with a name; ``auto``: the first that works of CUDA, MPS and the CPU.

    Raises:
        ValueError: if the requested device is missing or does not work.
    """
    if device == "auto":
        return _fastest()
    try:
        picked = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"there is no device {device!r}; use auto, cpu, cuda or mps") from error
    if picked.type not in ("cpu", "cuda", "mps"):  # others have valid names, but fail later
        raise ValueError(f"there is no device {device!r}; use auto, cpu, cuda or mps")
    if picked.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch sees no CUDA GPU; use auto")
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"there is no device {device}; torch sees {torch.cuda.device_count()} CUDA GPUs"
        )
    if picked.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device mps was asked for, but torch sees no MPS GPU; use auto")
    if fault := _fault(picked):
        raise ValueError(f"device {device} is present but unusable ({fault}); use cpu")
    return picked


def _fastest() -> torch.device:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for name in (name for name, is_there in there.items() if is_there):
        fault = _fault(torch.device(name))
        if not fault:
            return torch.device(name)
        warnings.warn(
            f"device {name} is present but unusable ({fault}): using the CPU", stacklevel=5
        )
    return torch.device("cpu")


def _fault(device: torch.device) -> str:
    """Why a device does not work, if so: torch has no code for it, or its memory is full."""
    # only decorated functions reach the GPU there
    if os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true", "yes"):
        return ""
    try:
        torch.ones(1, device=device).add(1).item()
    except RuntimeError as error:
        return one_line(error)
    return ""


def fast_bfloat16(device: torch.device) -> bool:
    """Whether a device of this kind is faster in bfloat16 than in float32.

    A CPU needs AMX, or AVX512-BF16 and not be Intel's: with the latter alone an AMD EPYC took half
    the time of float32, an Intel Xeon twice as long. Without either, bfloat16 is emulated, many
    times slower. Timing it would make the choice, and so the counts, depend on the current load.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    return has_amx() or (_has("avx512_bf16") and not _of_intel())


def has_amx() -> bool:
    """Whether the CPU has tile matrix multiplication, for bfloat16 among others."""
    return _has("amx_tile")


def _has(feature: str) -> bool:
    return bool(getattr(torch.cpu, f"_is_{feature}_supported", bool)())


@cache
def _of_intel() -> bool:
    return "GenuineIntel" in (_cpuinfo() or platform.processor())  # on Windows it names the maker


def _cpuinfo() -> str:
    try:
        with Path("/proc/cpuinfo").open() as file:
            return file.read(4096)
    except OSError:  # not Linux
        return ""


def name_device(device: torch.device, number: int = 1) -> str:
    """The display name of a device, such as ``4 x NVIDIA H200`` or ``Intel Xeon with 2 cores``.

    Args:
        number: number of GPUs like this one; a CPU counts as one.
    """
    if device.type == "cpu":
        models = re.findall(r"^model name\s*: (.+)$", _cpuinfo(), re.MULTILINE)
        model = models[0].strip() if models else f"a CPU ({platform.machine()})"
        return f"{model} with {os.cpu_count()} cores"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    return f"{number} x {name}" if number > 1 else name


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The precision with a name; ``auto``: the fastest that keeps the count."""
    if dtype == "auto":
        if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0):
            return torch.float16  # bfloat16 is no faster there, and has three bits fewer
        return torch.bfloat16 if fast_bfloat16(device) else torch.float32
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of auto, {', '.join(DTYPES)}, not {dtype!r}")
    return DTYPES[dtype]


NO_MEMORY = "There is not enough memory for it: make it smaller, or close other programs first."


def out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory ran out, on a device or in the computer."""
    # MPS, cuDNN and torch on a CPU have no error type of their own for it.
    words = (
        "out of memory",
        "allocate memory",
        "enough memory",
        "ALLOC_FAILED",
        "ALLOCATION_FAILED",
    )
    own = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return own or any(word in str(error) for word in words)
