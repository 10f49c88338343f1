"""Measurements in separate processes: memory and start-up time."""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from .plan import LARGE, Plan, Row, fits

ROOT = Path(__file__).parents[1]


def memory(plan: Plan) -> list[Row]:
    """The peak memory of a process that counts one photograph."""
    rows = []
    device = str(plan.device)
    for width, height in plan.sizes:
        size = {"width": width, "height": height}
        ways: dict[str, tuple[str, Row]] = {
            "product": ("count", {"dtype": "auto"}),
            "product, float32": ("count", {"dtype": "float32"}),
        }
        if width * height > LARGE:
            del ways["product, float32"]  # minutes each
        if fits(plan, width * height):
            ways["reference"] = ("reference", {})
        for name, (task, options) in ways.items():
            plan.say(f"memory: {width}x{height}, {name}")
            asked = {"model": plan.model, "device": device, **size, **options}
            found = child(task, **asked)
            found["us_a_pixel"] = found["seconds"] / (width * height) * 1e6
            rows.append({"size": f"{width}x{height}", "way": name, **found})
    return rows


def endurance(plan: Plan) -> list[Row]:
    """The memory that one process holds after growing numbers of photographs of different sizes."""
    plan.say(f"endurance: {plan.photos} photographs")
    found = child("endure", model=plan.model, device=str(plan.device), photos=plan.photos)
    return [{"photos": int(number), "held": held} for number, held in found["held"].items()]


def start(plan: Plan) -> list[Row]:
    """The time of imports, and the page's time to start and to count."""
    plan.say("start")
    found = [child("imports") for _ in range(plan.rounds)]
    rows = [
        {"what": f"import {name}", "seconds": statistics.median(one[name] for one in found)}
        for name in ("torch", "csrnet_hub")
    ]
    if not importlib.util.find_spec("gradio"):
        plan.say("start: skipping the page, which needs gradio")
        return rows
    pages = [child("page", model=plan.model) for _ in range(3)]
    for key, what in (("up", "page up"), ("counted", "first photo of 1024x768 counted")):
        rows.append({"what": what, "seconds": statistics.median(one[key] for one in pages)})
    return rows


def child(task: str, **options: Any) -> dict[str, Any]:
    """The measurements of benchmarks.child, run in a separate process."""
    command = [sys.executable, "-m", "benchmarks.child", task, json.dumps(options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"benchmarks.child {task} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
