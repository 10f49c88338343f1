"""Plots of counts: their distribution, and their change over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from csrnet_hub.render import figure_picture, without_latex

SIZE = (5.2, 3.0)  # inches of 200 pixels: the text stays readable on a phone
BLUE, GREY = "#3b82f6", "#4b5563"  # on white even on the dark page, since plots are downloaded too


@without_latex()
def histogram(counts: Sequence[float]) -> Image.Image:
    """A histogram of the number of people per photo."""
    figure, axes = _figure("How the counts are spread")
    bins = np.histogram_bin_edges(np.maximum(counts, 0), bins=min(20, max(4, len(counts))))
    axes.hist(np.maximum(counts, 0), bins=bins, color=BLUE, edgecolor=GREY, linewidth=0.6)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("people in a photo")
    axes.set_ylabel("photos")
    return figure_picture(figure)


@without_latex()
def timeline(
    seconds: Sequence[float],
    counts: Sequence[float],
    intervals: Sequence[tuple[float, float] | tuple[None, None]],
    level: float | None = None,
) -> Image.Image:
    """Counts over the seconds of a clip, with any intervals, of probability `level`, as a band."""
    figure, axes = _figure("People over time")
    band = np.array(intervals, np.float64).reshape(-1, 2)  # None becomes NaN, a gap
    if np.isfinite(band).any():
        words = "prediction interval of each frame"
        if level is not None:
            words = f"{level:.0%} {words}"
        axes.fill_between(seconds, *band.T, color=BLUE, alpha=0.25, label=words)
        axes.legend(frameon=False, labelcolor=GREY)
    axes.plot(seconds, np.maximum(counts, 0), color=BLUE, marker="o", markersize=3)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("people")
    return figure_picture(figure)


def _figure(title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # pyplot is not safe in threads

    figure = Figure(figsize=SIZE, dpi=200, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, color=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=GREY)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(GREY)
    return figure, axes
