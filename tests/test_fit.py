"""What training promises."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from matplotlib import rc_context
from PIL import Image
from safetensors.torch import save_file

from csrnet_hub import CrowdCounter, CSRNet
from csrnet_hub.card import card_of
from csrnet_hub.intervals import PredictionInterval
from csrnet_hub.model import load_vgg16_frontend
from csrnet_hub.resources import DEFAULT_MODEL
from tests.conftest import lively
from tests.test_datasets import read_shanghaitech, write_part
from tests.thin import exact, narrow
from train import fit, loop, loss, photographs, prepare, processes, state
from train.data import Example, digest, fingerprint, load_prepared, split
from train.gather import gather
from train.log import Log, draw_curves, read_log
from train.loss import RECORD, euclidean_loss, pyramid_loss
from train.recipe import CHOICES, Recipe, read_recipe
from train.record import of_training
from train.seen import Seen
from train.step import rate
from train.validation import validate

RECIPE = Path(__file__).with_name("recipe.toml")
RECIPES = Path(fit.__file__).parent / "recipes"
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def thin() -> Iterator[None]:
    """Thin networks, in this file alone: what is promised here does not hang on their size."""
    with pytest.MonkeyPatch.context() as patch:
        narrow(patch)
        exact(patch)
        patch.setattr("train.log.draw_curves", lambda *files: None)  # slower than the training
        yield


@pytest.fixture(scope="module")
def model_folder(thin: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with an output scale of its own."""
    folder = tmp_path_factory.mktemp("models") / "small-model"
    CSRNet(density_scale=10.0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten small pictures with 0 to 45 heads."""
    part = write_part(tmp_path_factory.mktemp("data") / "part_A", [5 * i for i in range(10)])
    path = part.parent / "part_A.h5"
    prepare.prepare(read_shanghaitech(part, "train"), path)
    return path


@pytest.fixture(scope="module")
def vgg(thin: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for VGG-16: random weights under its names."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    front = CSRNet().frontend.state_dict()
    state = {
        f"features.{key}": torch.nn.init.kaiming_normal_(value) if value.ndim > 1 else value
        for key, value in front.items()
    }
    save_file(state, path)
    return path


@pytest.fixture
def recipe() -> Recipe:
    small = {"steps": 4, "batch": 1, "crop": 64, "validation": 2, "validate_every": 4, "warmup": 1}
    return read_recipe(RECIPE, exclude=[], train_only=[], **small)


# loss


def test_the_loss_is_zero_for_the_target_and_grows_with_the_error() -> None:
    target = torch.rand(2, 1, 9, 13)
    assert pyramid_loss(target, target).item() == 0
    assert pyramid_loss(target + 0.1, target) < pyramid_loss(target + 0.2, target)


def test_the_loss_is_that_of_its_definition() -> None:
    predicted, target = torch.rand(2, 1, 32, 16) * 3 - 0.2, torch.rand(2, 1, 32, 16)
    total = 0.0
    for side in (1, 2, 4, 8, 16):
        for crop in range(2):
            corners = [(i, j) for i in range(0, 32, side) for j in range(0, 16, side)]
            blocks = [(crop, 0, slice(i, i + side), slice(j, j + side)) for i, j in corners]
            counts = [predicted[block].sum().item() for block in blocks]
            true = [target[block].sum().item() for block in blocks]
            size = sum(0.75 * max(c, 0) + 0.25 * t for c, t in zip(counts, true)) / len(blocks)
            total += sum((c - t) ** 2 for c, t in zip(counts, true)) / (2 * (size + 1))
    assert pyramid_loss(predicted, target).item() == pytest.approx(total / 5 / 2, rel=1e-4)


def test_blocks_larger_than_the_crop_are_left_out_of_the_loss() -> None:
    predicted, target = torch.full((1, 1, 1, 3), 1.0), torch.full((1, 1, 1, 3), 3.0)
    assert pyramid_loss(predicted, target).item() == pytest.approx(3 * 2**2 / (2 * (1.5 + 1)))


def gradient(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    predicted = predicted.clone().requires_grad_()
    pyramid_loss(predicted, target).backward()  # type: ignore[no-untyped-call]
    assert predicted.grad is not None
    return predicted.grad


def test_the_loss_of_a_crop_is_least_at_the_mean_of_skewed_counts() -> None:
    target = torch.zeros(1, 1, 16, 16)
    target[..., 0] = 16
    # one number for all cells, the mean of which is 1
    pulls = [gradient(torch.full_like(target, k), target).sum().item() for k in (0.9, 1.0, 1.1)]
    assert pulls[0] < -1e-2
    assert pulls[1] == pytest.approx(0, abs=1e-3)
    assert pulls[2] > 1e-2


def test_the_loss_pulls_back_a_doubled_count_nearly_as_much_as_a_halved_one() -> None:
    target = torch.full((1, 1, 16, 16), 1000.0)
    doubled, halved = (gradient(target * k, target).sum().item() for k in (2, 0.5))
    assert doubled == pytest.approx(-halved * 5 / 7, rel=2e-3)  # 1 / 1.75 and 0.5 / 0.625


def test_a_drawn_picture_feels_even_a_thousandth_of_a_head_a_cell() -> None:
    empty = torch.zeros(2, 1, 32, 32)
    predicted = (empty + 1e-3).requires_grad_()
    pyramid_loss(predicted, empty, torch.tensor([True, False])).backward()  # type: ignore[no-untyped-call]
    assert predicted.grad is not None
    assert predicted.grad[0].min().item() > 0.2
    assert predicted.grad[1].max().item() < 0.1


def test_the_euclidean_loss_is_that_of_the_paper() -> None:
    predicted, target = torch.rand(2, 1, 3, 5), torch.rand(2, 1, 3, 5)
    direct = sum(((predicted[i] - target[i]) ** 2).sum().item() for i in range(2)) / (2 * 2)
    assert euclidean_loss(predicted, target).item() == pytest.approx(direct, rel=1e-5)


# fit


def run(recipe: Recipe, prepared: Path, vgg: Path, out: Path, **options: object) -> float:
    return fit.fit(recipe, load_prepared(prepared), out, str(vgg), CPU, **options)


def test_a_killed_run_resumed_ends_as_one_never_killed(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(recipe, validate_every=1)
    straight = run(recipe, prepared, vgg, tmp_path / "a")

    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    step = loop.train_step

    def killed(state, *rest):  # type: ignore[no-untyped-def]
        if state.step == 3:
            raise KeyboardInterrupt
        return step(state, *rest)

    monkeypatch.setattr(loop, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, prepared, vgg, tmp_path / "b")
    monkeypatch.setattr(loop, "train_step", step)
    resumed = run(recipe, prepared, vgg, tmp_path / "b", resume=tmp_path / "b" / "last.pt")

    assert resumed == pytest.approx(straight, rel=1e-5)
    one = CSRNet.from_pretrained(tmp_path / "a" / "best").state_dict()
    two = CSRNet.from_pretrained(tmp_path / "b" / "best").state_dict()
    assert all(torch.allclose(one[key], two[key], rtol=1e-3, atol=1e-6) for key in one)
    curves = [
        [
            (entry["step"], entry["mae"])
            for entry in read_log(tmp_path / name / "log.jsonl")
            if "mae" in entry
        ]
        for name in ("a", "b")
    ]
    assert [step for step, _ in curves[0]] == [1, 2, 3, 4]
    assert np.allclose(curves[0], curves[1], rtol=1e-5)


def test_on_a_cpu_the_bar_moves_each_step_and_minutes_pass_between_two_checkpoints(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, saved, passed = [], [], [0.0]
    save, step = state.save_checkpoint, loop.train_step

    def slow(*rest):  # type: ignore[no-untyped-def]
        passed[0] += 50
        return step(*rest)

    def kept(now, how, path):  # type: ignore[no-untyped-def]
        saved.extend([now.step] if path.name == "last.pt" else [])
        save(now, how, path)

    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    monkeypatch.setattr(loop, "train_step", slow)
    monkeypatch.setattr(loop, "save_checkpoint", kept)
    monkeypatch.setattr(loop.time, "perf_counter", lambda: passed[0])
    move = Log.step
    monkeypatch.setattr(Log, "step", lambda log, now: (moved.append(now), move(log, now)))
    run(replace(recipe, steps=11, validate_every=11), prepared, vgg, tmp_path)
    assert sorted(set(moved)) == list(range(1, 12))
    assert saved == [4, 8, 11]  # 50 seconds a step, 120 between two, every second one is reported


def test_each_process_on_gpus_says_which_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(processes, "pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)
    monkeypatch.setattr(
        processes.dist, "init_process_group", lambda kind, **more: asked.append((kind, more))
    )
    monkeypatch.setattr(processes.dist, "destroy_process_group", lambda: None)
    with processes.own_device("cuda") as own:
        assert own == torch.device("cuda", 1)
    assert asked == [own, ("nccl", {"device_id": own, "timeout": processes.PATIENCE})]


def test_a_run_that_goes_on_keeps_the_colours_of_the_model_that_it_began_with(
    recipe: Recipe, tmp_path: Path
) -> None:
    grey = CSRNet(density_scale=10.0, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.1))
    grey.save_pretrained(tmp_path / "grey")
    begun = state.start_from(recipe, str(tmp_path / "grey"), CPU)
    state.save_checkpoint(begun, recipe, tmp_path / "last.pt")
    gone_on = state.load_checkpoint(tmp_path / "last.pt", recipe, CPU)
    for model in (gone_on.model, gone_on.average):
        assert (model.mean, model.std) == (grey.mean, grey.std)


def test_a_checkpoint_that_the_disk_has_no_room_for_is_a_sentence(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(content: Any, file: Any) -> None:
        file.write(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] unexpected pos 94912")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"\.pt could not be written .*is the disk full"):
        run(recipe, prepared, vgg, tmp_path)
    assert not list(tmp_path.glob("*.pt*"))


def test_a_run_trains_and_its_model_says_how(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.log.draw_curves", draw_curves)
    best = run(recipe, prepared, vgg, tmp_path)
    model = CSRNet.from_pretrained(tmp_path / "best")
    assert model.training_record is not None
    assert model.training_record["step"] == 4
    assert model.metrics is not None
    assert model.metrics["validation"]["mae"] == best
    assert model.metrics["validation"]["images"] == 2
    assert model.interval is None  # two pictures are too few
    assert (model.min_side, model.working_pixels) == (recipe.crop, 2**20)
    widest = max(float(one.sigma.max(initial=0)) for one in load_prepared(prepared))
    assert 0 < model.largest_sigma <= min(widest, recipe.sigma[1])
    start = CSRNet()
    load_vgg16_frontend(start, vgg)
    start = start.half().float()
    assert torch.equal(model.frontend[7].weight, start.frontend[7].weight)  # frozen
    assert not torch.equal(model.frontend[10].weight, start.frontend[10].weight)
    card = (tmp_path / "best" / "README.md").read_text(encoding="utf-8")
    assert f"| 2 | {best:.1f} |" in card
    log = read_log(tmp_path / "log.jsonl")
    assert log[-1]["mae"] == best
    each = log[-1]["counts"]
    assert sorted(each) == sorted(
        example.name for example in split(load_prepared(prepared), 2, recipe.seed)[1]
    )
    assert np.mean([abs(count - heads) for heads, count in each.values()]) == pytest.approx(best)
    assert "counts" not in model.metrics["validation"]  # nor in the card, nor in config.json
    assert log[0]["crops_per_second"] > 0
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_counts_photographs_as_large_as_those_that_it_was_trained_on(
    recipe: Recipe, vgg: Path, tmp_path: Path
) -> None:
    pixels = np.zeros((1040, 1040, 3), np.uint8)
    heads = [np.full((3, 2), 500.0 + k) for k in range(3)]
    large = [Example(str(k), pixels, heads[k], np.full(3, 4.0), 3) for k in range(3)]
    fit.fit(replace(recipe, steps=1, validation=1), large, tmp_path, str(vgg), CPU)
    assert CSRNet.from_pretrained(tmp_path / "best").working_pixels == 1040**2
    card = (tmp_path / "best" / "README.md").read_text(encoding="utf-8")
    assert "measured as training saw them" not in card
    shrunk = [replace(one, pixels=pixels[:500, :500], shrunk_to=250_000) for one in large]
    fit.fit(replace(recipe, steps=1, validation=1), shrunk, tmp_path / "small", str(vgg), CPU)
    assert CSRNet.from_pretrained(tmp_path / "small" / "best").working_pixels == 250_000
    card = (tmp_path / "small" / "best" / "README.md").read_text(encoding="utf-8")
    assert "1 of them were larger, and were measured as training saw them" in card
    assert "shrunk to about 250,000 pixels" in card


def test_a_model_tells_what_it_was_trained_on_and_what_that_took(
    recipe: Recipe, vgg: Path, tmp_path: Path
) -> None:
    for name, counts in (("part_A", [7, 8, 50]), ("part_B", [4, 5, 6])):
        write_part(tmp_path / name, counts)
    data = tmp_path / "both.h5"
    folders = [str(tmp_path / name) for name in ("part_A", "part_B")]
    assert prepare.main([*folders, str(data)]) == 0
    short = replace(recipe, validation=1, steps=1)
    train = split(load_prepared(data), 1, recipe.seed)[0]
    learnt = [min(one.count for one in train), max(one.count for one in train)]
    run(short, data, vgg, tmp_path / "a")
    record = CSRNet.from_pretrained(tmp_path / "a" / "best").training_record
    assert record is not None
    assert record["heads"] == learnt
    assert record["kernels"] == {"part_A": "adaptive", "part_B": [15.0, 15.0]}
    assert record["seconds"] >= 0
    card = " ".join((tmp_path / "a" / "best" / "README.md").read_text(encoding="utf-8").split())
    assert f"Trained on photographs of {learnt[0]} to {learnt[1]} people." in card
    assert "kernels: for part_A geometry-adaptive (beta 0.3" in card
    assert "pixels), for part_B 15 pixels wide." in card
    assert f"on {record['device']}." in card

    run(replace(short, steps=2), data, vgg, tmp_path / "a", resume=tmp_path / "a" / "last.pt")
    again = CSRNet.from_pretrained(tmp_path / "a" / "best").training_record
    assert again is not None
    assert again["heads"] == learnt


def test_the_heads_of_the_model_that_a_run_starts_from_count_too(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    crowded = [replace(one, count=one.count + 700) for one in load_prepared(prepared)]
    fit.fit(recipe, crowded, tmp_path / "a", str(vgg), CPU)
    first = str(tmp_path / "a" / "best")
    short = replace(recipe, steps=1, choose_by="last")
    run(short, prepared, vgg, tmp_path / "b", init=first)
    run(short, prepared, vgg, tmp_path / "c", init=first, refit=str(tmp_path / "b" / "best"))
    longer = replace(short, steps=2)
    run(longer, prepared, vgg, tmp_path / "d", resume=tmp_path / "b" / "last.pt")
    low = min(one.count for one in split(load_prepared(prepared), 2, recipe.seed)[0])
    high = max(one.count for one in split(crowded, 2, recipe.seed)[0])
    for folder, least in (("d/best", low), ("c/refit", 0)):
        record = CSRNet.from_pretrained(tmp_path / folder).training_record
        assert record is not None
        assert record["heads"] == [least, high]


def test_heads_that_are_not_known_of_all_photographs_are_not_told(
    recipe: Recipe, prepared: Path
) -> None:
    train = load_prepared(prepared)
    for before in (None, {"heads": [3, 9]}):
        assert of_training(recipe, train, before)["heads"] == [0, 45]
    assert "heads" not in of_training(recipe, train, {"converted_from": "old.pth"})
    masked = replace(train[0], mask=np.ones(train[0].pixels.shape[:2], bool))
    assert "heads" not in of_training(recipe, [*train[1:], masked])  # its count is of a part alone


def test_kernels_are_told_from_the_least_to_the_widest(recipe: Recipe) -> None:
    one = Example("a", np.zeros((64, 64, 3), np.uint8), np.full((1, 2), 9.0), np.array([9.0]), 1)
    train = [replace(one, sigma=np.array([width]), fixed=True) for width in (9.0, 4.0, 12.0, 7.0)]
    pyramid = replace(recipe, loss="pyramid")
    assert of_training(pyramid, train)["kernels"] == {"": [4.0, 12.0]}


def test_where_the_points_themselves_were_the_targets_the_card_tells_of_no_kernels(
    recipe: Recipe, prepared: Path
) -> None:
    train = [replace(one, part=part) for one in load_prepared(prepared) for part in "AB"]
    changed, model = replace(recipe, loss="bayesian"), CSRNet()
    model.training_record = {
        **changed.to_dict(),
        **{"step": 1, "loss": RECORD["bayesian"], "frontend": "x"},
        **of_training(changed, train),
    }
    told = " ".join(card_of(model.config()).split())
    assert "Targets: the annotated points themselves." in told


def test_what_whole_scenes_leave_to_train_on_is_said(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filmed = [
        replace(one, scene=f"scene {number // 2}")
        for number, one in enumerate(load_prepared(prepared))
    ]
    fit.fit(replace(recipe, validation=2, steps=1), filmed, tmp_path, str(vgg), CPU)
    said = "2 more because they show the same scenes; 6 are left to train on."
    assert said in capsys.readouterr().err


def test_a_picture_under_two_names_on_both_sides_of_the_split_is_told(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    examples = load_prepared(prepared)
    held_out = split(examples, 2, recipe.seed)[1]
    crowded = max(held_out, key=lambda one: one.count)
    twice = [*examples, replace(crowded, name="copy")]
    with pytest.warns(UserWarning, match="same picture as .* is trained on.*exclude"):
        fit.fit(replace(recipe, steps=1), twice, tmp_path, str(vgg), CPU)


def test_photographs_of_nobody_that_two_folders_name_alike_are_not_called_the_same(
    recipe: Recipe, prepared: Path
) -> None:
    one, *_ = load_prepared(prepared)
    nobody = replace(one, heads=one.heads[:0], sigma=one.sigma[:0], count=0)
    two = [replace(nobody, name=f"{part}-leaf", part=part) for part in "ab"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photographs.warn_of_twins(two[:1], two[1:])


def test_of_several_processes_one_warns(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = load_prepared(prepared)
    known = Seen({digest(one) for one in examples}, 0)
    monkeypatch.setattr(photographs, "place", lambda: (1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photographs.warn_of_twins(examples, examples)
        assert photographs.warn_of_seen("model", known, examples) == len(examples)


def test_of_scenes_that_are_held_out_the_card_says_so(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    film = [replace(one, scene=f"street {i % 5}") for i, one in enumerate(load_prepared(prepared))]
    fit.fit(replace(recipe, steps=1), film, tmp_path, str(vgg), CPU)
    record = CSRNet.from_pretrained(tmp_path / "best").training_record
    assert record is not None
    assert len(record["photographs"].split()) == 6  # two scenes of two frames each are held out
    card = " ".join((tmp_path / "best" / "README.md").read_text(encoding="utf-8").split())
    assert "2 of them are one frame each of 2 scenes (or clips) of fixed cameras" in card


def test_a_joint_run_says_how_it_does_on_each_part(
    recipe: Recipe, vgg: Path, tmp_path: Path
) -> None:
    for name, counts in (("sparse", [1, 2, 3]), ("dense", [40, 41])):
        write_part(tmp_path / name, counts)
    samples, sigmas, *_ = gather([tmp_path / "sparse", tmp_path / "dense"])
    prepare.prepare(samples, tmp_path / "both.h5", sigmas)
    one_each = replace(recipe, validation=1, repeat={"dense": 2})
    run(one_each, tmp_path / "both.h5", vgg, tmp_path / "run")
    found = CSRNet.from_pretrained(tmp_path / "run" / "best").metrics
    assert found is not None
    parts = found["validation"]["parts"]
    assert list(parts) == ["dense", "sparse"]
    mean = (parts["dense"]["mae"] + parts["sparse"]["mae"]) / 2
    assert found["validation"]["mae"] == pytest.approx(mean)


@pytest.mark.parametrize(("measure", "kept"), [("mae", 3), ("nae", 2), ("last", 4)])
def test_the_weights_that_are_kept_are_those_that_the_recipe_chooses(
    recipe: Recipe,
    prepared: Path,
    vgg: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    measure: str,
    kept: int,
) -> None:
    found = iter([(9.0, None), (8.0, 0.2), (7.0, 0.3), (7.5, 0.25)])

    def validated(now, *rest):  # type: ignore[no-untyped-def]
        mae, nae = next(found)
        now.average.metrics = {"validation": {"images": 2, "mae": mae}}
        return {"images": 2, "mae": mae, "rmse": 9.0, "nae": nae, "bias": 0.0}

    monkeypatch.setattr(loop, "validate", validated)
    recipe = replace(recipe, validate_every=1, choose_by=measure)
    best = run(recipe, prepared, vgg, tmp_path)
    record = CSRNet.from_pretrained(tmp_path / "best").training_record
    assert record is not None
    assert record["step"] == kept
    assert best == {"mae": 7.0, "nae": 0.2, "last": 7.5}[measure]


def test_a_compiled_network_trains_as_the_plain_one(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(recipe, prepared, vgg, tmp_path / "a")
    # traced alone: no compiler is needed for that
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    compiled = run(recipe, prepared, vgg, tmp_path / "b", compiled=True)
    assert compiled == pytest.approx(plain, rel=1e-4)


def test_a_network_is_compiled_where_one_asks_for_it(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[CSRNet] = []
    monkeypatch.setattr(torch, "compile", lambda net: compiled.append(net) or net)
    write_recipe(recipe, tmp_path / "r.toml")
    arguments = [str(tmp_path / "r.toml"), "--data", str(prepared), "--vgg", str(vgg)]
    arguments += ["--device", "cpu"]
    for more, compilations in (([], 0), (["--compile"], 1)):
        assert fit.main([*arguments, "--out", str(tmp_path / f"{compilations}"), *more]) == 0
        assert len(compiled) == compilations


def test_the_figures_of_a_model_are_those_of_its_file(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    recipe = replace(recipe, validation=9)
    best = run(recipe, prepared, vgg, tmp_path)
    held_out = split(load_prepared(prepared), 9, recipe.seed)[1]
    counter = CrowdCounter.from_pretrained(tmp_path / "best", "cpu")
    results = [counter.count(example.pixels) for example in held_out]
    errors = [result.count - example.count for result, example in zip(results, held_out)]
    assert np.abs(errors).mean() == pytest.approx(best, rel=1e-6)
    inside = [
        result.interval[0] - 1e-3 <= example.count <= result.interval[1] + 1e-3
        for result, example in zip(results, held_out)
        if result.interval is not None
    ]
    assert len(inside) == 9
    assert all(inside)  # nine pictures: the quantile is the greatest error


def test_validation_counts_inside_the_region_of_interest_alone(
    recipe: Recipe, prepared: Path
) -> None:
    now = state.begin(recipe, lively(), {}, CPU)
    (one, *_) = load_prepared(prepared)
    left = np.zeros(one.pixels.shape[:2], bool)
    left[:, :40] = True  # five columns of cells
    density = CrowdCounter(now.average, "cpu").count(one.pixels).density
    parts = {True: density[:, :5].sum(), False: density[:, 5:].sum()}
    for side, expected in parts.items():
        errors = validate(now, [replace(one, mask=left if side else ~left)], CPU)
        (count,) = [count for _, count in errors["counts"].values()]
        assert count == pytest.approx(expected, rel=0.05)
        assert abs(expected - density.sum()) > 0.2 * density.sum() > 0.02


def test_an_interval_is_that_of_whole_pictures(recipe: Recipe, prepared: Path) -> None:
    now = state.begin(recipe, lively(), {}, CPU)
    whole = load_prepared(prepared)
    validate(now, whole, CPU)
    alone = now.average.interval
    assert alone is not None
    corner = np.zeros(whole[0].pixels.shape[:2], bool)
    corner[:9, :9] = True
    inside = [replace(one, mask=corner, count=400) for one in whole]
    validate(now, [*whole, *inside], CPU)
    assert now.average.interval == alone
    validate(now, inside, CPU)
    assert now.average.interval is None


def test_an_interval_is_as_wide_as_the_part_needs_that_is_hardest(
    recipe: Recipe, prepared: Path
) -> None:
    now = state.begin(recipe, lively(), {}, CPU)
    photos = load_prepared(prepared)
    hard = [
        replace(photos[0], name=f"hard {number}", part="hard", count=100 * number)
        for number in range(1, 10)
    ]
    errors = validate(now, [*photos, *hard], CPU)
    heads, counts = zip(*errors["counts"].values())
    parts = [one.part for one in photos] + ["hard"] * 9
    each = PredictionInterval.calibrate(counts, heads, groups=parts)
    assert now.average.interval == each != PredictionInterval.calibrate(counts, heads)


def test_a_run_starts_from_another_model_and_says_which(
    recipe: Recipe, prepared: Path, vgg: Path, model_folder: Path, tmp_path: Path
) -> None:
    still = replace(recipe, steps=1, lr_frontend=0.0, lr_backend=0.0, weight_decay=0.0)
    run(still, prepared, vgg, tmp_path / "a", init=str(model_folder))
    tuned = CSRNet.from_pretrained(tmp_path / "a" / "best")
    before = CSRNet.from_pretrained(model_folder).half().float().state_dict()
    after = tuned.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert tuned.training_record is not None
    assert tuned.training_record["init"]["model"] == "small-model"
    with pytest.raises(fit.TrainingError, match=r"density_scale 10\.0"):
        run(replace(still, density_scale=1.0), prepared, vgg, tmp_path, init=str(model_folder))


def test_a_new_run_has_no_figures_of_the_model_that_it_starts_from(
    recipe: Recipe, tmp_path: Path
) -> None:
    known = lively()
    known.interval = PredictionInterval.calibrate([1.0] * 20, [2] * 20)
    known.metrics = {"validation": {"mae": 1.0}}
    known.save_pretrained(tmp_path / "known")
    begun = state.start_from(recipe, str(tmp_path / "known"), CPU)
    for one in (begun.model, begun.average):
        assert (one.interval, one.metrics, one.training_record) == (None, None, None)


def test_what_is_saved_is_on_the_disk_before_it_takes_its_name(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: set[int] = set()
    named: dict[str, bool] = {}

    replace_file = Path.replace

    def watched(path: Path, target: Path) -> Path:
        if target.parent in (tmp_path, tmp_path / "best"):
            named[target.name] = path.stat().st_ino in written
        return replace_file(path, target)

    monkeypatch.setattr(os, "fsync", lambda file: written.add(os.fstat(file).st_ino))
    monkeypatch.setattr(Path, "replace", watched)
    now = state.begin(recipe, lively(), {}, CPU)
    state.save_checkpoint(now, recipe, tmp_path / "last.pt")
    state.save_model(now, recipe, tmp_path / "best")
    names = ("last.pt", "config.json", "model.safetensors", "README.md")
    assert named == dict.fromkeys(names, True)


def test_a_run_from_a_model_that_saw_its_validation_images_says_so(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    run(recipe, prepared, vgg, tmp_path / "a")
    first = CSRNet.from_pretrained(tmp_path / "a" / "best").training_record
    assert first is not None
    assert len(first["photographs"].split()) == 8  # of ten, two being held out
    more = replace(recipe, validation=5, steps=1, choose_by="last")
    with pytest.warns(UserWarning, match=r"was trained on [345] of the 5 validation images"):
        run(more, prepared, vgg, tmp_path / "b", init=str(tmp_path / "a" / "best"))
    second = CSRNet.from_pretrained(tmp_path / "b" / "best").training_record
    assert second is not None
    with pytest.raises(fit.TrainingError, match="started from other weights: give the --init"):
        run(more, prepared, tmp_path / "no VGG", tmp_path / "c", refit=str(tmp_path / "b" / "best"))
    assert len(second["photographs"].split()) in (8, 9, 10)
    assert "photographs" not in second["init"]
    card = " ".join((tmp_path / "b" / "best" / "README.md").read_text(encoding="utf-8").split())
    assert f"{second['seen']} of them had been trained on by the model" in card
    assert "chose the checkpoint" not in card
    run(
        more,
        prepared,
        vgg,
        tmp_path / "d",
        init=str(tmp_path / "a" / "best"),
        refit=str(tmp_path / "b" / "best"),
    )
    lent = CSRNet.from_pretrained(tmp_path / "d" / "refit").training_record
    assert lent is not None
    assert lent["seen"] == second["seen"]
    same = replace(recipe, steps=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # held out as before
        run(same, prepared, vgg, tmp_path / "c", init=str(tmp_path / "a" / "best"))


def test_a_model_saw_photographs_that_were_shrunk_for_it_and_are_validated_on_as_they_are(
    recipe: Recipe, vgg: Path, tmp_path: Path
) -> None:
    samples = read_shanghaitech(write_part(tmp_path / "part_A", [5, 9, 14, 20]), "train")
    for name, pixels in (("small", 72 * 96 // 4), ("large", 0)):
        prepare.prepare(samples, tmp_path / name, max_pixels=pixels)
    run(replace(recipe, validation=1), tmp_path / "small", vgg, tmp_path / "a")
    init = str(tmp_path / "a" / "best")
    with pytest.warns(UserWarning, match=r"was trained on [23] of the 3 validation images"):
        run(replace(recipe, validation=3), tmp_path / "large", vgg, tmp_path / "b", init=init)
    record = CSRNet.from_pretrained(tmp_path / "b" / "best").training_record
    assert record is not None
    assert record["seen"] in (2, 3)


def test_the_widest_kernels_of_training_are_told(recipe: Recipe) -> None:
    """... where they are what the map is drawn with, at many sizes."""
    pixels, heads = np.zeros((64, 64, 3), np.uint8), np.full((3, 2), 30.0)
    adaptive = Example("a", pixels, heads, np.array([1.0, 7.0, 99.0]), 3)
    fixed = replace(adaptive, sigma=np.full(3, 15.0), fixed=True)
    nobody = replace(adaptive, heads=heads[:0], sigma=np.zeros(0), count=0)
    recipe = replace(recipe, sigma=[2.0, 12.0], crops="random", loss="pyramid")
    model = CSRNet()
    for changed, train, told in (
        (recipe, [adaptive, nobody], 12.0),
        (recipe, [adaptive, fixed], 15.0),
        (recipe, [nobody], 0.0),
        (recipe, [replace(fixed, sigma=np.full(3, 1e9))], 1e6),  # no more than a config holds
        (recipe, [replace(fixed, sigma=np.full(3, 1e-9))], 1e-6),
        (replace(recipe, sigma=[2.0, 80.0]), [replace(adaptive, sigma=np.full(3, 5.0))], 5.0),
        (replace(recipe, loss="bayesian"), [adaptive], 0.0),
        (replace(recipe, crops="quarters"), [adaptive], 0.0),
    ):
        photographs.set_sizes(model, changed, train)
        assert model.largest_sigma == told
        CSRNet(**model.config())


def test_a_refit_takes_every_picture_and_the_figures_of_the_run_without_them(
    recipe: Recipe,
    prepared: Path,
    vgg: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(recipe, prepared, vgg, tmp_path / "a")
    judge = tmp_path / "a" / "best"
    taken: list[int] = []
    crops = fit.Crops
    monkeypatch.setattr(
        fit, "Crops", lambda own, *rest: taken.append(len(own)) or crops(own, *rest)
    )
    run(recipe, prepared, vgg, tmp_path / "b", refit=str(judge))
    assert taken == [10]
    refit, judged = (CSRNet.from_pretrained(tmp_path / name) for name in ("b/refit", "a/best"))
    assert refit.metrics == judged.metrics
    assert refit.training_record is not None
    assert refit.training_record["refit"] == 4
    weights = refit.output_layer.weight, judged.output_layer.weight
    assert not torch.equal(*weights)
    judged.min_side, judged.working_pixels, judged.largest_sigma = 8, 9, 10.0
    judged.interval = PredictionInterval(0.9, 2.0, 60)
    half = state.new_state(recipe, str(vgg), CPU)
    half.step = 2
    for _ in range(2):  # a resumed refit has its figures lent anew
        state.lend_figures(half, judged)
        half.step = 3
    assert (half.origin["refit_from"], half.origin["refit"]) == (2, 4)
    lent = half.average
    assert (lent.min_side, lent.working_pixels, lent.largest_sigma) == (8, 9, 10.0)
    assert lent.interval == judged.interval
    state.save_model(half, recipe, tmp_path / "half")
    card = (tmp_path / "half" / "README.md").read_text(encoding="utf-8")
    assert "too, from step 2 on; all choices" in card
    assert not (tmp_path / "b" / "best").exists()

    last = tmp_path / "b" / "last.pt"
    longer = replace(recipe, steps=5)
    for changed, options, trouble in (
        (longer, {"resume": last}, "resume it with --refit MODEL"),
        (longer, {"refit": str(judge)}, "differs in steps"),
        (recipe, {"refit": str(tmp_path / "b" / "refit")}, "no validation figures"),
        (recipe, {"refit": str(model_folder)}, "no validation figures"),
        (recipe, {"refit": str(judge), "init": str(model_folder)}, "started from other weights"),
    ):
        with pytest.raises(fit.TrainingError, match=trouble):
            run(changed, prepared, vgg, tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


def test_a_refit_on_other_photographs_has_no_figures_of_the_run_without_them(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    run(recipe, prepared, vgg, tmp_path / "a")
    others = [replace(one, heads=one.heads / 2) for one in load_prepared(prepared)]
    with pytest.raises(fit.TrainingError, match="not trained on the photographs of --data"):
        fit.fit(recipe, others, tmp_path / "b", str(vgg), CPU, refit=str(tmp_path / "a" / "best"))


def test_a_better_model_replaces_the_last_one_and_its_card(
    recipe: Recipe, vgg: Path, tmp_path: Path
) -> None:
    now = state.new_state(recipe, str(vgg), CPU)
    for step, mae in ((1, 20.25), (2, 10.25)):
        now.step = step
        now.average.metrics = {"validation": {"images": 2, "mae": mae}}
        state.save_model(now, recipe, tmp_path / "best")
    card = (tmp_path / "best" / "README.md").read_text(encoding="utf-8")
    assert "10.2" in card
    assert "20.2" not in card
    assert "those of step 2" in card
    assert "vgg.safetensors" in card
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert CSRNet.from_pretrained(tmp_path / "best").metrics == {
        "validation": {"images": 2, "mae": 10.25}
    }


def test_what_a_user_put_beside_a_model_outlives_the_next_better_one(
    recipe: Recipe, vgg: Path, tmp_path: Path
) -> None:
    now, best = state.new_state(recipe, str(vgg), CPU), tmp_path / "best"
    state.save_model(now, recipe, best)
    (best / "model.onnx").write_bytes(b"theirs")
    (best / "notes").mkdir()
    (best / "notes" / "a.txt").write_text("Ask Ada.")
    card = (best / "README.md").read_text(encoding="utf-8") + "\nAsk Ada.\n"
    (best / "README.md").write_text(card, encoding="utf-8")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")  # Python's own: once a run
        for now.step in (1, 2):
            state.save_model(now, recipe, best)
    assert ["the model's record has changed" in str(one.message) for one in told] == [True]
    assert (best / "model.onnx").read_bytes() == b"theirs"
    assert (best / "notes" / "a.txt").read_text() == "Ask Ada."
    assert (best / "README.md").read_text(encoding="utf-8") == card
    assert step_of(best) == 2
    assert len(list(best.iterdir())) == 5


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_to_another_disk_stays_one(recipe: Recipe, vgg: Path, tmp_path: Path) -> None:
    now, best = state.new_state(recipe, str(vgg), CPU), tmp_path / "best"
    (tmp_path / "disk").mkdir()
    best.symlink_to(tmp_path / "disk")
    for now.step in (1, 2):
        state.save_model(now, recipe, best)
    assert best.is_symlink()
    assert step_of(tmp_path / "disk") == 2


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 54 GiB"), RuntimeError("can't allocate memory")]
)
def test_too_little_memory_is_a_sentence(
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    def full(*args: Any) -> None:
        raise error

    monkeypatch.setattr(fit, "fit", full)
    arguments = [str(RECIPES / "own.toml"), "--data", str(prepared), "--out", str(tmp_path / "o")]
    assert fit.main(arguments) == 1
    told = capsys.readouterr().err
    assert str(error) in told
    assert "lower batch or crop, or prepare fewer" in told
    monkeypatch.setattr(fit, "fit", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    assert fit.main(arguments) == 130
    assert "no checkpoint was kept yet" in capsys.readouterr().err
    monkeypatch.setattr(fit, "fit", lambda *args: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        fit.main(arguments)


def test_a_refit_is_one_command_and_says_whose_errors_it_has(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(recipe, tmp_path / "r.toml")
    arguments = [str(tmp_path / "r.toml"), "--data", str(prepared), "--vgg", str(vgg)]
    arguments += ["--device", "cpu", "--out"]
    assert fit.main([*arguments, str(tmp_path / "a")]) == 0
    judge = str(tmp_path / "a" / "best")
    assert fit.main([*arguments, str(tmp_path / "b"), "--refit", judge]) == 0
    made = tmp_path / "b" / "refit"
    assert f"the model is in {made}; its errors are those of {judge}" in capsys.readouterr().out
    record = CSRNet.from_pretrained(made).training_record
    assert record is not None
    assert record["refit"] == 4


def test_the_back_end_starts_as_the_recipe_says(recipe: Recipe, vgg: Path) -> None:
    for how, deviation in (("he", (2 / (9 * 16)) ** 0.5), ("paper", 0.01)):
        model = state.new_state(replace(recipe, backend_init=how), str(vgg), CPU).model
        first = model.backend[0].weight  # (16, 16, 3, 3)
        assert first.std().item() == pytest.approx(deviation, rel=0.1)


def test_the_rate_warms_up_stays_level_and_falls_to_zero(recipe: Recipe) -> None:
    long = replace(recipe, steps=100, warmup=10, cooldown=0.4)
    rates = [rate(long, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:60] == [1.0] * 50
    assert rates[80] == pytest.approx(0.5)
    assert rates[100] == 0
    assert [rate(long, step, 50) for step in (49, 50, 59, 80)] == [0.0, 0.1, 1.0, 0.5]


@pytest.mark.parametrize("after", [0, 2])
def test_a_run_that_breaks_keeps_its_last_good_state(
    recipe: Recipe,
    prepared: Path,
    vgg: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    step = loop.train_step

    def broken(now, *rest):  # type: ignore[no-untyped-def]
        if now.step == after:  # the loss of this step is finite still, the weights are not
            done = step(now, *rest)
            torch.nn.init.constant_(now.model.output_layer.bias, float("nan"))
            return done
        return step(now, *rest)

    monkeypatch.setattr(loop, "train_step", broken)
    with pytest.raises(fit.TrainingError, match=f"NaN or infinite near step {after + 1}: lower"):
        run(recipe, prepared, vgg, tmp_path)
    assert (tmp_path / "last.pt").exists() == (after > 0)
    if after:
        good = state.load_checkpoint(tmp_path / "last.pt", recipe, CPU)
        assert good.step == after
        assert torch.isfinite(good.model.output_layer.bias).all()


def test_weights_that_are_not_finite_are_not_kept_to_train_longer_from(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop.train_step

    def broken(now, *rest):  # type: ignore[no-untyped-def]
        done = step(now, *rest)
        if now.step == 1:
            torch.nn.init.constant_(now.model.output_layer.bias, float("nan"))
        return done

    monkeypatch.setattr(loop, "train_step", broken)
    with pytest.raises(fit.TrainingError):
        run(replace(recipe, steps=6, cooldown=0.5), prepared, vgg, tmp_path)
    assert not (tmp_path / "before_cooldown.pt").exists()


def test_a_run_whose_last_model_could_not_be_written_is_not_taken_for_finished(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop, "save_model", full)
    with pytest.raises(OSError, match="No space left"):
        run(replace(recipe, steps=2, cooldown=1.0, warmup=0), prepared, vgg, tmp_path)
    assert not any("mae" in entry for entry in read_log(tmp_path / "log.jsonl"))
    assert not (tmp_path / "before_cooldown.pt").exists()  # with nothing learnt


def test_a_longer_run_from_before_the_cooldown_ends_as_one_that_was_as_long_from_the_start(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    short = replace(recipe, steps=6, cooldown=0.5, validate_every=9)
    run(short, prepared, vgg, tmp_path / "a")
    before = tmp_path / "a" / "before_cooldown.pt"
    assert state.load_checkpoint(before, short, CPU).step == 3
    long = replace(short, steps=8)
    resumed = run(long, prepared, vgg, tmp_path / "b", resume=before)
    assert resumed == pytest.approx(run(long, prepared, vgg, tmp_path / "c"), rel=1e-5)


def test_rates_that_never_fall_leave_no_checkpoint_from_before_they_did(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    run(replace(recipe, cooldown=0.0), prepared, vgg, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["last.pt"]


@pytest.mark.parametrize(("steps", "told"), [(2, True), (17, True), (18, False), (300, False)])
def test_rates_that_fall_before_they_have_risen_are_told(
    recipe: Recipe, capsys: pytest.CaptureFixture[str], steps: int, told: bool
) -> None:
    short = replace(recipe, steps=steps, warmup=10, cooldown=0.5)
    assert (max(rate(short, step) for step in range(steps)) < 1) == told
    photographs.tell_of_rates(short)
    said = f"fit: in {steps} steps the learning rates never reach those of the recipe"
    assert (said in capsys.readouterr().err) == told


def test_a_run_that_ends_within_its_warmup_is_told_of_where_more_steps_help(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs.tell_of_rates(replace(recipe, steps=4, warmup=10, cooldown=0.0))
    assert "because the run ends within the 10 steps of warmup." in capsys.readouterr().err
    photographs.tell_of_rates(replace(recipe, steps=4, warmup=10, cooldown=1.0))
    assert not capsys.readouterr().err


def test_several_processes_train_as_one_with_the_joined_batch(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    # SGD: a step is as long as its gradient, which AdamW's is not
    change = {"optimiser": "sgd", "batch": 2, "steps": 2, "weight_decay": 0.0, "lr_backend": 1e-4}
    both = replace(recipe, **change, lr_frontend=1e-4)  # type: ignore[arg-type]
    write_recipe(both, tmp_path / "r.toml")
    arguments = [str(tmp_path / "r.toml"), "--data", str(prepared), "--vgg", str(vgg)]
    arguments += ["--device", "cpu"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--standalone", "-m", "tests.thin", *arguments]
    done = subprocess.run(
        [*torchrun, "--out", str(tmp_path / "two")], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert fit.main([*arguments, "--out", str(tmp_path / "one")]) == 0
    first = state.new_state(both, str(vgg), CPU).model.state_dict()
    one, two = (
        state.load_checkpoint(tmp_path / name / "last.pt", both, CPU).model.state_dict()
        for name in ("one", "two")
    )
    for key in ("backend.0.weight", "backend.10.weight", "frontend.21.weight", "output_layer.bias"):
        moved = (one[key] - first[key]).norm()
        assert moved > 0
        assert (two[key] - one[key]).norm() < 1e-3 * moved, key
    logs = [read_log(tmp_path / name / "log.jsonl")[0] for name in ("one", "two")]
    for key in ("loss", "empty"):  # of all crops, not of the first process's alone
        assert logs[1][key] == pytest.approx(logs[0][key], rel=1e-4)


@pytest.mark.parametrize(("world", "said"), [("1", "a end"), ("2", "a")])
def test_one_of_several_processes_ends_before_gloos_threads_can_abort_it(
    world: str, said: str
) -> None:
    code = "import atexit; from train.processes import leave; atexit.register(print, 'end'); "
    done = subprocess.run(
        [sys.executable, "-c", code + "print('a'); leave(3)"],
        env={**os.environ, "WORLD_SIZE": world},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.split()) == (3, said.split())


def test_a_run_that_could_save_no_card_does_not_begin(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "resource", lambda name: None)
    with pytest.raises(fit.TrainingError, match=r"model_card\.md is missing"):
        run(recipe, prepared, vgg, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def write_recipe(recipe: Recipe, path: Path) -> None:
    lines = [f"{key} = {json.dumps(value)}" for key, value in recipe.to_dict().items()]
    path.write_text("\n".join(lines), encoding="utf-8")


def test_a_batch_that_cannot_be_shared_is_refused(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "place", lambda: (0, 2))
    with pytest.raises(fit.TrainingError, match="batch of 1 cannot be shared by 2"):
        run(recipe, prepared, vgg, tmp_path)


@pytest.mark.parametrize("left", ["best", "refit", "log.jsonl", "last.pt"])
def test_fit_never_writes_over_a_run_unasked(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], left: str
) -> None:
    (tmp_path / left).write_bytes(b"mine")
    arguments = [str(RECIPE), "--data", str(prepared), "--out", str(tmp_path)]
    how = "continue it with --resume, " if left == "last.pt" else ""
    for more, trouble in (
        ([], f"holds a run; {how}give another --out, or remove it first"),
        (["--resume", str(tmp_path / "before_cooldown.pt")], "give another --out"),
        (["--resume", "--init", "org/model"], "--resume or --init"),
    ):
        with pytest.raises(SystemExit):
            fit.main([*arguments, *more])
        assert trouble in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {left: b"mine"}


def test_two_runs_never_write_to_one_folder(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    with FileLock(tmp_path / ".lock"):  # as a run that has just begun holds it
        for resume in (None, tmp_path / "last.pt"):
            with pytest.raises(fit.TrainingError, match="another run is writing to"):
                run(recipe, prepared, vgg, tmp_path, resume=resume)
        assert not (tmp_path / "log.jsonl").exists()
    run(recipe, prepared, vgg, tmp_path)
    assert (tmp_path / "log.jsonl").exists()


def test_the_end_of_a_run_is_said_where_its_folder_cannot_be_printed(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(recipe, tmp_path / "r.toml")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "ascii"))
    arguments = [str(tmp_path / "r.toml"), "--data", str(prepared), "--vgg", str(vgg)]
    assert fit.main([*arguments, "--device", "cpu", "--out", str(tmp_path / "caf\u00e9")]) == 0
    sys.stdout.flush()
    assert rb"caf\xe9" in printed.getvalue()


def test_fit_says_what_is_wrong(prepared: Path, vgg: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    text = RECIPE.read_text(encoding="utf-8")
    text = re.sub(r"exclude = .*", "exclude = []", text).replace(
        "validation = 60", "validation = 2"
    )
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    start = [str(tmp_path / "r.toml"), "--data", str(prepared), "--out", str(tmp_path / "out")]
    assert fit.main([*start, "--vgg", str(vgg)]) == 1
    assert "train_only names images that do not exist: IMG_167" in capsys.readouterr().err
    (tmp_path / "parts.toml").write_text(
        re.sub(r"train_only = .*", "train_only = []", text).replace(
            "repeat = {}", "repeat = {A = 2}"
        )
    )
    assert fit.main([str(tmp_path / "parts.toml"), *start[1:], "--vgg", str(vgg)]) == 1
    told = capsys.readouterr().err
    assert "repeat names parts that do not exist: A; the file has no parts" in told
    assert "edit repeat in the recipe" in told
    assert fit.main([*start[:2], str(tmp_path / "no.h5"), *start[3:]]) == 1
    assert "no prepared file" in capsys.readouterr().err
    text = re.sub(r"train_only = .*", "train_only = []", text)
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    assert fit.main([*start, "--vgg", str(tmp_path / "no.safetensors")]) == 1
    assert "no file" in capsys.readouterr().err
    assert fit.main([*start, "--init", str(tmp_path)]) == 1
    assert "config.json" in capsys.readouterr().err
    assert fit.main([*start, "--resume"]) == 1
    assert "no checkpoint" in capsys.readouterr().err


def test_pictures_that_are_too_small_for_quarters_are_named(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    examples = load_prepared(prepared)
    tiny = replace(examples[3], pixels=examples[3].pixels[:15])
    quarters = replace(recipe, crops="quarters", batch=1, empty=0.0)
    with pytest.raises(state.TrainingError, match=f"at least 16 x 16 .* exclude {tiny.name} in"):
        fit.fit(quarters, [*examples[:3], tiny, *examples[4:]], tmp_path, str(vgg), CPU)


def test_going_on_in_a_new_folder_leaves_a_model_there_even_if_no_better_one(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    now = state.new_state(recipe, str(vgg), CPU)
    now.step, now.best = 2, 0.01  # an error that no later step has
    now.data = fingerprint(load_prepared(prepared))
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        state.save_checkpoint(now, recipe, tmp_path / name / "last.pt")
    found = run(recipe, prepared, vgg, tmp_path / "b", resume=tmp_path / "a" / "last.pt")
    assert found > 0.01
    assert (tmp_path / "b" / "best" / "config.json").is_file()
    state.save_model(now, recipe, tmp_path / "a" / "best")
    assert run(recipe, prepared, vgg, tmp_path / "a", resume=tmp_path / "a" / "last.pt") == 0.01
    assert step_of(tmp_path / "a" / "best") == 2
    (tmp_path / "c" / "best").mkdir()  # as a crash leaves it, while the first model is saved
    assert run(recipe, prepared, vgg, tmp_path / "c", resume=tmp_path / "c" / "last.pt") > 0.01
    assert step_of(tmp_path / "c" / "best") == 4


def test_fit_names_no_model_where_none_was_kept(
    recipe: Recipe,
    prepared: Path,
    vgg: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = {"images": 2, "mae": float("nan"), "rmse": 9.0, "nae": None, "bias": 0.0}
    monkeypatch.setattr(loop, "validate", lambda *rest: found)
    write_recipe(recipe, tmp_path / "r.toml")
    out = tmp_path / "out"
    arguments = [str(tmp_path / "r.toml"), "--data", str(prepared), "--out", str(out)]
    assert fit.main([*arguments, "--vgg", str(vgg), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "the validation MAE was never a number, so no model was kept" in told
    assert "best" not in told


def test_relative_errors_without_a_head_to_validate_on_are_refused(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    nobody = [replace(example, count=0) for example in load_prepared(prepared)]
    with pytest.raises(fit.TrainingError, match="no validation image has people: set choose_by"):
        fit.fit(replace(recipe, choose_by="nae"), nobody, tmp_path / "out", str(vgg), CPU)
    assert not (tmp_path / "out").exists()


def test_a_run_never_goes_on_with_other_photographs(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    examples = load_prepared(prepared)
    fit.fit(recipe, examples, tmp_path / "a", str(vgg), CPU)
    last, longer = tmp_path / "a" / "last.pt", replace(recipe, steps=5)
    renamed = [replace(example, name=f"x{example.name}") for example in examples]
    recounted = [replace(example, count=example.count + 1) for example in examples]
    for other in (renamed, recounted, examples[1:]):
        with pytest.raises(fit.TrainingError, match="is from a run on different photographs"):
            fit.fit(longer, other, tmp_path / "b", str(vgg), CPU, last)
    assert not (tmp_path / "b").exists()
    fit.fit(longer, examples[::-1], tmp_path / "a", str(vgg), CPU, last)


def test_a_refit_chooses_nothing_so_what_chose_may_differ(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    run(recipe, prepared, vgg, tmp_path)
    for measure in CHOICES["choose_by"]:
        state.same_recipe(replace(recipe, choose_by=measure), str(tmp_path / "best"), [])


@pytest.mark.parametrize(("judge", "refit"), [("mae", "last"), ("nae", "last"), ("last", "mae")])
def test_a_refit_says_whether_the_validation_images_chose_what_was_measured_on_them(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path, judge: str, refit: str
) -> None:
    run(replace(recipe, choose_by=judge), prepared, vgg, tmp_path / "a")
    measured = str(tmp_path / "a" / "best")
    run(replace(recipe, choose_by=refit), prepared, vgg, tmp_path / "b", refit=measured)
    lent = CSRNet.from_pretrained(tmp_path / "b" / "refit").training_record
    assert lent is not None
    assert lent["choose_by"] == judge
    card = (tmp_path / "b" / "refit" / "README.md").read_text(encoding="utf-8")
    assert ("They also chose the checkpoint" in card) == (judge != "last")


SAVED = """
import os, sys
from pathlib import Path
import pytest, torch
from tests.thin import narrow
from train import recipe, state
narrow(pytest.MonkeyPatch())
out, moment, replace_file = Path(sys.argv[1]), sys.argv[2], Path.replace
Path.replace = lambda path, to: os._exit(9) if path.name == moment else replace_file(path, to)
own = recipe.read_recipe(Path(sys.argv[3]))
now = state.begin(own, state.CSRNet(own.variant), {}, torch.device("cpu"))
now.step = 2
state.save_model(now, own, out)
"""


@pytest.mark.parametrize("moment", ["model.safetensors", "config.json", "README.md"])
def test_a_crash_while_a_model_is_replaced_never_loses_it(
    recipe: Recipe, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    now, out = state.new_state(recipe, str(vgg), CPU), tmp_path / "best"
    now.step = 1
    state.save_model(now, recipe, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    killed = [sys.executable, "-c", SAVED, str(out), moment, str(RECIPE)]
    assert subprocess.run(killed, timeout=300).returncode == 9
    assert len(list(out.iterdir())) == 4
    with monkeypatch.context() as patch:
        patch.setattr(CSRNet, "save_pretrained", lambda *_: {}["full"])
        with pytest.raises(KeyError):
            state.save_model(now, recipe, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    now.step = 2
    state.save_model(now, recipe, out)
    assert step_of(out) == 2


@pytest.mark.parametrize("busy", [2, 99])
def test_a_file_that_another_program_holds_open_is_waited_for_but_not_for_ever(
    recipe: Recipe, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: int
) -> None:
    now, best = state.new_state(recipe, str(vgg), CPU), tmp_path / "best"
    state.save_model(now, recipe, best)
    checkpoint = tmp_path / "last.pt"
    replace_file = Path.replace
    tried: list[Path] = []

    def held(path: Path, target: Path) -> Path:
        if target in (best / "config.json", checkpoint) and path.parent.name != "older":
            tried.append(path)
            if len(tried) <= busy:
                raise PermissionError(13, "Access is denied")  # as Windows says it
        return replace_file(path, target)

    monkeypatch.setattr(Path, "replace", held)
    monkeypatch.setattr(state, "PAUSES", [0.0] * 3)
    now.step = 1
    with pytest.raises(PermissionError) if busy > 3 else nullcontext():
        state.save_model(now, recipe, best)
    assert step_of(best) == (0 if busy > 3 else 1)
    assert len(tried) == (4 if busy > 3 else 3)
    tried.clear()
    with pytest.raises(PermissionError) if busy > 3 else nullcontext():
        state.save_checkpoint(now, recipe, checkpoint)
    assert checkpoint.exists() == (busy < 3)


def test_the_curves_want_no_latex(tmp_path: Path) -> None:
    entry = {"step": 1, "loss": 2.0, "empty": 3.0, "mae": 4.0, "rmse": 5.0}
    (tmp_path / "log.jsonl").write_text(json.dumps(entry), encoding="utf-8")
    with rc_context({"text.usetex": True}):  # in a user's matplotlibrc
        draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size


def step_of(folder: Path) -> int:
    record = CSRNet.from_pretrained(folder).training_record
    assert record is not None
    return int(record["step"])


def test_photographs_of_ones_own_are_trained_on_with_the_recipe_for_them(
    tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, rows = np.random.default_rng(0), ["image,x,y"]
    (tmp_path / "own").mkdir()
    for number in range(12):
        pixels = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "own" / f"{number}.jpg")
        rows += [f"{number}.jpg,{x},{x}" for x in range(number)] or [f"{number}.jpg,,"]
    (tmp_path / "own" / "heads.csv").write_text("\n".join(rows))
    assert prepare.main([str(tmp_path / "own"), str(tmp_path / "own.h5")]) == 0
    start = ["--data", str(tmp_path / "own.h5"), "--init", str(model_folder), "--steps", "2"]
    start += ["--device", "cpu", "--out", str(tmp_path / "run")]
    assert fit.main([str(RECIPE), *start]) == 1
    told = capsys.readouterr().err
    assert "edit exclude in the recipe" in told
    assert "own.toml" in told
    assert fit.main([str(RECIPES / "own.toml"), *start]) == 0
    model = CSRNet.from_pretrained(tmp_path / "run" / "best")
    assert model.metrics is not None
    errors = model.metrics["validation"]
    assert errors["images"] == 3
    assert (
        f"validation MAE {errors['mae']:.1f} at the end; the model is in" in capsys.readouterr().out
    )


def test_the_recipe_for_photographs_of_ones_own_goes_with_the_shipped_model() -> None:
    config = json.loads((RECIPES.parents[1] / DEFAULT_MODEL / "config.json").read_text())
    recipe = read_recipe(RECIPES / "own.toml")
    assert (recipe.variant, recipe.density_scale) == (config["variant"], config["density_scale"])


def test_a_checkpoint_of_another_recipe_is_refused(
    recipe: Recipe, vgg: Path, tmp_path: Path
) -> None:
    now = state.new_state(recipe, str(vgg), CPU)
    state.save_checkpoint(now, recipe, tmp_path / "last.pt")
    longer = replace(recipe, steps=9)
    assert state.load_checkpoint(tmp_path / "last.pt", longer, CPU).step == 0
    with pytest.raises(fit.TrainingError, match="differs in crop"):
        state.load_checkpoint(tmp_path / "last.pt", replace(recipe, crop=128), CPU)
    whole = torch.load(tmp_path / "last.pt", weights_only=True)
    with pytest.raises(fit.TrainingError, match="differs in seed"):
        state.load_checkpoint(tmp_path / "last.pt", replace(recipe, seed=recipe.seed + 1), CPU)
    old = {**whole, "recipe": {**whole["recipe"], "colour": 0}}
    torch.save(old, tmp_path / "old.pt")
    with pytest.raises(fit.TrainingError, match="unknown entries: colour"):
        state.load_checkpoint(tmp_path / "old.pt", recipe, CPU)
    for lacking in ("photographs", "optimiser", "seconds"):
        torch.save({k: v for k, v in whole.items() if k != lacking}, tmp_path / "part.pt")
        with pytest.raises(fit.TrainingError, match=r"not a checkpoint of train\.fit"):
            state.load_checkpoint(tmp_path / "part.pt", recipe, CPU)
    with pytest.raises(fit.TrainingError, match="no checkpoint"):
        state.load_checkpoint(tmp_path / "none.pt", recipe, CPU)
    (tmp_path / "damaged.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:1000])
    torch.save({"state_dict": {}}, tmp_path / "foreign.pt")
    for name in ("damaged.pt", "foreign.pt"):
        with pytest.raises(fit.TrainingError, match=r"not a checkpoint of train\.fit"):
            state.load_checkpoint(tmp_path / name, recipe, CPU)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_checkpoint_that_cannot_be_loaded_now_is_not_called_damaged(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*args: Any, **options: Any) -> None:
        raise error

    (tmp_path / "last.pt").write_bytes(b"whole")
    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(type(error)):
        state.load_checkpoint(tmp_path / "last.pt", recipe, CPU)


def test_a_run_that_changed_its_loss_on_the_way_says_so(
    recipe: Recipe, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = state.new_state(recipe, str(vgg), CPU)
    now.step = 3
    state.save_checkpoint(now, recipe, tmp_path / "last.pt")
    assert state.load_checkpoint(tmp_path / "last.pt", recipe, CPU).loss == now.loss
    monkeypatch.setitem(loss.RECORD, recipe.loss, "another loss")
    later = state.load_checkpoint(tmp_path / "last.pt", recipe, CPU)
    assert later.loss == f"{now.loss} up to step 3; then another loss"


def test_a_finished_run_is_not_run_again(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    now = state.new_state(recipe, str(vgg), CPU)
    now.step, now.data = recipe.steps, fingerprint(load_prepared(prepared))
    state.save_checkpoint(now, recipe, tmp_path / "last.pt")
    with pytest.raises(fit.TrainingError, match="all 4 steps are done; to train longer: --steps N"):
        run(recipe, prepared, vgg, tmp_path, resume=tmp_path / "last.pt")


def test_the_final_model_of_a_run_is_not_replaced_by_a_longer_run(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    short = replace(recipe, cooldown=0.5, choose_by="last")
    longer = replace(short, steps=6, validate_every=1)
    first, best = tmp_path / "a", str(tmp_path / "a" / "best")
    run(short, prepared, vgg, first)
    run(short, prepared, vgg, tmp_path / "all", refit=best)
    run(longer, prepared, vgg, tmp_path / "b", resume=first / "before_cooldown.pt")
    for out, refit in ((first, None), (tmp_path / "all", str(tmp_path / "b" / "best"))):
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        how = f"has ended, and its model is kept; .*--resume {out / 'before_cooldown.pt'} --out"
        with pytest.raises(fit.TrainingError, match=how):
            run(longer, prepared, vgg, out, resume=out / "last.pt", refit=refit)
        assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_crash_while_a_log_is_begun_anew_never_loses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"step": step, "seconds": 1.0}) + "\n" for step in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_text("".join(lines))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("train.log.json.dumps", killed)
        with pytest.raises(KeyboardInterrupt):
            Log(tmp_path, 2, 9)
    assert len(read_log(tmp_path / "log.jsonl")) == 3
    with Log(tmp_path, 2, 9):
        assert (tmp_path / "log.jsonl").read_text() == "".join(lines[:2])  # at once


def test_what_ended_a_run_is_told_though_its_curves_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("train.log.draw_curves", full)
    with pytest.raises(KeyboardInterrupt), Log(tmp_path, 0, 9):
        raise KeyboardInterrupt


def test_tensorboard_is_given_the_numbers_from_the_step_of_the_checkpoint_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            told.append((folder, purge_step))

        def add_scalar(self, *entry: Any) -> None:
            told.append(entry)

        def close(self) -> None:
            told.append("closed")

    board = SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    errors = {"mae": 3.0, "rmse": 4.0, "bias": 1.0, "counts": {"a": [1, 2]}}
    with Log(tmp_path, 2, 9) as log:
        log.validation(5, errors)
    assert told[0] == (str(tmp_path), 3)
    assert told[1:] == [("mae", 3.0, 5), ("rmse", 4.0, 5), ("bias", 1.0, 5), "closed"]


def test_a_log_that_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo', encoding="utf-8")
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1, "loss": 2}]


def test_a_run_that_goes_on_knows_what_the_model_that_it_began_with_had_seen(
    recipe: Recipe, tmp_path: Path
) -> None:
    now = state.begin(recipe, lively(), {}, CPU)
    now.photographs = {"0123abcd"}  # of --init, which a resumed run does not load
    state.save_checkpoint(now, recipe, tmp_path / "last.pt")
    assert state.load_checkpoint(tmp_path / "last.pt", recipe, CPU).photographs == {"0123abcd"}
