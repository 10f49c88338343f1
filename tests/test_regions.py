"""The count in a part: what lies inside, and that parts add up to the whole."""

from __future__ import annotations

import numpy as np
import pytest

from csrnet_hub.regions import count_inside, grid_counts, outline_share

HEIGHT, WIDTH = 45, 61  # neither divisible by 8


@pytest.fixture
def density() -> np.ndarray:
    return np.random.default_rng(1).normal(0.3, 1, (6, 8)).astype(np.float32)


def box(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def test_the_whole_frame_holds_the_whole_count(density):
    for outline in (box(0, 0, WIDTH, HEIGHT), box(-9, -99, 999, 77), box(0, HEIGHT, WIDTH, 0)):
        assert (outline_share(outline, HEIGHT, WIDTH) == 1).all()
        assert count_inside(density, outline, HEIGHT, WIDTH) == pytest.approx(
            density.sum(dtype=np.float64)
        )


def test_a_rectangle_holds_its_share_of_the_cells_it_cuts():
    share = outline_share(box(4, 8, 16, 12), HEIGHT, WIDTH)
    assert share[1, :3].tolist() == [0.25, 0.5, 0]  # rows 8 to 11 of 8; columns 4 to 15
    assert share.sum() == 0.75


def test_a_last_cell_counts_its_pixels_in_the_picture_only():
    share = outline_share(box(56, 40, 61, 45), HEIGHT, WIDTH)  # the 5 x 5 pixels of the corner
    assert share[5, 7] == 1
    assert share.sum() == 1


@pytest.mark.parametrize("seed", range(20))
def test_the_parts_of_a_partition_add_up_to_the_whole(density, seed):
    rng = np.random.default_rng(seed)
    middle = rng.uniform((5, 5), (WIDTH - 5, HEIGHT - 5))
    ring = box(0, 0, WIDTH, HEIGHT)
    parts = [[ring[i], ring[(i + 1) % 4], middle.tolist()] for i in range(4)]
    shares = sum(outline_share(part, HEIGHT, WIDTH) for part in parts)
    assert np.allclose(shares, 1, atol=1e-12)
    counts = [count_inside(density, part, HEIGHT, WIDTH) for part in parts]
    assert sum(counts) == pytest.approx(density.sum(dtype=np.float64), abs=1e-6)


def test_a_scribble_encloses_all_that_it_goes_around():
    once = box(8, 8, 40, 32)
    twice = once + once
    assert (outline_share(twice, HEIGHT, WIDTH) == outline_share(once, HEIGHT, WIDTH)).all()


def test_inside_is_as_matplotlib_says():
    from matplotlib.path import Path

    outline = np.random.default_rng(5).uniform((3, 3), (57, 41), (3, 2))
    grid = np.stack(np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5), -1).reshape(-1, 2)
    inside = Path(outline).contains_points(grid).reshape(6, 8, 8, 8).sum((1, 3))
    share = outline_share(outline, 48, 64)
    assert inside.sum() > 100
    assert np.abs(share * 64 - inside).max() <= 1  # a centre on the line may be either's


@pytest.mark.parametrize("outline", [[], [[3, 3]], [[3, 3], [30, 30]], [[5, 5], [9, 5], [30, 5]]])
def test_what_encloses_nothing_holds_nobody(density, outline):
    assert count_inside(density, outline, HEIGHT, WIDTH) == 0


@pytest.mark.parametrize("outline", [[1, 2, 3], [[1, 2, 3]], [[0, 0], [np.nan, 3], [4, 4]]])
def test_what_is_no_outline_is_refused(density, outline):
    with pytest.raises(ValueError, match="outline"):
        count_inside(density, outline, HEIGHT, WIDTH)


@pytest.mark.filterwarnings("error")
def test_corners_far_from_the_picture_are_read_to_a_billion_pixels_and_no_further(density):
    assert (outline_share(box(-1e9, -1e9, 1e9, 1e9), HEIGHT, WIDTH) == 1).all()
    below = [[-1e9, -1e9], [1e9, 22.2], [-1e9, 22.2]]  # its long side passes far above the picture
    share = outline_share(below, HEIGHT, WIDTH)
    assert (share == np.array([1, 1, 0.75, 0, 0, 0])[:, None]).all()
    for far in (1.1e9, 1e308, -1e308):
        with pytest.raises(ValueError, match="outline must lie within 1,000,000,000 pixels"):
            count_inside(density, [[0, 0], [far, 20], [3, -far]], HEIGHT, WIDTH)


@pytest.mark.parametrize("scale", [3, 30, 300])
def test_a_long_free_hand_line_encloses_the_pixels_of_nonzero_winding(scale):
    rng = np.random.default_rng(scale)
    corners = rng.normal((WIDTH / 2, HEIGHT / 2), scale, (200, 2))
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    winding = np.zeros((HEIGHT, WIDTH), int)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0)):
        left_of = (x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)
        winding += ((y0 <= y) & (y < y1) & (left_of > 0)).astype(int)
        winding -= ((y1 <= y) & (y < y0) & (left_of < 0)).astype(int)
    inside = np.pad(winding != 0, ((0, 48 - HEIGHT), (0, 64 - WIDTH))).astype(float)
    held = np.outer(
        np.minimum(8, HEIGHT - np.arange(6) * 8), np.minimum(8, WIDTH - np.arange(8) * 8)
    )
    expected = inside.reshape(6, 8, 8, 8).sum((1, 3)) / held
    np.testing.assert_allclose(outline_share(corners, HEIGHT, WIDTH), expected, atol=1e-12)


def test_a_map_of_another_picture_is_refused(density):
    with pytest.raises(ValueError, match="cells"):
        count_inside(density, box(0, 0, 9, 9), 48, 65)
    with pytest.raises(ValueError, match="cells"):
        grid_counts(density, 400, 400, 3, 3)


@pytest.mark.parametrize("grid", [(1, 1), (3, 3), (2, 7), (50, 90)])
def test_the_fields_of_a_grid_add_up_to_the_count(density, grid):
    fields = grid_counts(density, HEIGHT, WIDTH, *grid)
    assert fields.shape == grid
    assert fields.sum() == pytest.approx(density.sum(dtype=np.float64), abs=1e-6)


def test_a_field_of_a_grid_is_the_rectangle_of_that_name(density):
    fields = grid_counts(density[:, :6], HEIGHT, 48, 3, 3)  # edges at whole pixels
    corner = count_inside(density[:, :6], box(16, 15, 32, 30), HEIGHT, 48)
    assert fields[1, 1] == pytest.approx(corner, abs=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (7, 4), (50, 90)])
def test_fields_of_a_grid_that_cut_pixels_get_their_share_of_them(density, rows, columns):
    pixels = density.astype(np.float64).repeat(8, 0).repeat(8, 1)[:HEIGHT, :WIDTH]  # of their cell
    for axis, side in ((0, HEIGHT), (1, WIDTH)):
        held = np.minimum(8, side - np.arange(side) // 8 * 8)  # pixels that share a cell
        pixels = pixels / held.reshape((-1, 1) if axis == 0 else (1, -1))
    fine = pixels.repeat(rows, 0).repeat(columns, 1) / (rows * columns)
    expected = fine.reshape(rows, HEIGHT, columns, WIDTH).sum((1, 3))
    fields = grid_counts(density, HEIGHT, WIDTH, rows, columns)
    assert np.abs(fields - expected).max() < 1e-9


def test_a_grid_without_fields_is_refused(density):
    with pytest.raises(ValueError, match="field"):
        grid_counts(density, HEIGHT, WIDTH, 0, 3)
