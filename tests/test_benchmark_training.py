"""What the benchmark of training promises."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import training
from tests.thin import narrow
from train.recipe import read_recipe


def test_a_measurement_is_one_object_whose_figures_agree(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch)
    monkeypatch.setattr(training, "PICTURES", 2)
    arguments = ["--device", "cpu", "--batch", "1", "--crop", "64", "--steps", "2"]
    arguments += ["--network", "eager"]
    assert training.main([*arguments, "--loss", "pyramid", "dmcount"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for loss, line in zip(("pyramid", "dmcount"), lines, strict=True):
        found = json.loads(line)
        assert (found["loss"], found["batch"], found["crop"]) == (loss, 1, 64)
        assert found["crops_per_second"] == pytest.approx(1 / found["step_seconds"])
        share = found["flops_per_crop"] * found["crops_per_second"] / found["matrix_flops"]
        assert 0 < found["share_of_matrix_rate"] == pytest.approx(share)
        assert found["crops_seconds"] > 0
        assert found["network"] == "eager"
    assert training.main([*arguments, "--network", "captured"]) == 1
    assert "only a GPU runs a captured network" in capsys.readouterr().err


def test_memory_that_runs_out_is_a_sentence_and_what_else_fails_is_not_hidden(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["CUDA out of memory. Tried to allocate 9 GiB", "a shape is wrong"]

    def fails(*_: object) -> None:
        raise RuntimeError(said.pop(0))

    monkeypatch.setattr(training, "measure", fails)
    assert training.main(["--device", "cpu"]) == 1
    assert "memory ran out: lower --batch or --crop" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        training.main(["--device", "cpu"])


def test_the_arithmetic_is_that_of_table_3_of_the_paper() -> None:
    recipe = read_recipe(training.RECIPE, crop=64, frozen_layers=0)
    # products and additions of a 3x3 convolution: 18 a pixel, channel in and channel out
    pairs = [
        *((64, 3 * 64), (64, 64 * 64), (32, 64 * 128), (32, 128 * 128)),
        *((16, 128 * 256), (16, 256 * 256), (16, 256 * 256)),
        *((8, 256 * 512), (8, 512 * 512), (8, 512 * 512)),
        *((8, 512 * 512), (8, 512 * 512), (8, 512 * 512), (8, 512 * 256)),
        *((8, 256 * 128), (8, 128 * 64)),
    ]
    forward = sum(18 * side**2 * channels for side, channels in pairs) + 2 * 8**2 * 64
    first = 18 * 64**2 * 3 * 64  # needs no gradient of the picture
    assert training.flops_per_crop(recipe) == 3 * forward - first


def test_the_matrix_rate_is_in_the_precision_that_training_uses() -> None:
    rate, precision = training.matrix_rate(torch.device("cpu"), 64)
    assert rate > 1e6
    assert precision in ("bfloat16", "float32")
