"""Pictures of a density map: jet map, overlay on the photo, before/after pair, labelled figure.

A density map holds heads per cell of 8 x 8 pixels: cell (i, j) covers photo rows 8i to 8i + 7 and
columns 8j to 8j + 7, and the last cells may extend past the photo's edge. Every count shown is the
sum of the cells; resized pictures are never summed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from .jet import (
    Size,
    checked_map,
    checked_photo,
    checked_pixels,
    fitting,
    grid,
    jet_picture,
    least_top,
    resized,
    strips,
)
from .regions import CELL

FULL_TINT = 0.25  # fraction of vmax at which the overlay reaches its full opacity
# Fallbacks for titles with letters missing from matplotlib's own font, the first.
FONTS = ["DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei"]  # Linux
FONTS += ["Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Segoe UI", "Nirmala UI"]  # Windows
FONTS += ["Arial Unicode MS", "Hiragino Sans", "Apple SD Gothic Neo"]  # macOS
SMALLEST_PANEL = 260  # pixels: least panel height beside which a colour bar's label fits

_DRAWING = RLock()


@contextmanager
def without_latex() -> Iterator[None]:
    """Turn LaTeX off while a figure is made and drawn; a user's matplotlibrc may enable it."""
    from matplotlib import rc_context

    # The settings are process-wide: with two threads, one would restore LaTeX too early.
    with _DRAWING, rc_context({"text.usetex": False}):
        yield


def density_image(
    density: ArrayLike,
    size: Size | None = None,
    vmax: float | None = None,
    photo_size: Size | None = None,
) -> Image.Image:
    """Draw a density map (h, w) in jet colours: dark blue for 0 and below, dark red for `vmax`.

    `size` is the photo's (width, height) in pixels; the last cells are then clipped at its edge.
    Any other size, by default (8w, 8h), is filled with the whole map, or, if `photo_size` is given,
    with the map of a photo of that size. `vmax`, in heads per cell, is by default
    `colour_top(density)`.

    Raises:
        ValueError: if the map is empty, not 2-D or not finite; `size` or `vmax` is not positive.
    """
    cells, vmax = checked_map(density, vmax)
    whole = (cells.shape[1] * CELL, cells.shape[0] * CELL)
    size = whole if size is None else size
    if len(size) != 2 or not all(isinstance(n, (int, np.integer)) and n > 0 for n in size):
        raise ValueError(f"size must be a width and a height in whole pixels, not {size}.")
    own = photo_size or (size if grid(size) == cells.shape else whole)
    if grid(own) != cells.shape:
        raise ValueError(f"A photo of {own} pixels has {grid(own)} cells, not {cells.shape}.")
    return jet_picture(cells, vmax, size, own)


def overlay_image(
    image: ArrayLike,
    density: ArrayLike,
    opacity: float = 0.5,
    vmax: float | None = None,
    photo_size: Size | None = None,
) -> Image.Image:
    """Draw the jet map (h, w) over the photo (H, W, 3) uint8, at the photo's size.

    Opacity grows in proportion to the density, from 0 where there is nobody, to `opacity` (0 to 1)
    from a quarter of `vmax` upwards: empty areas show the unchanged photo, and a sparse crowd is
    still visible. `vmax` is as for `density_image`. `photo_size` is the (width, height) of the
    original photo if `image` is a smaller copy.

    Raises:
        ValueError: if an array or number is not as above, or h, w are not ceil(H/8), ceil(W/8).
    """
    cells, vmax = checked_map(density, vmax)
    photo, size = checked_photo(image, cells, photo_size)
    if not 0 <= opacity <= 1:
        raise ValueError(f"The opacity must be between 0 and 1, not {opacity}.")
    picture = np.empty(photo.shape, np.uint8)
    for top, values, colours in strips(cells, vmax, size, photo_size or size):
        alpha = np.minimum(values / FULL_TINT, 1)[..., None] * np.float32(opacity)
        below = photo[top : top + len(values)].astype(np.float32)
        picture[top : top + len(values)] = np.rint(below + alpha * (colours - below))
    return Image.fromarray(picture)


def density_peaks(density: ArrayLike, scale: float = 1.0) -> NDArray[np.float32]:
    """Local maxima of a density map (h, w): centres (N, 2) x, y in photo pixels, highest first.

    A peak is a cell that none of its eight neighbours exceeds, with at least a tenth of the map's
    maximum and at least 0.02 heads per cell (less above a megapixel, and for a photo counted at a
    `scale` below 1). A plateau has one peak, its first cell. Peaks are only a visual aid: heads
    closer than two cells often share one, so peaks do not count people.

    Raises:
        ValueError: if the map is empty, not 2-D or not finite.
    """
    from scipy.ndimage import label, maximum_filter

    cells, _ = checked_map(density)
    top, least = float(cells.max()), least_top(cells, scale)
    high = (cells >= max(0.1 * top, least)) & (cells == maximum_filter(cells, size=3))
    plateaus, _ = label(high, structure=np.ones((3, 3)))
    _, first = np.unique(plateaus.ravel(), return_index=True)
    first = first[high.ravel()[first]]
    first = first[np.argsort(-cells.ravel()[first], kind="stable")]
    rows, columns = np.unravel_index(first, cells.shape)
    return ((np.stack([columns, rows], axis=1) + 0.5) * CELL).astype(np.float32)


