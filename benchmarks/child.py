"""Measured in a process of its own: python -m benchmarks.child WHAT ..., one JSON object a line."""

from __future__ import annotations

import argparse
import io
import json
import mmap
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MAXRSS = 1 if sys.platform == "darwin" else 1024  # bytes in the unit of ru_maxrss


def photo(width: int, height: int, seed: int = 0) -> bytes:
    """A drawn picture of soft spots, as a JPEG file."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def peak() -> int:
    """The peak memory of this process, in bytes."""
    try:  # on Linux ru_maxrss starts from the parent process's value
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource  # which Windows lacks

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS


def resident() -> int:
    """The memory that this process holds now, in bytes; the peak where only that is known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak()
    return pages * mmap.PAGESIZE


def count(model: str, device: str, dtype: str, width: int, height: int) -> dict[str, Any]:
    """Count one picture once: seconds and peak memory."""
    from csrnet_hub import CrowdCounter

    return _once(CrowdCounter.from_pretrained(model, device, dtype, scale=1.0).count, width, height)


def reference(model: str, device: str, width: int, height: int) -> dict[str, Any]:
    """The same for the reference."""
    import torch

    from csrnet_hub import CSRNet

    from .reference import ReferenceCounter

    counter = ReferenceCounter(CSRNet.from_pretrained(model), torch.device(device))
    return _once(counter.count, width, height)


def _once(counted: Callable[[bytes], object], width: int, height: int) -> dict[str, Any]:
    counted(photo(64, 64))  # absorbs the set-up of a first call
    file = photo(width, height)
    before, start = peak(), time.perf_counter()
    counted(file)
    return {"seconds": time.perf_counter() - start, "before": before, "peak": peak()}


def endure(model: str, device: str, photos: int) -> dict[str, Any]:
    """The memory held after 10, 100, ... photographs of ever-changing sizes."""
    from csrnet_hub import CrowdCounter

    counter = CrowdCounter.from_pretrained(model, device, scale=1.0)
    rng = np.random.default_rng(0)
    held = {}
    for number in range(1, photos + 1):
        width, height = (int(side) for side in rng.integers(160, 320, 2))
        counter.count(photo(width, height, number))
        if number in (10, 100, 1000, photos):
            held[str(number)] = resident()
    return {"held": held}


def imports() -> dict[str, Any]:
    """Seconds for ``import torch``, and for ``import csrnet_hub`` after it."""
    start = time.perf_counter()
    import torch  # noqa: F401

    between = time.perf_counter()
    import csrnet_hub  # noqa: F401

    return {"torch": between - start, "csrnet_hub": time.perf_counter() - between}


def page(model: str) -> dict[str, Any]:
    """Seconds from starting app.py to its page, and to the first photograph's count."""
    import socket
    import subprocess
    import tempfile
    import urllib.request

    from gradio_client import Client, handle_file

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "photo.jpg"
        file.write_bytes(photo(1024, 768))
        begin = time.perf_counter()
        command = [sys.executable, "app.py", "--port", str(port), "--model", model]
        app = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while app.poll() is None:
                try:
                    urllib.request.urlopen(address, timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.05)
            up = time.perf_counter() - begin
            Client(address, verbose=False).predict(handle_file(str(file)), api_name="/count")
            return {"up": up, "counted": time.perf_counter() - begin}
        finally:
            app.terminate()
            app.wait(10)


TASKS = {task.__name__: task for task in (count, reference, endure, imports, page)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.child", description=__doc__)
    parser.add_argument("what", choices=TASKS)
    parser.add_argument("options", help="a JSON object")
    chosen = parser.parse_args()
    print(json.dumps(TASKS[chosen.what](**json.loads(chosen.options))))


if __name__ == "__main__":
    main()
