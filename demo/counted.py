"""A counted photo as kept in a visitor's session, and the pictures and texts made from it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csrnet_hub import CountResult
from csrnet_hub.regions import grid_counts
from csrnet_hub.render import (
    colour_top,
    density_image,
    density_peaks,
    mark_points,
    overlay_image,
    shown_photo,
)
from csrnet_hub.scale import scaled

from .files import Recent, keep_file
from .shared import (
    SHOWN,
    VisitorError,
    colour_bar,
    headline,
    jpeg,
    npy,
    number_html,
    png,
    row,
    to_csv,
    to_json,
)


@dataclass(frozen=True)
class Counted:
    """What is needed to redraw a counted photo; small, whatever the photo's size.

    Attributes:
        name: the visitor's name for the photo.
        result: its count and map.
        photo: a JPEG of it, at most 1280 pixels on each side.
        overlays: the files of its overlay that still exist.
    """

    name: str
    result: CountResult
    photo: bytes
    overlays: Recent = field(default_factory=Recent)

    @classmethod
    def of(
        cls,
        name: str,
        pixels: NDArray[np.uint8],
        result: CountResult,
        more: tuple[str, ...] = (),
    ) -> Counted:
        """Create one from upright pixels (H, W, 3) and their count; `more` notices come first."""
        noticed = replace(result, notices=(*more, *result.notices))
        return cls(name, noticed, jpeg(shown_photo(pixels, SHOWN)))

    @property
    def size(self) -> tuple[int, int]:
        return self.result.width, self.result.height

    @property
    def stem(self) -> str:
        return Path(self.name).stem or "photo"

    def row(self) -> dict[str, Any]:
        return row(self.name, self.result)

    def picture(self) -> Image.Image:
        """The photo at its size on the page."""
        with Image.open(io.BytesIO(self.photo)) as picture:
            return picture.convert("RGB")

    def pair(self) -> tuple[Image.Image, Image.Image]:
        """The photo and its jet map, both of the same size."""
        photo, density = self.picture(), self.result.density
        top = colour_top(density, self.result.scale)
        return photo, density_image(density, photo.size, top, self.size)

    def overlay(self, opacity: float, points: bool) -> Image.Image:
        """The jet map over the photo, with the map's peaks as points if `points`."""
        drawn = overlaid(np.asarray(self.picture()), self.result, SHOWN, opacity)
        if not points:
            return drawn
        peaks = density_peaks(self.result.density, scale=self.result.scale)
        return mark_points(drawn, peaks, self.size)

    def overlay_file(self, opacity: float, points: bool) -> str:
        content = png(self.overlay(opacity, points))
        return self.overlays.keep(f"{self.stem}-overlay.png", content)

    def map_file(self) -> str:
        return keep_file(f"{self.stem}-density.npy", npy(self.result.density))

    def csv_file(self) -> str:
        return keep_file(f"{self.stem}-count.csv", to_csv([self.row()]))

    def json_file(self) -> str:
        return keep_file(f"{self.stem}-count.json", to_json(self.row()))


def overlaid(
    pixels: NDArray[np.uint8], result: CountResult, side: int, opacity: float = 0.6
) -> Image.Image:
    """The jet map over a photo's upright pixels (H, W, 3), or over those of a smaller copy; the
    longer side is at most `side` pixels."""
    small = np.asarray(shown_photo(pixels, side))
    top = colour_top(result.density, result.scale)
    return overlay_image(small, result.density, opacity, top, (result.width, result.height))


def count_html(result: CountResult) -> str:
    """The count in large type, the interval if it is known to hold, and the unrounded value."""
    exact = f"{result.count:,.2f} before rounding"
    return number_html(headline(result.count), exact, interval_html(result))


def interval_html(result: CountResult) -> str:
    """The prediction interval and its meaning; "" if none is known to hold."""
    if result.known_interval is None:
        return ""
    low, high = map(round, result.known_interval)
    return (
        f'<p class="range">prediction interval {low:,}&nbsp;to&nbsp;{high:,}</p>'
        '<p class="holds">In photos like those it was calibrated on, the true number lies within '
        f"it {result.level:.0%} of the time.</p>"
    )


def notices_html(notices: Iterable[str]) -> str:
    """The notices, one paragraph each."""
    return "".join(f'<p class="notice" role="note">{escape(text)}</p>' for text in notices)


def details_html(result: CountResult) -> str:
    """The time taken, size, model and device."""
    size = f"{result.width:,} × {result.height:,} pixels"
    if result.scale != 1:
        height, width = scaled(result.height, result.width, result.scale)
        size += f", counted at {width:,} × {height:,}"
    facts = (
        f"{result.seconds:.1f} s",
        size,
        f"model {escape(result.model)}",
        f"on {escape(result.device)}",
    )
    return f'<div class="details"><p class="facts">{" · ".join(facts)}</p></div>'


def map_scale(result: CountResult) -> str:
    """The colour bar of a photo's map."""
    return colour_bar(colour_top(result.density, result.scale))


def grid_html(result: CountResult, rows: Any, columns: Any) -> str:
    """A table of the counts in an even grid over the photo, with sums.

    Raises:
        VisitorError: rows or columns are not numbers (a program sent them).
    """
    try:
        down, across = (min(max(int(number or 1), 1), 12) for number in (rows, columns))
    except (TypeError, ValueError, OverflowError):
        raise VisitorError("Rows and columns are whole numbers from 1 to 12.") from None
    fields = grid_counts(result.density, result.height, result.width, down, across)
    head = "".join(f"<th scope='col'>{j + 1}</th>" for j in range(across))
    most = max(float(fields.max()), 1e-9)
    lines = []
    for i, line in enumerate(fields):
        cells = "".join(
            f'<td style="background: rgb(59 130 246 / {max(value, 0) / most * 0.45:.2f})">'
            f"{_shown(value)}</td>"
            for value in line
        )
        lines.append(f"<tr><th scope='row'>{i + 1}</th>{cells}<td>{_shown(line.sum())}</td></tr>")
    sums = "".join(f"<td>{_shown(value)}</td>" for value in fields.sum(axis=0))
    return (
        '<div class="sheet" tabindex="0"><table>'
        "<caption>People in each field of the photo, from the top left</caption>"
        f"<tr><td></td>{head}<th scope='col'>sum</th></tr>{''.join(lines)}"
        f"<tr><th scope='row'>sum</th>{sums}<th>{_shown(fields.sum())}</th></tr></table></div>"
    )


def _shown(people: float) -> str:
    return f"{max(people, 0.0):,.1f}"  # a map may be slightly negative where nobody is
