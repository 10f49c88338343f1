import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context, rcParams
from PIL import Image

from csrnet_hub import jet, render

DARK_BLUE = (0, 0, 127)  # jet's first colour; matplotlib releases differ by one step in it
ROOT = Path(__file__).parents[1]


def hot(shape, *cells, value=2.0):
    density = np.zeros(shape, np.float32)
    for cell in cells:
        density[cell] = value
    return density


def grey(height, width, level=90):
    return np.full((height, width, 3), level, np.uint8)


def is_dark_blue(pixels):
    return np.abs(np.asarray(pixels).astype(int) - DARK_BLUE).max() <= 1


def is_red(pixel):
    red, green, blue = (int(level) for level in pixel)
    return red > 120 and green < 60 and blue < 60


def levels(picture):
    """The values from 0 to 1 whose jet colours a picture shows, (H, W)."""
    from matplotlib import colormaps

    jet = colormaps["jet"](np.arange(256), bytes=True)[:, :3].astype(int) @ (65536, 256, 1)
    pixels = np.asarray(picture).astype(int) @ (65536, 256, 1)
    order = np.argsort(jet)
    found = order[np.searchsorted(jet[order], pixels).clip(max=255)]
    assert (jet[found] == pixels).all(), "a colour that is not jet's"
    return found / 255


def run_python(code, *arguments):
    """Run code beside the package's modules, without the package's own imports (torch)."""
    start = (
        "import sys, types\n"
        "package = sys.modules['csrnet_hub'] = types.ModuleType('csrnet_hub')\n"
        f"package.__path__ = [{str(ROOT / 'csrnet_hub')!r}]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# the jet map


def test_a_hot_cell_is_red_on_its_own_pixels_and_nowhere_else():
    picture = render.density_image(hot((5, 7), (3, 4)), size=(53, 37))
    assert picture.mode == "RGB"
    assert picture.size == (53, 37)
    pixels = np.asarray(picture)
    assert is_red(pixels[28, 36])  # cell (3, 4) is rows 24 to 31, columns 32 to 39
    rows, columns = np.nonzero(levels(picture) > 0.5)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (24, 31, 32, 39)
    assert is_dark_blue(pixels[:16])
    assert is_dark_blue(pixels[:, :24])


def test_a_last_cell_that_reaches_past_the_photo_is_cut_off_and_not_squeezed_in():
    picture = render.density_image(hot((5, 5), (4, 4)), size=(33, 33))  # that cell has one pixel
    level = levels(picture)
    assert np.unravel_index(level.argmax(), level.shape) == (32, 32)
    # its centre would be at pixel 35.5; half a cell further in, nothing is left of it
    assert is_dark_blue(np.asarray(picture)[:27, :27])


def test_a_map_without_a_size_is_drawn_eight_times_larger():
    picture = render.density_image(hot((2, 3), (1, 0)))
    assert picture.size == (24, 16)
    assert is_red(np.asarray(picture)[12, 4])


@pytest.mark.parametrize("size", [(28, 20), (280, 200), (5, 11)])
def test_a_map_fills_any_other_size_in_proportion(size):
    level = levels(render.density_image(hot((5, 7), (2, 3)), size=size))  # the middle cell
    assert level.shape == size[::-1]
    row, column = np.argwhere(level == level.max()).mean(axis=0)
    assert (row + 0.5) / size[1] == pytest.approx(0.5, abs=0.02)
    assert (column + 0.5) / size[0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-42])
def test_a_map_with_nobody_is_dark_blue_all_over(value):
    assert is_dark_blue(render.density_image(np.full((3, 4), value, np.float32)))


def test_negative_values_are_drawn_as_zero():
    density = hot((4, 4), (1, 1))
    negative = np.where(density == 0, np.float32(-1), density)
    assert render.density_image(negative) == render.density_image(density)


