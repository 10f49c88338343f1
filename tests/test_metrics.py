"""What the error figures mean."""

from __future__ import annotations

import math

import pytest

from csrnet_hub.metrics import counting_errors


def test_errors_are_those_of_the_papers_definitions() -> None:
    errors = counting_errors([10, 30, 5], [12, 20, 0])
    assert errors["images"] == 3
    assert errors["mae"] == pytest.approx((2 + 10 + 5) / 3)
    assert errors["rmse"] == pytest.approx(math.sqrt((4 + 100 + 25) / 3))
    assert errors["bias"] == pytest.approx((-2 + 10 + 5) / 3)


def test_relative_error_leaves_out_images_without_heads() -> None:
    assert counting_errors([10, 30, 5], [12, 20, 0])["nae"] == pytest.approx((2 / 12 + 0.5) / 2)


def test_without_any_head_there_is_no_relative_error() -> None:
    assert counting_errors([1.0], [0])["nae"] is None


@pytest.mark.parametrize(("counts", "heads"), [([], []), ([1, 2], [1]), ([[1]], [[1]])])
def test_lists_that_do_not_match_are_refused(counts: list, heads: list) -> None:
    with pytest.raises(ValueError, match="same length"):
        counting_errors(counts, heads)
