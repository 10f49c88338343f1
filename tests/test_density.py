"""What the ground-truth density maps promise."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.spatial import cKDTree

from csrnet_hub.density import adaptive_sigma, density_map


def random_heads(n: int, height: int = 96, width: int = 128) -> np.ndarray:
    return np.random.default_rng(n).random((n, 2)) * (width, height)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 500, 10_000])
@pytest.mark.parametrize("sigma", [None, 4.0])
@pytest.mark.parametrize("stride", [1, 8])
def test_the_sum_is_the_number_of_heads(n: int, sigma: float | None, stride: int) -> None:
    density = density_map(random_heads(n), 96, 128, sigma, stride)
    assert density.shape == (96 // stride, 128 // stride)
    assert density.sum() == pytest.approx(n, abs=1e-6 * max(n, 1))
    assert density.min() >= 0


def test_heads_in_corners_and_on_borders_keep_their_mass() -> None:
    corners = [(0, 0), (127.9, 0), (0, 95.9), (127.9, 95.9)]
    assert density_map(corners, 96, 128, 30.0).sum() == pytest.approx(4)
    assert density_map(corners, 96, 128, 0.01).sum() == pytest.approx(4)


def test_duplicate_heads_count_twice_and_stay_finite() -> None:
    density = density_map([(10, 10)] * 5, 96, 128)
    assert np.isfinite(density).all()
    assert density.sum() == pytest.approx(5)


def test_heads_outside_the_frame_are_dropped_and_counted_in_a_warning() -> None:
    heads = [(10, 10), (-1, 5), (128, 5), (5, 96), (np.nan, 3)]
    with pytest.warns(UserWarning, match="4 heads lie outside"):
        density = density_map(heads, 96, 128)
    assert density.sum() == pytest.approx(1)


def test_a_map_equals_kernels_evaluated_one_by_one() -> None:
    heads, sigma = random_heads(20), np.random.default_rng(1).uniform(1, 9, 20)
    y, x = (np.mgrid[0 : 96 * 8, 0 : 128 * 8] + 0.5) / 8  # eight points a pixel on each axis
    direct = np.zeros((96, 128))
    for (hx, hy), s in zip(heads, sigma):
        kernel = np.exp(-((x - hx) ** 2 + (y - hy) ** 2) / (2 * s * s))
        direct += (kernel / kernel.sum()).reshape(96, 8, 128, 8).sum((1, 3))
    assert np.abs(density_map(heads, 96, 128, sigma) - direct).max() < 1e-4


def test_one_wide_kernel_is_the_gaussian_of_that_width() -> None:
    density = density_map([(64.0, 48.0)], 96, 128, 6.0)
    y, x = np.mgrid[0:96, 0:128] + 0.5
    gauss = np.exp(-((x - 64) ** 2 + (y - 48) ** 2) / 72) / (2 * np.pi * 36)
    # integrating over a pixel flattens the peak by 1 / (12 sigma^2)
    assert np.abs(density - gauss).max() < 4e-3 * gauss.max()


@pytest.mark.parametrize("sigma", [1e-300, 6.0, 1e18, 1e300])
def test_kernels_of_any_width_have_the_mass_of_their_heads(sigma: float) -> None:
    assert density_map([(5.0, 5.5), (8.0, 8.0)], 40, 40, sigma, 8).sum() == pytest.approx(2)


def test_many_heads_on_a_long_strip_take_no_more_memory_than_few() -> None:
    heads = np.random.default_rng(0).uniform((0, 0), (2**17, 1), (300, 2))
    tracemalloc.start()
    density = density_map(heads, 1, 2**17, 2.0, stride=1)  # 300 x 131,073 numbers are 315 MB
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert density.sum() == pytest.approx(300)
    assert peak < 200e6


def test_the_coarse_map_is_the_fine_map_summed_over_cells() -> None:
    heads = random_heads(50)
    fine = density_map(heads, 96, 128, None, 1).reshape(12, 8, 16, 8).sum((1, 3))
    assert np.allclose(fine, density_map(heads, 96, 128, None, 8))


def test_sides_not_divisible_by_the_stride_keep_the_last_cells() -> None:
    density = density_map(random_heads(9, 90, 130), 90, 130, 3.0, 8)
    assert density.shape == (12, 17)
    assert density.sum() == pytest.approx(9)


def test_kernel_widths_follow_the_paper() -> None:
    heads = np.array([(0, 0), (10, 0), (0, 20), (30, 0), (500, 500)], dtype=float)
    assert adaptive_sigma(heads)[0] == pytest.approx(0.3 * (10 + 20 + 30) / 3)
    assert adaptive_sigma(heads[:2])[0] == pytest.approx(0.3 * 10)
    assert adaptive_sigma(heads[:1]) == pytest.approx([15.0])
    assert adaptive_sigma(heads[:0]).shape == (0,)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 60])
@pytest.mark.parametrize("places", [1, 2, 9, 1000])
def test_kernel_widths_count_a_head_at_the_same_place_as_a_neighbour(n: int, places: int) -> None:
    heads = random_heads(places)[np.random.default_rng(n).integers(0, places, n)]
    apart = np.sort(np.hypot(*(heads[:, None] - heads).transpose(2, 0, 1)), axis=1)
    widths = np.maximum(0.3 * apart[:, 1:4].mean(axis=1), 0.5)
    assert np.allclose(adaptive_sigma(heads), widths, rtol=1e-12)


def test_thousands_of_heads_at_one_place_are_as_quick_as_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[int] = []  # with all of them in the tree it takes some ten seconds

    def tree(points: np.ndarray) -> cKDTree:
        searched.append(len(points))
        return cKDTree(points)

    monkeypatch.setattr("csrnet_hub.density.cKDTree", tree)
    heads = np.vstack([np.full((60_000, 2), 5.0), random_heads(10)])
    assert adaptive_sigma(heads)[0] == 0.5
    assert searched == [4 + 10]


@pytest.mark.parametrize("heads", [[1, 2, 3], [[1, 2, 3]], np.zeros((2, 2, 2))])
def test_heads_of_a_wrong_shape_are_refused(heads: object) -> None:
    with pytest.raises(ValueError, match=r"\(N, 2\)"):
        density_map(heads, 96, 128)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(N, 2\)"):
        adaptive_sigma(heads)  # type: ignore[arg-type]


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_a_kernel_without_width_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        density_map([(1, 1)], 96, 128, sigma)
