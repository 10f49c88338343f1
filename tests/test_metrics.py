"""What the error figures mean."""

from __future__ import annotations

import math

import numpy as np
import pytest

from csrnet_hub.density import density_map
from csrnet_hub.metrics import (
    counting_errors,
    errors_by_range,
    game,
    mae_interval,
    map_likeness,
    psnr,
    ssim,
)


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
    for measure in (counting_errors, errors_by_range, mae_interval):
        with pytest.raises(ValueError, match="same length"):
            measure(counts, heads)


# by range


def test_each_image_is_in_the_range_of_its_heads() -> None:
    heads = [0, 1, 9, 10, 30, 31, 100, 101, 500, 501, 4000]
    ranges = errors_by_range([head + 1 for head in heads], heads)
    images = {name: errors["images"] for name, errors in ranges.items()}
    expected = {"0": 1, "1-9": 2, "10-30": 2, "31-100": 2, "101-500": 2, "more": 2}
    assert images == expected
    assert all(errors["mae"] == 1 for errors in ranges.values())
    assert ranges["0"]["nae"] is None
    assert list(errors_by_range([3], [12])) == ["10-30"]


def test_the_bootstrap_interval_holds_the_mean_is_seeded_and_narrows_with_images() -> None:
    rng = np.random.default_rng(3)
    error = rng.exponential(10, 1000)
    few, many = (mae_interval(error[:n], np.zeros(n)) for n in (50, 1000))
    assert few[0] < error[:50].mean() < few[1]
    assert many[1] - many[0] < 0.5 * (few[1] - few[0])
    assert mae_interval(error[:50], np.zeros(50)) == few
    # the standard error of a mean, 1.96 times each way
    width = 2 * 1.96 * error.std() / math.sqrt(1000)
    assert many[1] - many[0] == pytest.approx(width, rel=0.1)
    assert mae_interval([4.0], [1]) == [3.0, 3.0]


# GAME


