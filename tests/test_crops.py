"""What training crops promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from csrnet_hub.datasets.sample import heads_in_mask
from csrnet_hub.density import density_map
from train import crops, windows
from train.crops import Crops
from train.data import Example
from train.empty import empty_pictures
from train.measure import mask_shares
from train.recipe import Recipe, read_recipe
from train.windows import Window
from train.worse import worse_copies

RECIPE = Path(__file__).with_name("recipe.toml")
CPU = torch.device("cpu")


@pytest.fixture
def recipe() -> Recipe:
    still = {"scale": [1.0, 1.0], "grey": 0.0, "light": 0.0, "empty": 0.0}
    return read_recipe(RECIPE, batch=2, crop=64, validation=2, exclude=[], train_only=[], **still)


def example(count: int, height: int = 72, width: int = 96, sigma: float = 3.0) -> Example:
    rng = np.random.default_rng(count)
    heads = rng.random((count, 2)) * (width, height)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Example("x", pixels, heads, np.full(count, sigma), count)


def test_a_window_of_the_same_size_holds_the_very_pixels(recipe: Recipe) -> None:
    pictures = [example(3), example(5, 90, 70)]
    batch = Crops(pictures, recipe, CPU).cut(
        [Window(1, 7, 4, 64, 64), Window(0, 0, 32, 64, 64, mirrored=True)], (64, 64)
    )
    assert batch.pixels.shape == (2, 3, 64, 64)
    one = torch.from_numpy(pictures[1].pixels[7:71, 4:68]).permute(2, 0, 1)
    two = torch.from_numpy(pictures[0].pixels[0:64, 32:96]).permute(2, 0, 1).flip(-1)
    assert torch.allclose(batch.pixels[0], one.float(), atol=1e-2)
    assert torch.allclose(batch.pixels[1], two.float(), atol=1e-2)


def test_light_and_grey_are_what_a_window_says(recipe: Recipe) -> None:
    picture = replace(example(3), pixels=example(3).pixels // 4 + 96)  # nothing is cut off
    plain = Window(0, 7, 4, 64, 64)
    lit = replace(plain, brightness=1.2, contrast=0.5)
    windows = [plain, lit, replace(plain, grey=True)]
    pixels, relit, grey = Crops([picture], recipe, CPU).cut(windows, (64, 64)).pixels
    assert relit.mean().item() == pytest.approx(1.2 * pixels.mean().item(), rel=1e-4)
    assert relit.std().item() == pytest.approx(0.5 * pixels.std().item(), rel=1e-4)
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[1], grey[2])
    luma = (pixels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    assert torch.allclose(grey[0], luma, atol=0.2)


def test_windows_are_as_much_smaller_as_the_photograph_is_enlarged_and_depend_on_the_seed(
    recipe: Recipe,
) -> None:
    twice = replace(recipe, scale=[2.0, 2.0], native=0.0, light=0.2)
    drawn = [Crops([example(3)], replace(twice, seed=seed), CPU) for seed in (0, 0, 1)]
    first, same, other = ([one.windows.draw(index) for index in range(40)] for one in drawn)
    assert {window.width for window in first} == {32.0}  # of 64 pixels
    assert first == same != other
    light = np.array([(window.brightness, window.contrast) for window in first])
    assert light.min() < 0.9
    assert light.max() > 1.1
    assert (np.abs(light - 1) <= 0.2).all()


def test_the_target_is_the_density_map_of_the_whole_picture_inside_the_window(
    recipe: Recipe,
) -> None:
    photo = example(40, 160, 136)
    photo = replace(photo, sigma=np.random.default_rng(0).uniform(2, 9, 40))
    whole = density_map(photo.heads, 160, 136, photo.sigma, stride=8)
    crops = Crops([photo], recipe, CPU)
    windows = [Window(0, 16, 8, 64, 64), Window(0, 96, 72, 64, 64, mirrored=True)]
    target = crops.cut(windows, (64, 64)).target
    assert np.allclose(target[0, 0], whole[2:10, 1:9], atol=1e-5)
    assert np.allclose(target[1, 0], whole[12:20, 9:17][:, ::-1], atol=1e-5)


def test_widths_that_were_asked_for_are_kept_and_adaptive_ones_are_limited(recipe: Recipe) -> None:
    asked, adaptive = replace(example(3, sigma=25.0), fixed=True), example(3, sigma=25.0)
    assert recipe.sigma == [2.0, 15.0]
    assert Crops([asked, adaptive], recipe, CPU).heads[:6, 2].tolist() == [25.0] * 3 + [15.0] * 3


def test_the_heads_of_a_crop_are_those_inside_it_at_its_scale(recipe: Recipe) -> None:
    inside, outside = [[20.0, 30.0], [35.5, 16.25]], [[15.9, 20.0], [48.0, 20.0], [20.0, 48.5]]
    photo = replace(example(5, 90, 96), heads=np.array(inside + outside))
    windows = [Window(1, 16, 16, 32, 32), Window(1, 16, 16, 32, 32, True), Window(0, 0, 0, 64, 64)]
    batch = Crops([example(0), photo], recipe, CPU).cut(windows, (64, 64))
    assert batch.heads.shape == (3, 64, 2)  # filled up to few lengths
    assert batch.present.sum(dim=1).tolist() == [2, 2, 0]
    assert batch.heads[0, :2].tolist() == [[8, 28], [39, 0.5]]
    assert batch.heads[1, :2].tolist() == [[56, 28], [25, 0.5]]


def test_heads_lie_where_the_density_of_their_crop_does(recipe: Recipe) -> None:
    apart = np.array([[x, y] for x in (20.0, 68.0, 115.0) for y in (25.0, 80.0, 130.0)])
    photo = replace(example(9, 160, 136, sigma=0.5), heads=apart)
    crops = Crops([photo], replace(recipe, scale=[0.7, 1.4]), CPU)
    seen = 0
    for step in range(10):
        batch = crops.at(step)
        for target, heads, present in zip(batch.target[:, 0], batch.heads, batch.present):
            for x, y in heads[present]:
                seen += 1
                assert target[int(y / 8), min(int(x / 8), 7)].item() > 0.24  # a corner of four
            assert target.sum().item() == pytest.approx(present.sum().item(), abs=1)
    assert seen > 20


@pytest.mark.parametrize("side", [48, 64, 91, 128])
def test_a_whole_picture_keeps_every_head_at_any_scale(recipe: Recipe, side: int) -> None:
    photo = example(30, side, side)
    batch = Crops([photo], recipe, CPU).cut([Window(0, 0, 0, side, side)], (64, 64))
    assert batch.target.sum().item() == pytest.approx(30, rel=1e-5)
    assert batch.pixels.mean().item() == pytest.approx(photo.pixels.mean(), abs=1.5)


def test_a_picture_that_shrinks_is_smoothed_as_its_pixels_are_joined(recipe: Recipe) -> None:
    noise = example(1, 128, 128)  # white noise: its deviation falls by the number joined, 2 x 2
    small = Crops([noise], recipe, CPU).cut([Window(0, 0, 0, 128, 128)], (64, 64)).pixels
    assert small.std().item() == pytest.approx(noise.pixels.std() / 2, rel=0.15)


def test_heads_move_with_the_pixels(recipe: Recipe) -> None:
    pixels = np.zeros((160, 160, 3), dtype=np.uint8)
    pixels[40:48, 96:104] = 255  # one bright cell with one head in it
    spot = Example("x", pixels, np.array([[100.0, 44.0]]), np.array([2.0]), 1)
    crops = Crops([spot], replace(recipe, scale=[0.5, 1.5]), CPU)
    seen = 0
    for step in range(20):
        batch = crops.at(step)
        for crop, target in zip(batch.pixels, batch.target[:, 0]):
            if target.sum() < 0.99:
                continue
            seen += 1
            cells, line = torch.arange(8) * 8 + 4.0, torch.arange(64) + 0.5
            light = crop[0] / crop[0].sum()
            for axis in (0, 1):
                head = (target.sum(1 - axis) * cells).sum() / target.sum()
                bright = (light.sum(1 - axis) * line).sum()
                assert bright.item() == pytest.approx(head.item(), abs=2)
    assert seen > 5


def test_a_photograph_smaller_than_the_crop_is_enlarged(recipe: Recipe) -> None:
    batch = Crops([example(12)], replace(recipe, crop=256, scale=[0.7, 1.4]), CPU).at(0)
    assert batch.pixels.shape == (2, 3, 256, 256)
    assert (batch.target.sum((1, 2, 3)) <= 12.001).all()
    assert 0 <= batch.pixels.min() <= batch.pixels.max() <= 255


def test_a_picture_without_heads_beside_one_with_many(recipe: Recipe) -> None:
    crops = Crops([example(0), example(200)], recipe, CPU)
    target = crops.cut([Window(0, 0, 0, 64, 64), Window(1, 0, 0, 64, 64)], (64, 64)).target
    assert target[0].abs().max() == 0
    assert target[1].sum() > 50


def test_a_batch_depends_on_seed_and_step_alone_and_is_shared_without_a_rest(
    recipe: Recipe,
) -> None:
    lively = replace(recipe, scale=[0.7, 1.4], grey=0.5, light=0.3, empty=0.3, batch=4)
    pictures = [example(count) for count in range(10)]
    one, two = (Crops(pictures, lively, CPU) for _ in range(2))
    assert torch.equal(one.at(7).pixels, two.at(7).pixels)
    assert not torch.equal(one.at(7).pixels, one.at(8).pixels)
    halves = [one.at(7, slice(rank, None, 2)) for rank in (0, 1)]
    joined = torch.stack([half.target for half in halves], dim=1).flatten(0, 1)
    assert torch.allclose(joined, one.at(7).target, atol=1e-6)


def test_what_lies_at_an_edge_is_seen_about_as_often_as_the_middle(recipe: Recipe) -> None:
    crops = Crops([example(3, 192, 256)], recipe, CPU)
    seen = np.zeros((192, 256))
    for index in range(4000):
        window = crops.windows.draw(index)
        top, left = int(window.top), int(window.left)
        seen[top : top + 64, left : left + 64] += 1
    rows, columns = seen.mean(axis=1), seen.mean(axis=0)
    for line in (rows, columns):
        for end in (line[:24], line[-24:]):
            assert 0.7 < end.mean() / line.mean() < 1.3
        assert line.max() < 2.5 * line.min()


def test_one_pass_sees_every_photograph_once(recipe: Recipe) -> None:
    crops = Crops([example(count) for count in range(10)], recipe, CPU)
    passes = [[crops.windows.draw(10 * turn + i).picture for i in range(10)] for turn in (0, 1)]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(10))
    assert passes[0] != passes[1]


def test_a_share_of_the_crops_is_cut_as_it_is(recipe: Recipe) -> None:
    pictures = [example(9, 200, 240)]
    for native, least, most in ((0.0, 0, 5), (0.5, 70, 130), (1.0, 200, 200)):
        lively = replace(recipe, scale=[0.5, 2.0], native=native, light=0.2)
        crops = Crops(pictures, lively, CPU)
        sides = [crops.windows.draw(index).height for index in range(200)]
        assert least <= sides.count(64) <= most
    lively = replace(lively, light=0.0)
    window = Crops(pictures, lively, CPU).windows.draw(3)
    top, left = int(window.top), int(window.left)
    own = pictures[0].pixels[top : top + 64, left : left + 64]
    own = own[:, ::-1] if window.mirrored else own
    batch = Crops(pictures, lively, CPU).cut([window], (64, 64))
    assert np.array_equal(batch.pixels[0].permute(1, 2, 0).round().numpy(), own)


def test_half_of_the_crops_are_mirrored_and_a_share_is_grey(recipe: Recipe) -> None:
    crops = Crops([example(9)], replace(recipe, grey=0.2), CPU)
    drawn = [crops.windows.draw(index) for index in range(400)]
    assert 160 < sum(window.mirrored for window in drawn) < 240
    assert 50 < sum(window.grey for window in drawn) < 110


def test_as_many_crops_are_enlarged_as_shrunk(recipe: Recipe) -> None:
    """... where the scale reaches as many times up as down."""
    lively = replace(recipe, scale=[0.5, 2.0], native=0.0, empty=0.0)
    crops = Crops([example(9, 300, 300)], lively, CPU)
    sides = np.array([crops.windows.draw(index).width for index in range(400)])
    assert 160 < (sides < 64).sum() < 240
    assert sides.min() < 36
    assert sides.max() > 114


def test_a_pass_sees_the_photographs_of_a_repeated_part_as_often_as_asked(recipe: Recipe) -> None:
    photos = [replace(example(i), part=part) for i, part in enumerate("aaabb")]
    crops = Crops(photos, replace(recipe, repeat={"b": 3}), CPU)
    drawn = [crops.windows.draw(index).picture for index in range(9)]
    assert sorted(drawn) == [0, 1, 2, 3, 3, 3, 4, 4, 4]


def test_worse_copies_are_cut_where_the_photographs_would_be(recipe: Recipe) -> None:
    photos = [replace(example(count, 160, 136), part=part) for count, part in ((9, "a"), (30, "b"))]
    sharp = replace(recipe, scale=[0.7, 1.4], grey=0.3, light=0.3, empty=0.2, repeat={"b": 2})
    own = Crops(photos, sharp, CPU)
    for share in (0.4, 1.0):
        crops = Crops(photos, replace(sharp, worse=share), CPU)
        copied = 0
        for index in range(300):
            plain, window = own.windows.draw(index), crops.windows.draw(index)
            moved = 2 if plain.picture >= 2 else 0  # drawn pictures come after the copies
            if window.picture in (2, 3):
                moved, copied = 2, copied + 1
            assert window == replace(plain, picture=plain.picture + moved)
        shown = sum(own.windows.draw(index).picture < 2 for index in range(300))
        assert copied == pytest.approx(share * shown, abs=30)
    plain, worse = own.at(0), crops.at(0)  # all are copies now
    assert torch.equal(plain.target, worse.target)
    assert torch.equal(plain.heads, worse.heads)
    assert torch.equal(plain.drawn, worse.drawn)
    assert not torch.equal(plain.pixels, worse.pixels)


def test_worse_copies_keep_their_mask(recipe: Recipe) -> None:
    mask = np.zeros((72, 96), bool)
    mask[:, :48] = True
    photos = [replace(example(5), part="a", mask=mask), replace(example(9), part="b")]
    how = replace(recipe, worse=1.0)
    batch = Crops(photos, how, CPU).cut(
        [Window(2, 0, 0, 64, 64), Window(3, 0, 0, 64, 64)], (64, 64)
    )
    assert batch.weight is not None
    assert batch.weight[:, 0, 0].tolist() == [[1.0] * 6 + [0.0] * 2, [1.0] * 8]


def test_worse_copies_are_soft_or_compressed_and_the_same_for_a_seed() -> None:
    photos = [example(1, 64, 64) for _ in range(40)]
    copies = worse_copies(photos, seed=0)
    assert all(copy.heads is photo.heads for copy, photo in zip(copies, photos))
    assert all(copy.pixels.shape == (64, 64, 3) for copy in copies)
    assert all(copy.pixels.dtype == np.uint8 for copy in copies)
    spread = np.array([copy.pixels.std() for copy in copies]) / photos[0].pixels.std()
    assert 0.3 < (spread > 0.5).mean() < 0.7  # the rest is blurred, which noise shows most
    again = worse_copies(photos, seed=0)
    assert all(np.array_equal(one.pixels, two.pixels) for one, two in zip(copies, again))
    other = worse_copies(photos, seed=1)
    assert not any(np.array_equal(one.pixels, two.pixels) for one, two in zip(copies, other))
    for shape in ((1, 1, 3), (2, 70_000, 3)):  # the latter is too long for JPEG
        odd = replace(photos[0], pixels=np.full(shape, 7, np.uint8))
        assert np.allclose(worse_copies([odd], seed=0)[0].pixels, 7, atol=2)
    assert worse_copies([], seed=0) == []


@pytest.mark.parametrize(("beyond", "at_an_end"), [(0.0, 0.005), (0.25, 0.33), (0.75, 0.60)])
def test_windows_begin_at_an_end_of_the_picture_as_often_as_beyond_makes_them(
    beyond: float, at_an_end: float
) -> None:
    rng = np.random.default_rng(0)
    places = np.array([windows._place(rng, 768, 384, beyond) for _ in range(4000)])
    assert places.min() >= 0
    assert places.max() <= 768 - 384
    assert np.mean((places == 0) | (places == 384)) == pytest.approx(at_an_end, abs=0.03)


def test_drawn_pictures_take_their_share_and_hold_nobody(recipe: Recipe) -> None:
    crops = Crops([example(50)], replace(recipe, empty=0.4), CPU)
    drawn = [index for index in range(200) if crops.windows.draw(index).picture > 0]
    assert 50 < len(drawn) < 110
    target = crops.cut([crops.windows.draw(drawn[0])], (64, 64)).target
    assert target.abs().max() == 0
    pictures = empty_pictures(0, 64, 12)
    assert {picture.shape for picture in pictures} == {(96, 96, 3)}
    assert len({picture.tobytes() for picture in pictures}) == 12


def test_drawn_pictures_are_even_gradients_and_busy() -> None:
    kinds = {"even": 0, "gradient": 0, "busy": 0}
    for picture in empty_pictures(0, 64):
        values = picture.astype(int)
        down, across = np.diff(values, axis=0), np.diff(values, axis=1)
        if not down.any() and not across.any():
            kinds["even"] += 1
        elif not down.any() or not across.any():  # along one axis; each channel goes one way
            slope = np.sign(down if down.any() else across)
            steady = (slope.max(axis=(0, 1)) - slope.min(axis=(0, 1)) < 2).all()
            kinds["gradient" if steady else "busy"] += 1
        else:
            kinds["busy"] += 1
    assert kinds["even"] > 4
    assert kinds["gradient"] > 4
    assert kinds["busy"] > 40


def test_no_device_is_sent_a_type_that_it_may_lack(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds, flat = set(), crops._flat

    def noted(arrays: list[np.ndarray], device: torch.device) -> torch.Tensor:
        kinds.update(array.dtype for array in arrays)
        return flat(arrays, device)

    monkeypatch.setattr(crops, "_flat", noted)
    masked = replace(example(9), mask=np.ones((64, 64), bool))
    Crops([masked], replace(recipe, worse=0.5), CPU)
    assert kinds == {np.dtype(np.uint8), np.dtype(np.float32)}  # Apple's has no float64


def test_outside_the_region_of_interest_nothing_is_learnt(recipe: Recipe) -> None:
    photo = example(60, 64, 64)
    mask = np.zeros((64, 64), bool)
    mask[:, :32] = True
    crops = Crops([replace(photo, mask=mask), example(9)], recipe, CPU)
    batch = crops.cut([Window(0, 0, 0, 64, 64), Window(1, 0, 0, 64, 64)], (64, 64))
    assert batch.weight is not None
    assert batch.weight[0, 0, :, :4].min() == 1
    assert batch.weight[0, 0, :, 4:].max() == 0
    assert batch.weight[1].min() == 1
    assert batch.target[0, 0, :, 4:].max() == 0
    assert batch.target[0, 0, :, :4].sum() > 10
    present = {tuple(head) for head in batch.heads[0][batch.present[0]].tolist()}
    assert present == {tuple(head) for head in photo.heads.astype("f4").tolist() if head[0] < 32}
    assert batch.present[1].any()


def test_every_head_in_a_region_of_interest_counts_once_whatever_its_outline(
    recipe: Recipe,
) -> None:
    down, across = np.indices((128, 128))
    regions = {
        "a strip between the borders of cells": (across >= 13) & (across < 27),
        "a disc": np.hypot(down - 61.5, across - 70.3) < 30,
        "a slope": 3 * down + 2 * across < 150,
    }
    for name, mask in regions.items():
        photo = example(300, 128, 128, sigma=6.0)
        photo = replace(photo, heads=photo.heads[heads_in_mask(photo.heads, mask)])
        number = len(photo.heads)
        photo = replace(photo, sigma=photo.sigma[:number], count=number, mask=mask)
        assert number > 20
        crops = Crops([photo], replace(recipe, crop=128), CPU)
        as_it_is, mirrored, larger = (
            crops.cut([Window(0, 0, 0, 128, 128, flip)], (side, side))
            for flip, side in ((False, 128), (True, 128), (False, 256))
        )
        for batch, close in ((as_it_is, 1e-4), (mirrored, 1e-4), (larger, 0.01)):
            assert batch.target.sum().item() == pytest.approx(number, rel=close), name
            assert batch.present.sum().item() == number  # in cells that the region cuts too
        assert as_it_is.weight is not None
        assert torch.allclose(as_it_is.weight[0, 0], torch.from_numpy(mask_shares(mask)))
        assert as_it_is.target[as_it_is.weight == 0].abs().max() == 0
        parts = crops.cut(
            [Window(0, top, left, 64, 64) for top in (0, 64) for left in (0, 64)], (64, 64)
        )
        assert parts.target.sum().item() == pytest.approx(number, rel=1e-4)


def test_a_pass_of_the_papers_recipe_mixes_the_patches(recipe: Recipe) -> None:
    photos = [example(count, 80, 100) for count in range(30)]
    crops = Crops(photos, replace(recipe, crops="quarters", batch=1), CPU)
    windows = [crops.windows.draw(index) for index in range(30)]
    assert len({window.picture for window in windows}) == 30
    assert len({(window.top, window.left, window.mirrored) for window in windows}) > 10


def test_the_papers_patches_are_four_quarters_and_five_at_random_all_mirrored(
    recipe: Recipe,
) -> None:
    paper = replace(recipe, crops="quarters", batch=1)
    crops = Crops([example(20, 80, 100)], paper, CPU)
    windows = [crops.windows.draw(index) for index in range(18)]
    assert {(window.height, window.width) for window in windows} == {(40, 48)}
    places = {(window.top, window.left) for window in windows}
    assert places > {(0, 0), (0, 52), (40, 0), (40, 52)}
    assert len(places) == 9
    assert {(*place, mirrored) for place in places for mirrored in (False, True)} == {
        (window.top, window.left, window.mirrored) for window in windows
    }
    again = [crops.windows.draw(index) for index in range(18, 36)]
    assert set(again) == set(windows)
    assert again != windows
    assert crops.at(0).target.shape == (1, 1, 5, 6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_crops(recipe: Recipe) -> None:
    lively = replace(recipe, scale=[0.7, 1.4], grey=0.5, light=0.3, empty=0.3, batch=8)
    pictures = [example(count, 90, 120) for count in range(10)]
    here, there = (Crops(pictures, lively, torch.device(name)) for name in ("cpu", "cuda"))
    for step in range(3):
        one, two = here.at(step), there.at(step)
        assert torch.allclose(one.pixels, two.pixels.cpu(), atol=0.1)
        assert torch.allclose(one.target, two.target.cpu(), atol=1e-4)
