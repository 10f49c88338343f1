"""The size at which a picture is counted, and what becomes of its map."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from csrnet_hub import CrowdCounter, CSRNet
from csrnet_hub.density import density_map
from csrnet_hub.model import ModelError
from csrnet_hub.render import colour_top, density_peaks
from csrnet_hub.scale import (
    CROWDED,
    FALLS,
    STEP,
    alone,
    crowding,
    first_scale,
    in_cells_of,
    larger_scale,
    may_be_large,
    resized,
    roomy,
)
from csrnet_hub.tiles import Mapped

from .thin import narrow


@pytest.fixture(scope="module")
def sized(thin_model: CSRNet) -> CSRNet:
    """A model that was trained on pictures of 96 pixels a side and more, up to 128 x 128."""
    model = copy.deepcopy(thin_model)
    model.min_side, model.working_pixels = 96, 128 * 128
    return model


def picture(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "scale"),
    [
        ((100, 120), 1.0),  # as in training
        ((64, 80), 1.5),  # enlarged to 96
        ((20, 30), 2.0),  # twice, no more
        ((1, 1), 2.0),
        ((256, 256), 0.5),  # shrunk to 128 x 128
        ((192, 3000), 0.5),  # a panorama, as 192 x 341 of it
        ((3000, 192), 0.5),
        ((60, 1092), 1.0),  # nor is one enlarged beyond 128 * 128 pixels
        ((80, 150), math.sqrt(128 * 128 / (80 * 150))),
        ((1, 2**20), 1.0),
        ((140, 140), 1.0),  # hardly more than 128 x 128
    ],
)
def test_a_picture_is_counted_at_a_size_of_training(
    sized: CSRNet, size: tuple[int, int], scale: float
) -> None:
    assert first_scale(sized, *size) == pytest.approx(scale, rel=1e-3)


def test_a_picture_is_enlarged_to_no_more_than_a_megapixel_without_another_limit(
    thin_model: CSRNet,
) -> None:
    model = copy.deepcopy(thin_model)
    model.min_side = 384
    assert first_scale(model, 300, 300) == 1.28
    assert first_scale(model, 300, 300_000) == 1


def test_without_a_record_of_sizes_a_picture_is_counted_as_it_is(thin_model: CSRNet) -> None:
    assert [first_scale(thin_model, *size) for size in ((1, 1), (9000, 9000))] == [1.0, 1.0]


def test_a_dense_crowd_is_counted_again_larger_until_its_heads_have_room() -> None:
    sparse, dense = (np.full((9, 9), k * CROWDED, np.float32) for k in (0.9, 3))
    assert larger_scale(sparse, 0.25) == 0.25
    assert larger_scale(dense, 0.25) == pytest.approx(0.25 * 3 ** (1 / FALLS))
    assert larger_scale(dense, 0.9) == 1.0
    assert [larger_scale(dense, scale) for scale in (1.0, 2.0)] == [1.0, 2.0]
    assert larger_scale(np.zeros((9, 9), np.float32), 0.25) == 0.25


def test_crowding_is_that_of_the_heads_not_of_the_picture() -> None:
    density = np.zeros((40, 40), np.float32)
    density[:4, :4] = 0.5
    assert crowding(density) == pytest.approx(0.5)
    density[20:, 20:] = -0.01  # a network may go below zero where nobody is
    assert crowding(density) == pytest.approx(0.5)
    assert crowding(np.full((2, 2), -1, np.float32)) == 0


@pytest.mark.parametrize("scale", [0.03, 0.29, 0.5, 0.99, 1.01, 1.6, 2.0])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (64, 64), (90, 130), (1, 4000), (333, 8)])
def test_a_map_keeps_its_sum_and_its_place(size: tuple[int, int], scale: float) -> None:
    counted = resized(picture(*size), scale).shape[:2]
    cells = tuple(-(-side // 8) for side in counted)
    density = np.random.default_rng(1).normal(0.1, 1, cells).astype(np.float32)
    found = in_cells_of(density, counted, size)
    assert found.shape == tuple(-(-side // 8) for side in size)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous  # as any reader of an .npy file takes it to be
    np.testing.assert_allclose(
        found.sum(dtype=np.float64), density.sum(dtype=np.float64), atol=1e-4
    )


@pytest.mark.parametrize("scale", [0.25, 0.6, 1.7])
def test_a_head_stays_where_it_was(scale: float) -> None:
    size = (400, 560)
    counted = resized(picture(*size), scale).shape[:2]
    density = np.zeros(tuple(-(-side // 8) for side in counted), np.float32)
    row, column = density.shape[0] // 3, density.shape[1] // 2
    density[row, column] = 1
    found = in_cells_of(density, counted, size)
    assert found.min() >= 0
    for axis, place in ((0, row), (1, column)):
        centre = (np.arange(found.shape[axis]) + 0.5) * 8
        mean = (found.sum(axis=1 - axis) * centre).sum()
        assert mean == pytest.approx((place + 0.5) * 8 * size[axis] / counted[axis], abs=2)
        spread = math.sqrt((found.sum(axis=1 - axis) * (centre - mean) ** 2).sum())
        assert spread < max(8, 8 / scale)


def test_a_shrunk_map_has_no_stripes() -> None:
    """An even crowd stays even: each cell of the photo gets its share."""
    found = in_cells_of(np.ones((50, 50), np.float32), (400, 400), (1403, 1403))
    share = (400 / 1403) ** 2
    np.testing.assert_allclose(found[:-1, :-1], share, rtol=1e-5)
    np.testing.assert_allclose(found[-1, :-1], share * (1403 % 8) / 8, rtol=1e-5)


def pixels_of_cells(side: int) -> NDArray[np.int64]:
    return np.diff(np.append(np.arange(0, side, 8), side))


@pytest.mark.parametrize("counted", [(353, 356), (355, 9), (4, 359), (358, 352)])
@pytest.mark.parametrize("own", [(1200, 717), (100, 187), (354, 360)])
def test_an_even_crowd_stays_even_up_to_the_border(
    counted: tuple[int, int], own: tuple[int, int]
) -> None:
    """Where the last cells of the picture that was counted hold few of its pixels, and so few
    heads."""
    pixels = np.outer(*map(pixels_of_cells, counted))
    found = in_cells_of((pixels / pixels.sum()).astype(np.float32), counted, own)
    share = np.outer(*map(pixels_of_cells, own)) / np.prod(own)
    np.testing.assert_allclose(found, share, rtol=1e-4)


@pytest.mark.parametrize("own", [(1200, 717), (100, 187)])
def test_a_map_in_other_cells_is_nowhere_below_zero_unless_it_was(own: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    density = (rng.random((45, 45)) ** 9 * (rng.random((45, 45)) < 0.3)).astype(np.float32)
    assert in_cells_of(density, (355, 357), own).min() >= 0
    assert in_cells_of(-density, (355, 357), own).max() <= 0
    spotted = density - (rng.random((45, 45)) < 0.1).astype(np.float32)
    assert in_cells_of(spotted, (355, 357), own).min() < 0


def test_a_smooth_map_in_other_cells_is_that_of_its_heads_there() -> None:
    heads, counted, own = np.array([[50.0, 40.0], [83.0, 61.0]]), (100, 120), (230, 276)
    maps = [
        density_map(heads * times, *size, sigma=9.0 * times, stride=8)
        for times, size in ((1, counted), (2.3, own))
    ]
    found = in_cells_of(maps[0].astype(np.float32), counted, own)
    assert np.abs(found - maps[1]).sum() < 0.05 * maps[1].sum()


def test_a_shrunk_map_has_about_as_many_peaks_as_before() -> None:
    rng = np.random.default_rng(0)
    density = np.square(rng.normal(0, 0.2, (60, 80))).astype(np.float32)
    found = in_cells_of(density, (480, 640), (1667, 2222))
    assert len(density_peaks(found)) <= 1.5 * len(density_peaks(density))


def test_a_small_picture_is_counted_enlarged(sized: CSRNet) -> None:
    pixels = picture(50, 70)
    result = CrowdCounter(sized, "cpu").count(pixels)
    larger = CrowdCounter(sized, "cpu", scale=1.0).count(resized(pixels, 96 / 50))
    assert result.scale == 96 / 50
    assert (result.height, result.width) == (50, 70)
    assert result.density.shape == (7, 9)
    assert result.count == pytest.approx(larger.count, rel=1e-5)


def test_a_large_picture_is_counted_shrunk(sized: CSRNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """... and larger only where the crowd is dense."""
    pixels = picture(288, 512)
    counter = CrowdCounter(sized, "cpu")
    small = CrowdCounter(sized, "cpu", scale=1.0).count(resized(pixels, 1 / 3))
    density, seen = counter.engine.density, []

    def watched(pixels: NDArray[np.uint8], progress: Any) -> Any:
        seen.append(pixels.shape[:2])
        found = density(pixels, progress)
        return found._replace(density=found.density * factor)

    monkeypatch.setattr(counter.engine, "density", watched)
    factor = 0.5 * CROWDED / crowding(small.density)
    result = counter.count(pixels)
    assert seen == [(96, 171)]
    assert result.scale == pytest.approx(1 / 3)
    assert result.density.shape == (36, 64)
    assert result.count == pytest.approx(small.count * factor, rel=1e-5)
    seen.clear()
    factor = 100 * CROWDED / crowding(small.density)
    assert counter.count(pixels).scale == 1
    assert seen == [(96, 171), (288, 512)]


def test_a_larger_size_that_shows_no_more_heads_is_not_taken(
    sized: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a photo that has many pixels and is blurred."""
    counter, seen = CrowdCounter(sized, "cpu"), []

    def density(pixels: NDArray[np.uint8], progress: Any) -> Any:
        seen.append(pixels.shape[:2])
        found = np.zeros(tuple(-(-side // 8) for side in pixels.shape[:2]), np.float32)
        found[3, 3] = 5
        return Mapped(found, "cpu", "float32", len(seen))

    monkeypatch.setattr(counter.engine, "density", density)
    result = counter.count(picture(288, 512))
    assert seen == [(96, 171), (288, 512)]
    assert result.scale == pytest.approx(1 / 3)
    assert result.tiles == 1
    assert result.count == pytest.approx(5)
    assert result.density.shape == (36, 64)


def test_a_larger_size_whose_map_is_not_finite_is_not_taken(
    sized: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = CrowdCounter(sized, "cpu")

    def density(pixels: NDArray[np.uint8], progress: Any) -> Any:
        cells = tuple(-(-side // 8) for side in pixels.shape[:2])
        value = np.nan if pixels.shape[0] > 96 else 1.0
        return Mapped(np.full(cells, value, np.float32), "cpu", "float32", 1)

    monkeypatch.setattr(counter.engine, "density", density)
    assert counter.count(picture(288, 512)).count == pytest.approx(12 * 22)


def test_nearly_equal_photos_are_counted_at_nearly_equal_sizes(
    sized: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... as the frames of a clip, wherever their crowding lies."""
    counter, crowd = CrowdCounter(sized, "cpu"), 0.0

    def density(pixels: NDArray[np.uint8], progress: Any) -> Any:
        """An even crowd, of which a picture three times as large shows half as many again."""
        cells = tuple(-(-side // 8) for side in pixels.shape[:2])
        heads = crowd * 12 * 22 * (pixels.shape[0] / 96) ** math.log(1.5, 3)
        even = np.full(cells, heads / math.prod(cells), np.float32)
        return Mapped(even, "cpu", "float32", 1)

    monkeypatch.setattr(counter.engine, "density", density)
    pixels, found = picture(288, 512), []
    for crowd in CROWDED * np.geomspace(0.5, 8, 300):  # noqa: B007  (density reads it)
        found.append(counter.count(pixels))
    scales = np.array([result.scale for result in found])
    counts = np.array([result.count for result in found])
    assert scales[0] == pytest.approx(1 / 3)
    assert scales[-1] == 1
    assert (np.diff(np.log(scales)) < 0.02).all()  # by whole pixels
    assert (np.diff(np.log(counts)) < 0.02).all()


def test_a_large_sparse_photo_shows_its_peaks() -> None:
    """Its heads lie in more cells each, but are no fainter on the picture."""
    density = np.zeros((100, 130), np.float32)
    density[[20, 50, 80], [30, 60, 90]] = 0.05
    large = in_cells_of(density, (800, 1040), (3200, 4160))
    assert large.max() < 0.02
    assert len(density_peaks(large)) == 3
    assert colour_top(large) == large.max()
    assert len(density_peaks(density / 5)) == 0  # nobody


def head(sigma: float, cells: int = 128) -> NDArray[np.float32]:
    """One head in the middle of a square map, whose kernel has ``sigma`` pixels."""
    steps = (np.arange(cells) + 0.5 - cells / 2) * 8
    row = np.exp(-np.square(steps) / (2 * sigma**2))
    return (np.outer(row, row) / row.sum() ** 2).astype(np.float32)


@pytest.mark.parametrize("sigma", [8, 15, 40])
def test_crowding_of_a_head_alone_is_that_of_its_kernel(sigma: float) -> None:
    assert crowding(head(sigma)) == pytest.approx(alone(sigma), rel=0.01)


def faces(model: CSRNet, sigma: float, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[int]]:
    """A counter that finds one head of ``sigma`` pixels in a picture of 512 x 512, as a kernel that
    grows with the picture, and two more for each time that it is larger than 15; and the sides
    at which it has looked."""
    model = copy.deepcopy(model)
    model.min_side, model.working_pixels, model.largest_sigma = 96, 512 * 512, 15.0
    counter, seen = CrowdCounter(model, "cpu"), []

    def density(pixels: NDArray[np.uint8], progress: Any) -> Any:
        seen.append(pixels.shape[0])
        own = sigma * pixels.shape[0] / 512
        parts = 1 + 2 * max(own / 15 - 1.2, 0)
        return Mapped(head(own, -(-pixels.shape[0] // 8)) * parts, "cpu", "float32", 1)

    monkeypatch.setattr(counter.engine, "density", density)
    return counter, seen


def test_a_picture_of_large_heads_is_counted_smaller(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... until they are no larger than those of training."""
    counter, seen = faces(thin_model, 48, monkeypatch)
    result = counter.count(picture(512, 512))
    assert seen == [512, 91, 181]  # a sigma of 48, of 8.5, of 17 pixels
    assert result.scale == pytest.approx(STEP**-3)
    assert result.count == pytest.approx(1, rel=1e-3)
    assert result.density.shape == (64, 64)
    assert counter.count(picture(512, 512)).count == result.count


def test_one_of_heads_as_in_training_is_not(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sigma, looks in ((14, [512, 91]), (7, [512])):  # from half as large on it is looked at
        counter, seen = faces(thin_model, sigma, monkeypatch)
        assert counter.count(picture(512, 512)).scale == 1
        assert seen == looks


def test_a_large_photo_of_large_heads_is_counted_smaller_than_one_of_training(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter, seen = faces(thin_model, 48, monkeypatch)
    result = counter.count(picture(1024, 1024))
    assert seen == [512, 91, 181]
    assert result.scale == pytest.approx(STEP**-5)
    assert result.density.shape == (128, 128)


@pytest.mark.parametrize(("sigma", "looks"), [(34, [512, 91, 256]), (25.4, [512, 91])])
def test_a_step_smaller_is_not_worth_it(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch, sigma: float, looks: list[int]
) -> None:
    """Heads a little larger than those of training."""
    counter, seen = faces(thin_model, sigma, monkeypatch)
    assert counter.count(picture(512, 512)).scale == pytest.approx(
        looks[-1] / 512 if len(looks) > 2 else 1
    )
    assert seen == looks


def test_a_small_picture_of_one_large_head_is_counted_smaller_than_it_is(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter, seen = faces(thin_model, 96, monkeypatch)
    counter.model.min_side = 512
    result = counter.count(picture(256, 256))
    assert seen == [512, 91]
    assert result.scale == pytest.approx(2 * STEP**-5)


@pytest.mark.parametrize("nobody", [0.0, 0.4, -3.0, math.nan, math.inf])
def test_a_smaller_size_that_shows_nobody_is_not_taken(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch, nobody: float
) -> None:
    """A few small people are lost there."""
    counter, seen = faces(thin_model, 48, monkeypatch)
    density = counter.engine.density

    def small_ones(pixels: NDArray[np.uint8], progress: Any) -> Any:
        found = density(pixels, progress)
        if pixels.shape[0] == 512:
            return found
        return found._replace(density=np.full((9, 9), nobody / 81, np.float32))

    monkeypatch.setattr(counter.engine, "density", small_ones)
    result = counter.count(picture(512, 512))
    assert seen == [512, 91]
    assert result.scale == 1
    assert result.count == pytest.approx(float(density(picture(512, 512), None).density.sum()))


def test_a_map_that_is_not_finite_is_not_looked_at_smaller(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter, seen = faces(thin_model, 48, monkeypatch)
    density = counter.engine.density

    def broken(pixels: NDArray[np.uint8], progress: Any) -> Any:
        found = density(pixels, progress)
        large = pixels.shape[0] == 512
        return found._replace(density=found.density * np.float32(math.nan)) if large else found

    monkeypatch.setattr(counter.engine, "density", broken)
    with pytest.raises(ModelError, match="not finite"):
        counter.count(picture(512, 512))
    assert seen == [512]


@pytest.mark.parametrize("largest", [0.01, 3.0, 15.0, 1e6])
def test_no_size_is_counted_twice(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch, largest: float
) -> None:
    """The rules for dense crowds and for large heads agree, whatever the widest kernel is."""
    for sigma in (2, 6, 20, 60, 200):
        counter, seen = faces(thin_model, sigma, monkeypatch)
        counter.model.largest_sigma = largest
        counter.count(picture(700, 700))
        assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (9, 2)])
def test_the_smallest_pictures_have_a_smaller_size_too(
    thin_model: CSRNet, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy.deepcopy(thin_model)
    model.largest_sigma = 0.5
    monkeypatch.setattr("csrnet_hub.scale.may_be_large", lambda *_: True)
    monkeypatch.setattr("csrnet_hub.scale.shows_heads", lambda _: True)
    result = CrowdCounter(model, "cpu").count(picture(*size))
    assert result.density.shape == tuple(-(-side // 8) for side in size)
    assert np.isfinite(result.count)


def test_without_a_largest_head_no_picture_is_counted_smaller(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for largest, scale in ((0.0, "auto"), (15.0, 1.0)):
        counter, seen = faces(thin_model, 48, monkeypatch)
        counter.model.largest_sigma, counter.scale = largest, scale
        assert counter.count(picture(512, 512)).scale == 1
        assert seen == [512]


def test_a_portrait_counted_small_shows_its_peak() -> None:
    """Its head lies in hundreds of cells of the photo, but is no fainter on the picture."""
    large = in_cells_of(head(15, 16), (128, 128), (1024, 1024))
    assert large.max() < 0.02
    assert len(density_peaks(large)) == 0
    assert len(density_peaks(large, scale=1 / 8)) == 1
    assert colour_top(large, 1 / 8) == large.max()
    assert colour_top(np.zeros((4, 4)), 1e-30) > 0


def test_a_picture_may_be_counted_as_it_is(sized: CSRNet) -> None:
    pixels = picture(288, 512)
    counter = CrowdCounter(sized, "cpu", scale=1.0)
    assert counter.count(pixels).scale == 1
    assert counter.count(pixels).count != CrowdCounter(sized, "cpu").count(pixels).count
    quarter = CrowdCounter(sized, "cpu", scale=np.float32(0.25))
    found = quarter.count(pixels)
    assert found.density.shape == (36, 64)
    assert found.notices[-1].startswith("It was counted at 0.25 times its size")
    usual = first_scale(sized, 288, 512)
    for factor, told in ((0.78, True), (0.82, False), (1.22, False), (1.28, True)):
        said = CrowdCounter(sized, "cpu", scale=usual * factor).count(pixels).notices
        assert any(one.startswith("It was counted at") for one in said) == told


def test_a_size_that_was_asked_for_is_the_only_one(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However large or crowded its heads are there."""
    for sigma in (3.0, 48.0):
        counter, seen = faces(thin_model, sigma, monkeypatch)
        counter.scale = 0.5
        result = counter.count(picture(512, 512))
        assert (seen, result.scale) == ([256], 0.5)
        assert crowding(head(sigma / 2)) > CROWDED or sigma > 15


def test_a_picture_is_resized_without_steps() -> None:
    black_and_white = np.zeros((8, 8, 3), np.uint8)
    black_and_white[:, 4:] = 255
    row = resized(black_and_white, 2.0)[8, :, 0].astype(int)
    assert len(set(row.tolist())) > 2
    assert (np.diff(row) >= 0).all()


def test_heads_larger_than_those_of_training_are_not_looked_for_in_a_crowd(
    thin_model: CSRNet,
) -> None:
    """... and from a quarter of the crowding of a crowd on, all pictures are of one."""
    model = copy.deepcopy(thin_model)
    for sigma, allowed in ((2.0, CROWDED / 4), (40.0, alone(40.0))):
        model.largest_sigma = sigma
        assert roomy(model) == allowed
    model.largest_sigma = 40.0
    for factor, large in ((3.9, True), (4.1, False)):
        even = np.full((9, 9), factor * alone(40.0), np.float32)
        assert may_be_large(model, even) is large


@pytest.mark.parametrize("scale", [0, -1, 2.5, float("nan"), "native", None, True])
def test_a_scale_that_cannot_be_is_refused(sized: CSRNet, scale: Any) -> None:
    with pytest.raises(ValueError, match="scale must be 'auto' or"):
        CrowdCounter(sized, "cpu", scale=scale)


def test_sizes_travel_in_the_configuration(
    sized: CSRNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch)
    model = copy.deepcopy(sized)
    model.largest_sigma = 15.0
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert (again.min_side, again.working_pixels, again.largest_sigma) == (96, 128 * 128, 15)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "side under 96 pixels is enlarged to that" in card
    assert "the widest kernels of the training photographs (15 pixels)" in card


@pytest.mark.parametrize("value", [-1, 1.5, "384", True, None, 10**12])
@pytest.mark.parametrize("entry", ["min_side", "working_pixels"])
def test_sizes_that_cannot_be_are_refused(entry: str, value: Any) -> None:
    with pytest.raises(ModelError, match=f"{entry} must be a whole number"):
        CSRNet(**{entry: value})


@pytest.mark.parametrize("value", [-1, 1e-9, 1e9, "15", True, None, math.nan, math.inf])
def test_a_largest_head_that_cannot_be_is_refused(value: Any) -> None:
    with pytest.raises(ModelError, match="largest_sigma must be"):
        CSRNet(largest_sigma=value)
