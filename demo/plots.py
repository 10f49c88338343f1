"""Plots of counts: how they are spread, how they change over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

SIZE = (5.2, 3.0)  # inches of 200 pixels: the words stay readable on a phone


def histogram(counts: Sequence[float]) -> Image.Image:
    """How many photos have how many people."""
    figure, axes = _figure("How the counts are spread")
    bins = np.histogram_bin_edges(np.maximum(counts, 0), bins=min(20, max(4, len(counts))))
    axes.hist(np.maximum(counts, 0), bins=bins, color="#3b82f6", edgecolor="white")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("people in a photo")
    axes.set_ylabel("photos")
    return _picture(figure)


def timeline(
    seconds: Sequence[float],
    counts: Sequence[float],
    intervals: Sequence[tuple[float, float] | None],
) -> Image.Image:
    """Counts over the seconds of a clip, their intervals as a band where there are any."""
    figure, axes = _figure("People over time")
    if all(interval is not None for interval in intervals):
        low, high = zip(*(interval for interval in intervals if interval is not None))
        axes.fill_between(seconds, low, high, color="#3b82f6", alpha=0.2, label="interval")
        axes.legend(frameon=False)
    axes.plot(seconds, counts, color="#1d4ed8", marker="o", markersize=3)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("people")
    return _picture(figure)


def _figure(title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # pyplot is not safe in threads

    figure = Figure(figsize=SIZE, dpi=200, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _picture(figure: Any) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