def test_colours_are_those_of_matplotlibs_jet_and_vmax_sets_their_scale():
    from matplotlib import colormaps

    for value, vmax in [(0.5, 1.0), (0.25, 1.0), (1.0, 4.0), (3.0, 3.0), (9.0, 3.0)]:
        pixel = np.asarray(render.density_image(np.full((2, 2), value), vmax=vmax))[5, 5]
        expected = colormaps["jet"](min(value / vmax, 1.0), bytes=True)[:3]
        assert tuple(pixel) == tuple(expected)


def test_the_maximum_of_the_map_is_the_last_colour_by_default():
    density = np.full((2, 2), 0.03, np.float32)
    assert render.density_image(density) == render.density_image(density, vmax=0.03)
    assert is_red(np.asarray(render.density_image(density))[0, 0])


def test_the_noise_of_an_empty_scene_is_not_drawn_red():
    density = np.full((2, 2), 0.002, np.float32)
    assert render.colour_top(density) == 0.02
    assert np.asarray(render.density_image(density))[0, 0].tolist()[0] == 0  # no red at all


def test_no_seam_shows_where_a_tall_picture_is_drawn_in_strips(monkeypatch):
    density = np.random.default_rng(0).random((80, 9)).astype(np.float32)
    photo = np.random.default_rng(1).integers(0, 256, (637, 70, 3), np.uint8)
    in_strips = [render.density_image(density, (70, 637)), render.overlay_image(photo, density)]
    in_strips += [render.display_pair(photo, density, 601)[1]]
    monkeypatch.setattr(jet, "STRIP", 100_000)
    at_once = [render.density_image(density, (70, 637)), render.overlay_image(photo, density)]
    at_once += [render.display_pair(photo, density, 601)[1]]
    for one, other in zip(in_strips, at_once):
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 4  # one jet step


# the overlay


def test_an_overlay_leaves_the_photo_unchanged_where_there_is_nobody():
    photo = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    picture = render.overlay_image(photo, hot((5, 7), (3, 4)))
    assert picture.mode == "RGB"
    assert picture.size == (53, 37)
    assert (np.asarray(picture)[:16] == photo[:16]).all()
    assert (np.asarray(picture)[:, :24] == photo[:, :24]).all()
    assert (np.asarray(render.overlay_image(photo, np.zeros((5, 7)))) == photo).all()


def test_an_overlay_tints_a_crowd_as_strongly_as_the_opacity_says():
    photo, density = grey(40, 56), hot((5, 7), (3, 4))
    jet = np.asarray(render.density_image(density, (56, 40)))[28, 36].astype(float)
    for opacity in (0.0, 0.3, 0.5, 1.0):
        pixel = np.asarray(render.overlay_image(photo, density, opacity))[28, 36]
        assert pixel == pytest.approx(90 + opacity * (jet - 90), abs=0.51)


def test_a_thin_crowd_is_still_seen_in_an_overlay():
    density = hot((5, 7), (3, 4))
    density[1, 1] = 0.2  # a tenth of the maximum
    pixels = np.asarray(render.overlay_image(grey(40, 56), density)).astype(int)
    assert np.abs(pixels[12, 12] - 90).max() > 20


def test_making_pictures_changes_neither_photo_nor_map():
    photo, density = grey(20, 20), hot((3, 3), (1, 1))
    density[0, 0] = -1
    copies = photo.copy(), density.copy()
    render.overlay_image(photo, density)
    render.display_pair(photo, density)
    render.density_figure(density, photo)
    assert (photo == copies[0]).all()
    assert (density == copies[1]).all()