def mark_points(picture: Image.Image, points: ArrayLike, photo_size: Size) -> Image.Image:
    """Copy a picture and draw white, black-rimmed dots at points (N, 2) x, y in photo pixels."""
    marked = picture.copy()
    pen = ImageDraw.Draw(marked)
    scale = np.divide(picture.size, photo_size)
    radius = max(2.0, max(picture.size) / 320)
    for x, y in np.asarray(points, dtype=np.float64).reshape(-1, 2) * scale:
        dot = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(dot, fill="white", outline="black")
    return marked


def display_pair(
    image: ArrayLike, density: ArrayLike, max_side: int = 1280, scale: float = 1.0
) -> tuple[Image.Image, Image.Image]:
    """Make the photo (H, W, 3) uint8 and its jet map as two pictures of equal size, for a slider.

    Neither side is longer than `max_side` pixels; a smaller photo keeps its size. `scale` is as for
    `colour_top`.

    Raises:
        ValueError: as for `overlay_image`, or if `max_side` is not positive.
    """
    cells, vmax = checked_map(density, scale=scale)
    photo, photo_size = checked_photo(image, cells)
    shown = shown_photo(photo, max_side)
    return shown, jet_picture(cells, vmax, shown.size, photo_size)


def shown_photo(image: ArrayLike, max_side: int = 1280) -> Image.Image:
    """The photo (H, W, 3) uint8 as a picture of at most `max_side` pixels a side, never enlarged.

    Raises:
        ValueError: if the array is not as above, or `max_side` is not positive.
    """
    photo = checked_pixels(image)
    size = (photo.shape[1], photo.shape[0])
    return resized(photo, fitting(size, min(max_side, max(size))))


@without_latex()
def density_figure(
    density: ArrayLike,
    image: ArrayLike | None = None,
    title: str | None = None,
    max_side: int = 720,
    scale: float = 1.0,
) -> Image.Image:
    """Draw the jet map with its units: a colour bar in heads per cell, and the sum of the cells.

    The photo, if given, is drawn beside the map. `title` is drawn literally, in at most three
    lines, if this machine has a font for it. `scale` is as for `colour_top`. A panel's longer side
    is `max_side` pixels and neither side is under 260, so that the text fits: a very long photo is
    stretched, and the axes, in photo pixels, show it.

    Raises:
        ValueError: as for `overlay_image`, or if `max_side` is not positive.
    """
    return figure_picture(_density_figure(density, image, title, max_side, scale))


def figure_picture(figure: Any) -> Image.Image:
    """Render a matplotlib Figure as a picture; call it within `without_latex`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # pyplot is not thread-safe

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def colour_top(density: ArrayLike, scale: float = 1.0) -> float:
    """The density, in heads per cell, drawn dark red: the map's maximum, at least 0.02.

    The minimum is lower for maps of more than a megapixel, and for a photo counted at a `scale`
    below 1 (`CountResult.scale`): there a head is spread over more cells.

    Raises:
        ValueError: if the map is empty, not 2-D or not finite.
    """
    return checked_map(density, scale=scale)[1]


def _density_figure(
    density: ArrayLike,
    image: ArrayLike | None,
    title: str | None,
    max_side: int,
    scale: float = 1.0,
) -> Any:
    from matplotlib.figure import Figure

    cells, vmax = checked_map(density, scale=scale)
    photo, photo_size = None, (cells.shape[1] * CELL, cells.shape[0] * CELL)
    if image is not None:
        photo, photo_size = checked_photo(image, cells)
    wide, tall = panel = fitting(photo_size, max_side, least=SMALLEST_PANEL)
    left = 62 if photo is None else wide + 132  # of the map; in pixels, like all that follows
    width = left + wide + 120
    text = (title or "").encode("utf-8", "replace").decode()  # lone surrogates cannot be drawn
    lines = textwrap.wrap(text, width // 10, max_lines=3, placeholder=" ...")
    height = 92 + tall + 26 + 22 * len(lines)
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)

    def axes(x: int, across: int = wide) -> Any:
        return figure.add_axes((x / width, 92 / height, across / width, tall / height))

    if photo is not None:
        _show(axes(62), resized(photo, panel), photo_size)
    values = np.concatenate([strip[1] for strip in strips(cells, vmax, panel, photo_size)]) * vmax
    drawn = _show(axes(left), values, photo_size, cmap="jet", vmin=0, vmax=vmax)
    figure.colorbar(drawn, cax=axes(left + wide + 16, 20), label="heads per cell (8 × 8 pixels)")
    count = round(float(cells.sum(dtype=np.float64)), 1) + 0.0  # never "-0.0"
    style: Any = {"ha": "center", "fontsize": 12, "parse_math": False}  # a name may contain a $
    style["fontfamily"] = _fonts()
    caption = f"count = sum over all cells = {count:.1f} heads"
    figure.text(0.5, 14 / height, caption, va="bottom", **style)
    figure.text(0.5, 1 - 10 / height, "\n".join(lines), va="top", **style)
    return figure


@cache
def _fonts() -> list[str]:
    from matplotlib.font_manager import get_font_names

    there = get_font_names()
    return [name for name in FONTS if name in there]


def _show(axes: Any, picture: Any, photo_size: Size, **options: Any) -> Any:
    axes.locator_params(nbins=6, integer=True)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("photo pixels", fontsize=8)
    options.update(extent=(0, photo_size[0], photo_size[1], 0), aspect="auto", origin="upper")
    return axes.imshow(picture, interpolation="nearest", **options)