def game_by_pixels(density: np.ndarray, heads: np.ndarray, height: int, width: int, level: int):  # type: ignore[no-untyped-def]
    """The definition on a grid so fine that no part cuts a point of it."""
    fine = 2**level
    rows, columns = np.arange(height * fine), np.arange(width * fine)
    area = [
        np.minimum(8 * fine, n * fine - np.arange(len_) * 8 * fine)
        for n, len_ in ((height, density.shape[0]), (width, density.shape[1]))
    ]
    spread = density / area[0][:, None] / area[1][None]
    points = spread[np.ix_(rows // (8 * fine), columns // (8 * fine))]
    error = 0.0
    for i in range(fine):
        for j in range(fine):
            part = points[i * height : (i + 1) * height, j * width : (j + 1) * width]
            inside = sum(
                i * height <= y * fine < (i + 1) * height
                and j * width <= x * fine < (j + 1) * width
                for x, y in heads
            )
            error += abs(part.sum() - inside)
    return error


@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(32, 48), (45, 61), (8, 9)])
def test_game_equals_its_definition(height: int, width: int, level: int) -> None:
    rng = np.random.default_rng(level)
    density = rng.random((-(-height // 8), -(-width // 8)))
    heads = rng.random((40, 2)) * (width, height)
    expected = game_by_pixels(density, heads, height, width, level)
    assert game(density, heads, height, width, level) == pytest.approx(expected, abs=1e-6)


def test_game_0_is_the_counting_error_and_game_grows_with_the_level() -> None:
    rng = np.random.default_rng(0)
    density, heads = rng.random((9, 7)), rng.random((30, 2)) * (60, 70) - 4  # some outside
    levels = [game(density, heads, 70, 53, level) for level in range(4)]
    assert levels[0] == pytest.approx(abs(density.sum() - 30))
    assert levels == sorted(levels)


def test_a_map_with_the_right_sum_in_the_wrong_place_is_an_error_for_game() -> None:
    density = np.zeros((8, 8))
    density[0, 0] = 5
    heads = np.full((5, 2), 60.0)
    assert game(density, heads, 64, 64, 0) == 0
    assert game(density, heads, 64, 64, 1) == 10
    assert game(np.zeros((8, 8)), np.zeros((0, 2)), 64, 64, 3) == 0


@pytest.mark.filterwarnings("error")
def test_heads_outside_the_frame_count_in_the_nearest_part() -> None:
    density = np.zeros((8, 8))
    density[0, 0], density[7, 7], density[0, 7] = 1, 2, 1
    heads = [(-3, -1e30), (64, 64), (1e30, 70), (90, 5)]
    assert [game(density, heads, 64, 64, level) for level in range(4)] == [0, 0, 0, 0]


def test_a_map_of_another_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="not \\(8, 8\\)"):
        game(np.zeros((8, 8)), np.zeros((0, 2)), 64, 72, 1)
    with pytest.raises(ValueError, match="not \\(8, 8\\)"):
        map_likeness(np.zeros((8, 8)), np.zeros((64, 72)))
    with pytest.raises(ValueError, match="N, 2"):
        game(np.zeros((8, 8)), np.zeros((3, 3)), 64, 64, 1)


# PSNR and SSIM


def ssim_directly(one: np.ndarray, other: np.ndarray) -> float:
    """Wang et al. (2004), equations 6 and 12 to 17, window by window."""
    offset = np.arange(-5, 6)
    line = np.exp(-(offset**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for i in range(one.shape[0] - 10):
        for j in range(one.shape[1] - 10):
            x, y = one[i : i + 11, j : j + 11], other[i : i + 11, j : j + 11]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            top = (2 * mx * my + 1e-4) * (2 * cov + 9e-4)
            values.append(top / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    return float(np.mean(values))


def two_maps() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.random((37, 29)), rng.random((37, 29))


def test_ssim_and_psnr_equal_a_direct_evaluation() -> None:
    one, other = two_maps()
    close = np.clip(one + 0.05 * other, 0, 1)
    assert ssim(one, other) == pytest.approx(ssim_directly(one, other), abs=1e-6)
    assert ssim(one, close) == pytest.approx(ssim_directly(one, close), abs=1e-6)
    expected = 10 * math.log10(1 / np.mean((one - other) ** 2))
    assert psnr(one, other) == pytest.approx(expected, abs=1e-6)


def test_equal_maps_are_alike_and_nothing_is_beyond() -> None:
    one, other = two_maps()
    assert ssim(one, one) == pytest.approx(1)
    assert psnr(one, one) == math.inf
    assert ssim(one, other) < 0.1
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(one[:10], other[:10])


def test_likeness_is_that_of_the_enlarged_maps_each_over_its_own_maximum() -> None:
    rng = np.random.default_rng(1)
    heads = rng.random((12, 2)) * (90, 70)
    truth = density_map(heads, 70, 90, sigma=6)
    density = density_map(heads, 70, 90, sigma=6, stride=8)
    signal, likeness = map_likeness(density, truth)
    assert signal > 20
    assert 0.7 < likeness < 1
    assert map_likeness(3 * density, truth) == pytest.approx((signal, likeness), abs=1e-5)
    shifted = map_likeness(np.roll(density, 4, axis=1), truth)
    assert shifted[0] < signal
    assert shifted[1] < likeness


def test_the_enlarged_map_is_interpolated_between_the_centres_of_cells() -> None:
    density = np.array([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    across = np.clip((np.arange(20) + 0.5 - 4) / 8, 0, 1)  # the last cell passes the edge
    truth = np.tile(across, (16, 1))
    signal, likeness = map_likeness(density, truth)
    assert signal > 100
    assert likeness == pytest.approx(1, abs=1e-6)


def test_maps_of_nobody_are_equal() -> None:
    assert map_likeness(np.zeros((2, 2)), np.zeros((16, 16))) == (math.inf, pytest.approx(1))
