"""What notices promise: few people, dark, tiny and blank pictures are told, crowds are not."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from csrnet_hub import CrowdCounter, CSRNet
from csrnet_hub.notices import notices

NOISE = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
LEARNT = {"heads": [12, 3138]}


def said(pixels: np.ndarray, count: float, record: Any = None) -> str:
    return " ".join(notices(pixels, count, record))


def test_a_crowd_like_those_of_the_training_gets_no_notice() -> None:
    assert said(NOISE, 100) == said(NOISE, 12, LEARNT) == said(NOISE, 3138 / 5, LEARNT) == ""


def test_tiny_dark_blank_and_thronged_pictures_get_one_each() -> None:
    assert said(NOISE[:, :100], 50).startswith("The picture is small (100 × 300 pixels)")
    assert said(NOISE // 11, 50).startswith("The picture is almost black")
    assert said(np.full_like(NOISE, 120), 50).startswith("The picture is almost all one colour")
    assert said(NOISE, 1000).startswith("There are more people than 300 × 300 pixels can show")


def test_few_people_are_better_counted_by_eye() -> None:
    assert said(NOISE, 1.2).startswith("This looks like 1 person. With so few people, counting")
    assert said(NOISE, 9.4).startswith("This looks like 9 people")
    assert said(NOISE, -0.3).startswith("This looks like 0 people")
    assert said(NOISE, 9.6) == ""


def test_what_is_few_and_what_is_many_is_told_by_the_training_record() -> None:
    assert "learnt from photos of 12 to 3,138. With so few" in said(NOISE, 11, LEARNT)
    assert said(NOISE, 3, {"heads": [0, 8]}) == ""  # a model of family photographs
    assert "more than in any photo the model learnt from (at most 8)" in (
        said(NOISE, 9, {"heads": [0, 8]})
    )


def test_fewer_than_in_any_training_photo_are_not_all_few() -> None:
    dense = {"heads": [94, 4543]}
    assert "90 people, fewer than in any photo" in said(NOISE, 90, dense)
    assert "by eye" not in said(NOISE, 90, dense)
    assert "of 94 to 4,543. With so few people, counting by eye is better" in said(NOISE, 15, dense)


@pytest.mark.parametrize("told", [None, 5, "12 to 9", [12], [12, 9], [-1, 9], [1.5, 9], [True, 9]])
def test_a_record_that_tells_no_range_is_none(told: Any) -> None:
    assert said(NOISE, 9, {"heads": told}) == said(NOISE, 9)
    assert said(NOISE, 11, {"heads": told}) == ""


def test_a_count_comes_with_its_notices(thin_model: CSRNet) -> None:
    result = CrowdCounter(thin_model, "cpu").count(np.zeros((64, 64, 3), np.uint8))
    assert [notice.split(":")[0][:22] for notice in result.notices] == [
        "The picture is small (",
        "The picture is almost ",
    ]


def test_a_counts_notices_know_what_its_model_learnt_from(model: CSRNet) -> None:
    counter = CrowdCounter(copy.deepcopy(model), "cpu")
    assert counter.count(NOISE).count > 1
    counter.model.training_record = {"heads": [0, 0]}
    (notice,) = counter.count(NOISE).notices
    assert notice.endswith("more than in any photo the model learnt from (at most 0).")


def test_a_picture_whose_corner_alone_is_dark_or_flat_is_neither() -> None:
    for colour in (0, 120):
        photo = np.tile(NOISE, (4, 4, 1))
        photo[:600, :600] = colour
        assert said(photo, 100) == ""