# the pair for the slider


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (37, 53, (53, 37)),
        (300, 1001, (200, 60)),
        (1001, 300, (60, 200)),
        (1, 1, (1, 1)),
        (3, 2000, (200, 1)),
        (200, 200, (200, 200)),
        (1999, 1001, (100, 200)),
    ],
)
def test_the_pair_has_one_size_within_the_limit(height, width, expected):
    photo = grey(height, width)
    pair = render.display_pair(photo, np.zeros((-(-height // 8), -(-width // 8))), max_side=200)
    assert [picture.size for picture in pair] == [expected, expected]
    assert [picture.mode for picture in pair] == ["RGB", "RGB"]
    assert (np.asarray(pair[0]) == 90).all()
    assert is_dark_blue(pair[1])


@pytest.mark.parametrize("side", [30, 200])
def test_a_photo_alone_is_shown_as_in_the_pair(side):
    photo = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    pair = render.display_pair(photo, np.zeros((5, 7)), side)
    assert render.shown_photo(photo, side) == pair[0]
    with pytest.raises(ValueError, match="uint8"):
        render.shown_photo(photo / 255)


def test_a_small_photo_is_not_changed_by_the_pair():
    photo = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    assert (np.asarray(render.display_pair(photo, np.zeros((5, 7)))[0]) == photo).all()


def test_a_map_counted_small_is_drawn_in_colours_of_its_own_in_a_pair() -> None:
    photo, density = np.zeros((480, 480, 3), np.uint8), np.full((60, 60), 0.004, np.float32)
    faint, strong = (
        np.asarray(render.display_pair(photo, density, scale=scale)[1]) for scale in (1.0, 0.2)
    )
    assert (faint[..., 2] > faint[..., 0]).all()  # blue
    assert (strong[..., 0] > strong[..., 2]).all()  # red


@pytest.mark.parametrize("max_side", [1280, 401, 97, 70])
def test_photo_and_map_of_a_pair_show_a_crowd_at_the_same_place(max_side):
    photo, density = grey(601, 401, 0), np.zeros((76, 51))
    photo[528:568, 288:328] = 255  # exactly cells 66 to 70, 36 to 40
    density[66:71, 36:41] = 1
    seen = render.display_pair(photo, density, max_side=max_side)
    weights = np.asarray(seen[0])[..., 0].astype(float), levels(seen[1])
    rows, columns = np.mgrid[: seen[0].height, : seen[0].width]
    places = []
    for weight in weights:
        weight = np.where(weight > 0.05 * weight.max(), weight, 0)
        places.append([(weight * axis).sum() / weight.sum() for axis in (rows, columns)])
    assert places[0] == pytest.approx(places[1], abs=0.2)


# the figure


def figure_texts(figure):
    axes_texts = [text for axes in figure.axes for text in (axes.get_ylabel(), axes.get_xlabel())]
    return [text.get_text() for text in figure.texts] + axes_texts


def test_the_figure_says_what_its_colours_mean_and_what_they_sum_to():
    density = np.full((10, 20), 0.617, np.float32)
    texts = figure_texts(render._density_figure(density, grey(80, 160), "A square", 300))
    assert "heads per cell (8 × 8 pixels)" in texts
    assert any("sum over all cells = 123.4 heads" in text for text in texts)
    assert "A square" in texts


@pytest.mark.parametrize("max_side", [1, 260, 900])
def test_the_count_in_the_figure_does_not_depend_on_its_size(max_side):
    density = np.random.default_rng(0).random((300, 400)).astype(np.float32)
    texts = figure_texts(render._density_figure(density, None, None, max_side))
    assert any(f"= {density.sum(dtype=float):.1f} heads" in text for text in texts)


@pytest.mark.parametrize(("value", "shown"), [(0.0, "0.0"), (-0.01, "0.0"), (-0.5, "-2.0")])
def test_the_figure_of_an_empty_map_shows_its_sum(value, shown):
    texts = figure_texts(render._density_figure(np.full((2, 2), value), None, None, 300))
    assert any(f"sum over all cells = {shown} heads" in text for text in texts)


def test_the_colour_bar_has_the_scale_of_the_map():
    figure = render._density_figure(hot((5, 7), (3, 4), value=0.8), grey(40, 56), None, 300)
    photo, panel, bar = figure.axes
    assert bar.get_ylim() == pytest.approx((0, 0.8))
    assert panel.images[0].get_clim() == pytest.approx((0, 0.8))
    assert panel.get_xlim() == photo.get_xlim() == (0, 56)
    assert panel.get_ylim() == photo.get_ylim() == (40, 0)


def test_the_colours_of_a_photo_counted_small_are_those_of_its_top():
    faint = hot((5, 7), (3, 4), value=0.001)
    panel, bar = render._density_figure(faint, None, None, 300, scale=1 / 8).axes
    top = render.colour_top(faint, 1 / 8)
    assert panel.images[0].get_clim() == bar.get_ylim() == pytest.approx((0, top))
    assert top < render.colour_top(faint)


@pytest.mark.parametrize("shape", [(40, 56), (8, 8), (8, 4000), (4000, 8), (1, 3)])
def test_every_text_lies_inside_the_figure(shape):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    density = np.full((-(-shape[0] // 8), -(-shape[1] // 8)), 123.4, np.float32)
    figure = render._density_figure(density, None, "a rather long name of a photo.jpg " * 9, 10)
    FigureCanvasAgg(figure).draw()
    inside = figure.get_tightbbox().padded(-0.02)
    assert inside.x0 >= 0
    assert inside.y0 >= 0
    assert inside.x1 <= figure.get_figwidth()
    assert inside.y1 <= figure.get_figheight()


@pytest.mark.parametrize("with_photo", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (60, 80)])
def test_a_map_of_any_shape_becomes_a_picture_of_moderate_size(shape, with_photo):
    density = np.zeros(shape)
    photo = grey(shape[0] * 8, shape[1] * 8 - 5) if with_photo else None
    picture = render.density_figure(density, photo, title="x", max_side=400)
    dark_blue = np.asarray(render.density_image(np.zeros((1, 1))))[0, 0]
    assert picture.mode == "RGB"
    assert 350 < picture.width < 1200
    assert 350 < picture.height < 700
    assert (np.asarray(picture) == dark_blue).all(-1).mean() > 0.2  # a panel's share


@pytest.mark.parametrize("title", ["$", "$x_1$ and $\\frac$", "\udcff.jpg", "a" * 5000, "", " \n "])
def test_a_title_is_drawn_as_it_is_whatever_a_file_is_called(title):
    assert render.density_figure(np.ones((3, 3)), None, title, max_side=260).height < 500
    if "$" in title:
        assert title in figure_texts(render._density_figure(np.ones((3, 3)), None, title, 260))


def test_a_matplotlibrc_that_asks_for_latex_or_images_upside_down_changes_no_figure():
    density = np.arange(9.0).reshape(3, 3)
    plain = render.density_figure(density, None, "a_b", max_side=260)
    with rc_context({"text.usetex": True, "image.origin": "lower"}):
        assert render.density_figure(density, None, "a_b", max_side=260) == plain
        assert rcParams["text.usetex"]  # that of the user's own figures


def test_figures_drawn_in_threads_are_those_drawn_one_by_one():
    densities = [hot((6, 8), (i, i), value=1 + i) for i in range(4)]
    alone = [render.density_figure(density, max_side=260) for density in densities]
    together = [None] * len(densities)

    def draw(i):
        together[i] = render.density_figure(densities[i], max_side=260)

    threads = [threading.Thread(target=draw, args=(i,)) for i in range(len(densities))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_a_figure_that_is_done_does_not_put_latex_back_into_another_threads():
    done, seen = threading.Event(), []

    def draw():
        with render.without_latex():
            done.wait(5)
            seen.append(rcParams["text.usetex"])

    with rc_context({"text.usetex": True}):
        other = threading.Thread(target=draw)
        with render.without_latex():
            other.start()
            other.join(0.1)  # it has begun, if it may
        done.set()
        other.join()
    assert seen == [False]


# peaks


def test_each_place_that_stands_out_is_one_peak_the_highest_first():
    density = hot((9, 12), (2, 3)) + hot((9, 12), (7, 10), value=5)
    assert render.density_peaks(density).tolist() == [[84, 60], [28, 20]]  # x, y of centres


def test_a_plateau_is_one_peak_and_noise_is_none():
    flat = hot((6, 6), (2, 2), (2, 3), (3, 2), (3, 3))
    assert len(render.density_peaks(flat)) == 1
    for empty in (np.zeros((5, 5)), np.full((5, 5), -1.0), np.full((5, 5), 0.01)):
        assert render.density_peaks(empty).shape == (0, 2)


def test_low_peaks_are_left_out_by_their_share_of_the_highest():
    density = hot((5, 20), (2, 2), value=10) + hot((5, 20), (2, 15), value=2)
    assert len(render.density_peaks(density)) == 2
    assert len(render.density_peaks(density + hot((5, 20), (2, 2), value=20))) == 1


def test_points_are_drawn_at_their_place_in_a_smaller_copy_too():
    picture = Image.new("RGB", (100, 80))
    marked = np.asarray(render.mark_points(picture, [[100, 40]], (400, 320)))
    rows, columns = np.nonzero(marked.sum(-1))
    assert (rows.mean(), columns.mean()) == pytest.approx((10, 25), abs=0.6)
    assert not np.asarray(picture).any()
    assert render.mark_points(picture, np.zeros((0, 2)), (400, 320)) == picture


def test_a_mark_in_a_picture_of_other_proportions_is_at_the_same_share_of_its_sides():
    black = Image.new("RGB", (90, 20))
    marked = np.asarray(render.mark_points(black, [[100, 40]], (200, 80)))
    rows, columns = np.nonzero(marked.sum(-1))
    assert (rows.mean(), columns.mean()) == pytest.approx((10, 45), abs=0.6)


# a smaller copy of the photo


def test_a_smaller_copy_has_its_colours_at_the_photos_places():
    density = hot((10, 10), (4, 6))
    photo_size = (76, 79)
    small = (38, 40)
    full = render.density_image(density, photo_size).resize(small, Image.Resampling.BOX)
    drawn = render.density_image(density, small, photo_size=photo_size)
    assert np.abs(np.asarray(full).astype(int) - np.asarray(drawn)).mean() < 6
    over = render.overlay_image(grey(40, 38), density, 1, photo_size=photo_size)
    red, green, blue = np.asarray(over)[18, 26].tolist()  # cell (4, 6) at half size
    assert red > 200
    assert green + blue < 120


def test_a_copy_of_another_photo_is_refused():
    for draw in (
        lambda: render.density_image(np.ones((2, 3)), (9, 9), photo_size=(40, 40)),
        lambda: render.overlay_image(grey(9, 9), np.ones((2, 3)), photo_size=(40, 40)),
    ):
        with pytest.raises(ValueError, match="cells"):
            draw()


# what is asked of the machine


def test_importing_render_does_not_import_matplotlib_and_drawing_never_imports_pyplot():
    code = (
        "from csrnet_hub import render\n"
        "print('matplotlib' in sys.modules)\n"
        "import numpy as np\n"
        "photo = np.zeros((9, 9, 3), np.uint8)\n"
        "for draw in (render.overlay_image, render.display_pair):\n"
        "    draw(photo, np.ones((2, 2)))\n"
        "render.density_figure(np.ones((2, 2)), photo)\n"
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)\n"
    )
    assert run_python(code).split() == ["False", "True", "False"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's memory figures")
def test_a_hundred_megapixels_are_shown_without_a_second_copy_of_them():
    code = (
        "import numpy as np\n"
        "from csrnet_hub import render\n"
        "def peak():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))\n"
        "render.density_figure(np.ones((1, 1)))\n"
        "before = peak()\n"
        "photo = np.broadcast_to(np.uint8(90), (10000, 10000, 3))\n"
        "density = np.ones((1250, 1250), np.float32)\n"
        "pair = render.display_pair(photo, density)\n"
        "figure = render.density_figure(density, photo)\n"
        "print((peak() - before) // 1024, *pair[0].size, *pair[1].size)\n"
    )
    mebibytes, *sizes = (int(word) for word in run_python(code).split())
    assert sizes == [1280] * 4
    assert mebibytes < 150  # the photo alone is 286


def test_a_picture_of_one_row_is_shown_without_a_table_as_large(monkeypatch):
    seen = []
    resize = Image.Image.resize

    def watched(self, size, *args, **kwargs):
        seen.append(self.size)
        return resize(self, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", watched)
    photo = np.full((1, 100_000, 3), 90, np.uint8)
    pair = render.display_pair(photo, np.ones((1, 12_500), np.float32))
    assert pair[0].size == (1280, 1)
    assert np.asarray(pair[0]).mean() == 90
    assert max(size[0] for size in seen) <= 4 * 1280 + 12_500


# mistakes


@pytest.mark.parametrize(
    ("density", "words"),
    [
        (np.zeros((2, 3, 1)), "h, w"),
        (np.zeros(5), "h, w"),
        (np.zeros((0, 5)), "non-empty"),
        (np.array([["a"]]), "array"),
        (np.array([[1j]]), "array"),
        (np.array([[0, np.nan]]), "NaN"),
        (np.array([[0, np.inf]]), "NaN or infinite"),
    ],
)
def test_what_is_no_density_map_is_refused_with_a_reason(density, words):
    photo = grey(8, 16)
    for draw in (
        lambda: render.density_image(density),
        lambda: render.overlay_image(photo, density),
        lambda: render.display_pair(photo, density),
        lambda: render.density_figure(density),
    ):
        with pytest.raises(ValueError, match=words):
            draw()


@pytest.mark.parametrize(
    ("photo", "words"),
    [
        (np.zeros((16, 24), np.uint8), "uint8"),
        (np.zeros((16, 24, 4), np.uint8), "uint8"),
        (np.zeros((16, 24, 3), np.float32), "uint8"),
        (np.zeros((0, 24, 3), np.uint8), r"\(0, 3\)"),
        (np.zeros((17, 24, 3), np.uint8), r"\(3, 3\).*\(2, 3\)"),
        (np.zeros((24, 16, 3), np.uint8), r"\(3, 2\).*\(2, 3\)"),
    ],
)
def test_a_photo_that_does_not_belong_to_the_map_is_refused_with_a_reason(photo, words):
    density = np.zeros((2, 3))
    for draw in (
        lambda: render.overlay_image(photo, density),
        lambda: render.display_pair(photo, density),
        lambda: render.density_figure(density, photo),
    ):
        with pytest.raises(ValueError, match=words):
            draw()


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5,), (1, 2, 3), (2.5, 3), (8.0, 8.0)])
def test_a_size_that_is_not_two_whole_numbers_is_refused(size):
    with pytest.raises(ValueError, match="size"):
        render.density_image(np.ones((1, 1)), size=size)


def test_numbers_out_of_range_are_refused():
    photo, density = grey(8, 8), np.ones((1, 1))
    for vmax in (0, -1, np.nan, np.inf, 1e-300):
        with pytest.raises(ValueError, match="vmax"):
            render.density_image(density, vmax=vmax)
    for opacity in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="opacity"):
            render.overlay_image(photo, density, opacity)
    with pytest.raises(ValueError, match="max_side"):
        render.display_pair(photo, density, max_side=0)
    with pytest.raises(ValueError, match="max_side"):
        render.density_figure(density, max_side=0)


def test_pictures_can_be_saved_as_png_and_read_back(tmp_path):
    picture = render.density_image(hot((3, 3), (1, 1)))
    picture.save(tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as back:
        assert back.convert("RGB") == picture
