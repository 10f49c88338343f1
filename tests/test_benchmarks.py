"""What the benchmarks promise."""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import multivariate_normal

from benchmarks import __main__ as command
from benchmarks import child, comparisons, processes
from benchmarks.plan import Plan, Row
from benchmarks.reference import ReferenceCounter, direct_density, reference_density
from csrnet_hub import CrowdCounter, CSRNet
from csrnet_hub.density import density_map
from tests.test_datasets import read_shanghaitech, write_part
from tests.thin import narrow
from train import prepare
from train.data import Example

CPU = torch.device("cpu")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A thin model with outputs far from zero, in a folder."""
    narrow(monkeypatch)
    torch.manual_seed(0)
    model = CSRNet(density_scale=4.0)
    for layer in [*model.frontend, *model.backend, model.output_layer]:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def plan(folder: Path) -> Plan:
    said: list[str] = []
    return Plan(str(folder), CPU, [(96, 64)], rounds=2, say=said.append)


def test_the_reference_counts_as_the_product_does(folder: Path) -> None:
    model, file = CSRNet.from_pretrained(folder), child.photo(96, 64)
    ours = CrowdCounter(model, "cpu", "float32").count(file).count
    assert abs(ours) > 0.1
    assert ReferenceCounter(model, CPU).count(file) == pytest.approx(ours, rel=1e-4)


def test_the_reference_density_is_a_gaussian_of_the_papers_width_at_each_head() -> None:
    heads = np.array([[40.0, 30.0], [44.0, 30.0], [40.0, 34.0], [44.0, 34.0]])
    width = 0.3 * (4 + 4 + 4 * 2**0.5) / 3
    y, x = np.mgrid[0:60, 0:80]
    at = np.stack([x, y], axis=-1)
    exact = sum(multivariate_normal(head, width**2).pdf(at) for head in heads)
    # SciPy samples the kernel and cuts it at four widths
    assert np.abs(reference_density(heads, 60, 80) - exact).max() < 2e-3 * exact.max()


def test_the_direct_density_is_what_the_product_computes() -> None:
    rng = np.random.default_rng(0)
    heads, sigma = rng.random((20, 2)) * (50, 40), rng.uniform(1, 9, 20)
    exact = direct_density(heads, sigma, 40, 50)
    assert exact.sum() == pytest.approx(20)
    assert np.abs(density_map(heads, 40, 50, sigma) - exact).max() < 1e-12


def test_ways_take_turns_and_ratios_are_taken_within_a_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, called = itertools.count(), []
    now = 0.0

    def work(name: str, cost: float) -> None:
        nonlocal now
        called.append(name)
        now += cost * (1 + next(clock) // 2)  # the machine gets slower

    monkeypatch.setattr(comparisons.time, "perf_counter", lambda: now)
    seconds = comparisons.take_turns(
        {"slow": lambda: work("slow", 4), "fast": lambda: work("fast", 1)}, rounds=3
    )
    assert called == ["slow", "fast", "fast", "slow", "slow", "fast", "fast", "slow"]
    assert seconds == {"slow": [8, 12, 16], "fast": [2, 3, 4]}
    rows = comparisons.rows_of(seconds, size="any")
    assert [(row["way"], row["seconds"], row["times_as_fast"]) for row in rows] == [
        ("slow", 12, 1),
        ("fast", 3, 4),
    ]


def test_counting_sets_every_way_beside_the_reference(plan: Plan) -> None:
    rows = comparisons.counting(plan)
    assert rows[0]["way"] == "reference"
    assert "float32" in {row["way"] for row in rows}
    for row in rows:
        assert row["us_a_pixel"] == pytest.approx(row["seconds"] / (96 * 64) * 1e6)


def test_a_reference_that_does_not_fit_is_not_run(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.plan.memory_free", lambda device: 96 * 64 * 512)
    assert "reference" not in {row["way"] for row in comparisons.counting(plan)}


def test_what_a_first_call_sets_up_is_timed_for_none(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above a megapixel, where each way is timed once, without an untimed round."""
    given: dict[str, list[tuple[int, int]]] = {"theirs": [], "ours": []}

    def counted(whose: str) -> Any:
        def count(_: object, file: bytes, *rest: object) -> None:
            with Image.open(io.BytesIO(file)) as picture:
                given[whose].append(picture.size)

        return count

    monkeypatch.setattr(ReferenceCounter, "count", counted("theirs"))
    monkeypatch.setattr(CrowdCounter, "count", counted("ours"))
    rows = comparisons.counting(replace(plan, sizes=[(1100, 1000)]))
    ways = len(rows) - 1
    assert given == {
        "theirs": [(64, 64), (1100, 1000)],
        "ours": [(64, 64)] * ways + [(1100, 1000)] * ways,
    }


