"""What the C library does with memory that is freed, where it is glibc."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

# Of mallopt in malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
KEPT = 2**30  # bytes at the heap's end: about what the maps of one picture take


@cache
def keep_memory() -> None:
    """Have memory that is freed kept for the next picture, in the whole process, once.

    Left to itself glibc gives each layer's map back to the system and asks for the next one, page
    by page: a fifth of the time of a picture. Threads share one heap, or each would keep its own.
    A process whose environment has settings of malloc keeps to them.
    """
    mallopt = _of_glibc("mallopt")
    chosen = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if mallopt is not None and not chosen:
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEPT), (M_ARENA_MAX, 1)):
            mallopt(option, value)


def trim_memory() -> None:
    """Give memory that was freed back to the system.

    What is left of one picture's maps is in pieces that the next picture's do not fit, and a
    process that counts pictures of many sizes would grow by a megabyte with each.
    """
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
