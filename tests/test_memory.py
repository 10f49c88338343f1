"""Memory that was freed is kept from picture to picture, and given back now and then."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from csrnet_hub import memory

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc keeps")

FAULTS = """
import resource, threading
import numpy as np
from csrnet_hub import CrowdCounter, CSRNet
counter = CrowdCounter(CSRNet(), "cpu", "float32")
picture = np.zeros((256, 256, 3), np.uint8)
faults = [0]
for _ in range(2):  # each in a thread of its own, as a server's
    thread = threading.Thread(target=counter.count, args=(picture,))
    thread.start()
    thread.join()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(np.diff(faults)[-1])
"""


def pages_asked_for(**settings: str) -> int:
    """Pages that a second picture of one size asks the system for."""
    theirs = ("MALLOC_", "GLIBC_TUNABLES")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(theirs)} | settings
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@glibc
def test_a_picture_takes_the_memory_of_the_one_before() -> None:
    kept, left = pages_asked_for(), pages_asked_for(MALLOC_TRIM_THRESHOLD_="131072")
    assert kept < 0.1 * left


def test_where_the_c_library_has_no_such_setting_nothing_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(memory, "_of_glibc", asked.append)  # which gives None
    memory.keep_memory.__wrapped__()
    memory.trim_memory()
    assert asked == ["mallopt", "malloc_trim"]


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_settings_of_the_environment_are_left_as_they_are(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(memory, "_of_glibc", lambda name: lambda *option: made.append(option))
    for theirs in [key for key in os.environ if key.startswith(("MALLOC_", "GLIBC_TUNABLES"))]:
        monkeypatch.delenv(theirs)
    memory.keep_memory.__wrapped__()
    assert dict(made) == {-4: 0, -1: memory.KEPT, -8: 1}
    made.clear()
    monkeypatch.setenv(name, "2")
    memory.keep_memory.__wrapped__()
    assert made == []


@glibc
def test_trimmed_memory_leaves_the_process() -> None:
    from benchmarks.child import resident  # needs the module resource, which Windows lacks

    pieces = [np.ones(2**16, np.uint8) for _ in range(3200)]  # 210 MB
    last = np.ones(2**16, np.uint8)  # holds the end of the heap where it is
    del pieces
    before = resident()
    memory.trim_memory()
    assert before - resident() > 100e6
    assert last.all()
