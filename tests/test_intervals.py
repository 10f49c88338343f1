"""What prediction intervals promise."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csrnet_hub import CrowdCounter, CSRNet, ModelError
from csrnet_hub.intervals import PredictionInterval, spread


def test_new_pictures_of_the_same_kind_are_covered_as_promised() -> None:
    rng = np.random.default_rng(0)

    def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
        heads = rng.lognormal(5, 1, number)
        return heads * rng.lognormal(0, 0.25, number), heads

    covered = []
    for _ in range(300):
        interval = PredictionInterval.calibrate(*draw(60))
        counts, heads = draw(50)
        ends = np.array([interval.around(count) for count in counts])
        covered.append(((ends[:, 0] <= heads) & (heads <= ends[:, 1])).mean())
    assert 0.89 < np.mean(covered) < 0.93


def test_the_quantile_is_the_rank_that_the_theorem_asks_for() -> None:
    counts = np.arange(1, 20) * 10.0
    heads = counts + np.arange(1, 20) * spread(counts)
    interval = PredictionInterval.calibrate(counts, heads)
    assert interval.quantile == pytest.approx(18)  # ceil(20 x 0.9)
    assert interval.images == 19
    assert interval.level == 0.9


def test_a_rank_that_is_a_whole_number_is_not_rounded_up() -> None:
    counts = np.arange(1, 75) * 10.0
    heads = counts + np.arange(1, 75) * spread(counts)
    found = [PredictionInterval.calibrate(counts, heads, level) for level in (0.68, 0.9)]
    assert [interval.quantile for interval in found] == pytest.approx([51, 68])  # of 75


def test_the_interval_is_wide_enough_for_the_kind_of_pictures_that_is_hardest() -> None:
    rng = np.random.default_rng(0)
    heads = np.full(80, 99.0)
    counts = heads + np.r_[rng.normal(0, 5, 40), rng.normal(0, 25, 40)]
    kinds = ["street"] * 40 + ["stadium"] * 40
    interval = PredictionInterval.calibrate(counts, heads, groups=kinds)
    assert interval == replace(PredictionInterval.calibrate(counts[40:], heads[40:]), images=80)
    assert interval.quantile > PredictionInterval.calibrate(counts, heads).quantile
    few = PredictionInterval.calibrate(counts[:45], heads[:45], groups=kinds[:45])
    assert few == PredictionInterval.calibrate(counts[:45], heads[:45])  # 5 stadiums are too few


def test_pictures_of_a_kind_without_people_do_not_widen_the_interval_of_crowds() -> None:
    rng = np.random.default_rng(0)
    heads = np.r_[np.full(40, 99.0), np.zeros(40)]
    counts = np.r_[99 + rng.normal(0, 5, 40), rng.uniform(0, 50, 40)]
    kinds = ["street"] * 40 + ["woods"] * 40
    crowds = PredictionInterval.calibrate(counts[:40], heads[:40])
    assert PredictionInterval.calibrate(counts, heads, groups=kinds) == crowds
    mixed = PredictionInterval.calibrate(counts, heads, groups=["street"] * 80)
    assert mixed.quantile > crowds.quantile  # empty streets are streets
    nobody = PredictionInterval.calibrate(counts[40:], heads[40:], groups=kinds[40:])
    assert nobody.around(counts[60])[0] == 0
    assert nobody.images == 40


def test_a_model_of_before_keeps_the_intervals_that_it_was_calibrated_for() -> None:
    assert PredictionInterval(0.9, 2.0, 60).around(99) == pytest.approx((35.75, 162.25), abs=0.01)
    now = PredictionInterval.calibrate(np.arange(9.0), np.arange(9.0) * 2 + 1)
    assert now.around(99) == (0.0, 199.0)  # half the width is the count, plus one
    assert PredictionInterval(**asdict(now)) == now


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="8 pictures are too few"):
        PredictionInterval.calibrate(np.ones(8), np.ones(8))
    assert PredictionInterval.calibrate(np.ones(9), np.ones(9)).quantile == 0


def test_an_interval_holds_its_count_and_is_never_negative() -> None:
    interval = PredictionInterval(0.9, 3.0, 60)
    for count in (-2.0, 0.0, 0.4, 7.0, 3000.0):
        low, high = interval.around(count)
        assert 0 <= low <= max(count, 0) <= high
    now = replace(interval, power=1.0)
    assert now.around(-2.0) == (0.0, 1.0)  # as wide as that of nobody, on either side


def test_an_interval_travels_with_its_model_and_every_count(
    model: CSRNet, scene: np.ndarray, tmp_path: Path
) -> None:
    config = {**model.config(), "interval": {"level": 0.9, "quantile": 2.0, "images": 60}}
    calibrated = CSRNet(**config)
    calibrated.load_state_dict(model.state_dict())
    calibrated.save_pretrained(tmp_path / "m")
    result = CrowdCounter.from_pretrained(tmp_path / "m", "cpu").count(scene)
    assert result.level == 0.9
    assert result.interval == PredictionInterval(0.9, 2.0, 60).around(result.count)
    bare = CrowdCounter(model, "cpu").count(scene)
    assert (bare.interval, bare.level) == (None, None)


@pytest.mark.parametrize(
    "entry",
    [
        {"level": 0.9},
        {"level": 1.5, "quantile": 1.0, "images": 60},
        {"level": 0.9, "quantile": -1.0, "images": 60},
        {"level": 0.9, "quantile": "wide", "images": 60},
        {"level": 0.9, "quantile": 1.0, "images": 60, "power": 9},
        {"level": 0.9, "quantile": 1.0, "images": 60, "colour": 1},
    ],
)
def test_a_configuration_with_an_unusable_interval_is_refused(entry: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="interval is not usable"):
        CSRNet(interval=entry)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([1.0] * 20, [1] * 21), r"as many counts as heads .*\(20,\), \(21,\), \(21,\)"),
        (([1.0] * 20, [1] * 20, 0.9, ["a"] * 19), "as many counts as heads and groups"),
        (([[1.0] * 20], [[1] * 20]), "as many counts as heads"),
        (([1.0] * 60, [1] * 60, 90), "a level must be between 0 and 1, such as 0.9, not 90"),
    ],
)
def test_what_no_interval_can_be_made_of_is_told_apart(arguments: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PredictionInterval.calibrate(*arguments)
