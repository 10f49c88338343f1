"""Controls what the C library does with freed memory, if it is glibc."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

# From mallopt in malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
KEPT = 2**30  # bytes kept at the heap's end: about the size of one picture's maps


@cache
def keep_memory() -> None:
    """Keep freed memory for the next picture, in the whole process; takes effect once.

    By default glibc returns each layer's map to the system and requests the next one page by page,
    which takes a fifth of a picture's time. Threads share one heap, or each would keep its own.
    A process whose environment has malloc settings keeps to them.
    """
    mallopt = _of_glibc("mallopt")
    chosen = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if mallopt is not None and not chosen:
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEPT), (M_ARENA_MAX, 1)):
            mallopt(option, value)


def trim_memory() -> None:
    """Return freed memory to the system.

    What is left of a picture's maps is in pieces too small for the next picture's, so a process
    that counts pictures of many sizes would grow by a megabyte with each.
    """
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