def test_the_largest_pictures_are_left_to_processes_of_their_own(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (comparisons, processes):
        monkeypatch.setattr(module, "LARGE", 96 * 64 - 1)
    asked: list[dict[str, object]] = []

    def child(task: str, **options: object) -> dict[str, object]:
        asked.append({"task": task, **options})
        return {"seconds": 6.144, "before": 1, "peak": 2}

    monkeypatch.setattr(processes, "child", child)
    assert comparisons.counting(plan) == []
    rows = processes.memory(plan)
    assert [(one["task"], one["width"], one["height"]) for one in asked] == [
        ("count", 96, 64),
        ("reference", 96, 64),
    ]
    assert [row["us_a_pixel"] for row in rows] == pytest.approx([1000.0, 1000.0])


def test_the_share_of_the_matrix_rate_is_that_of_the_networks_arithmetic(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparisons, "matrix_rate", lambda device, side, kind: (1e12, "float32"))
    rows = comparisons.share_of_rate(plan)
    assert [row["way"] for row in rows] == ["eager", "product"]
    for row in rows:
        flops = comparisons.forward_flops(row["batch"], 768, 1024)
        assert row["share"] == pytest.approx(flops / row["seconds"] / 1e12)


def test_counts_are_held_against_exact_float32_and_what_is_timed_keeps_torchs_own(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    usual = torch.backends.cudnn.allow_tf32

    def none_yet(_: Plan) -> dict:
        seen.append(torch.backends.cudnn.allow_tf32)
        return {}

    monkeypatch.setattr(comparisons, "counters", none_yet)
    empty = np.zeros((0, 2))
    held_out = [Example("a", np.zeros((64, 96, 3), np.uint8), empty, empty[:, 0], 0)]
    assert comparisons.counts(replace(plan, held_out=held_out)) == []
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32 == usual


def test_what_a_process_of_its_own_measures_comes_back(folder: Path) -> None:
    found = processes.child("imports")
    assert found["csrnet_hub"] > 0
    with pytest.raises(RuntimeError, match="endure failed"):
        processes.child("endure", model=str(folder / "none"), device="cpu", photos=1)


def test_the_peak_of_a_process_is_its_own_and_not_that_of_the_one_that_started_it() -> None:
    small = "from benchmarks.child import peak; print(peak())"
    large = f"""import numpy, subprocess, sys
numpy.ones(10**8)
subprocess.run([sys.executable, "-c", {small!r}], check=True)"""
    done = subprocess.run([sys.executable, "-c", large], capture_output=True, text=True, check=True)
    assert 1e6 < int(done.stdout) < 4e8  # the other one held 800 MB


def test_memory_after_photographs_is_what_the_system_says(folder: Path) -> None:
    held = child.endure(str(folder), "cpu", 12)["held"]
    assert list(held) == ["10", "12"]
    assert all(10e6 < size < 1.2 * child.peak() for size in held.values())


def test_where_no_memory_can_be_read_a_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(os, "sysconf")  # as on Windows
    assert command.main(["counting", "--out", str(tmp_path / "out")]) == 1
    assert "Linux or macOS" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_writes_a_table_and_the_figures(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(comparisons, "reference_density", lambda *size: None)
    arguments = ["counting", "ground-truth", "--device", "cpu", "--model", str(folder)]
    out = tmp_path / "out"
    assert command.main([*arguments, "--sizes", "64x48", "--rounds", "1", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "| 64x48 | reference |" in shown
    (written,) = out.glob("*.json")
    found = json.loads(written.read_text(encoding="utf-8"))
    assert set(found["results"]) == {"counting", "ground-truth"}
    assert found["results"]["ground-truth"][1]["most_apart"] < 1e-6
    assert written.with_suffix(".md").read_text(encoding="utf-8") in shown


def test_as_many_photos_are_counted_in_a_row_as_one_asks_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(what: str, *, photos: int, **options: Any) -> dict[str, Any]:
        return {"held": {str(photos): 5}}

    monkeypatch.setattr(processes, "child", held)
    arguments = ["endurance", "--photos", "12", "--model", str(folder), "--out", str(tmp_path)]
    assert command.main(arguments) == 0
    (kept,) = tmp_path.glob("*.json")
    assert json.loads(kept.read_text())["results"] == {"endurance": [{"photos": 12, "held": 5}]}


def test_a_model_beside_is_found_by_processes_that_run_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(what: str, *, model: str, **options: Any) -> dict[str, Any]:
        models.append(model)
        return {"held": {}}

    models: list[str] = []
    monkeypatch.setattr(processes, "child", held)
    monkeypatch.chdir(folder.parent)
    for model in (folder.name, "org/name"):
        assert command.main(["endurance", "--model", model, "--out", "out"]) == 0
    assert models == [str(folder), "org/name"]


@pytest.mark.parametrize("trouble", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_what_was_measured_outlives_a_measurement_that_fails(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trouble: BaseException,
) -> None:
    def fails(plan: Plan) -> list[Row]:
        raise trouble

    monkeypatch.setitem(command.ALL, "counting", lambda plan: [{"size": "64x48"}])
    monkeypatch.setitem(command.ALL, "memory", fails)
    arguments = ["counting", "memory", "--model", str(folder), "--out", str(tmp_path / "out")]
    stopped = isinstance(trouble, KeyboardInterrupt)
    assert command.main(arguments) == (130 if stopped else 1)
    said = "stopped; the finished benchmarks are in" if stopped else "out of memory"
    assert f"benchmarks: {said}" in capsys.readouterr().err
    (kept,) = (tmp_path / "out").glob("*.json")
    assert json.loads(kept.read_text())["results"] == {"counting": [{"size": "64x48"}]}
    assert "64x48" in kept.with_suffix(".md").read_text()


def test_photographs_that_cannot_be_counted_are_said_before_anything_is_measured(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    others = read_shanghaitech(write_part(tmp_path / "part_B", [3, 4]), "train")
    prepare.prepare(others, tmp_path / "part_B.h5")
    monkeypatch.setitem(command.ALL, "counting", None)
    arguments = ["counting", "--model", str(folder), "--out", str(tmp_path / "out")]
    assert command.main([*arguments, "--data", str(tmp_path / "part_B.h5")]) == 1
    said = capsys.readouterr().err
    assert "--data must be a file of part A alone" in said
    assert "has no image IMG_121" in said


@pytest.mark.parametrize(
    ("arguments", "trouble"),
    [
        (["speed"], "unknown benchmark speed"),
        (["counting", "--sizes", "big"], "'big' is not a size"),
        (["counting", "--sizes", "0x10"], "'0x10' is not a size"),
        (["counts", "--data", "none.h5"], "no prepared file none.h5"),
        (["counting", "--device", "tpu9"], "no device 'tpu9'"),
        (["endurance", "--photos", "0"], "--photos must be at least 1"),
    ],
)
def test_a_mistake_is_a_sentence(
    arguments: list[str], trouble: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments, "--model", str(folder)]) == 1
    assert trouble in capsys.readouterr().err
