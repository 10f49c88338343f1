"""The page's drawing surface: a photo on which heads or a region can be marked."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from csrnet_hub.regions import FARTHEST

from .shared import VisitorError

SCRIPTS = (Path(__file__).parent / name for name in ("keep.js", "canvas.js"))
SCRIPT = "\n".join(script.read_text(encoding="utf-8") for script in SCRIPTS)
MOST_POINTS = 50_000
MOST_CORNERS = 10_000  # of an outline: takes a few seconds; a hand-drawn one has about 1,000
LARGEST = 8 * 2**20  # bytes of heads; MOST_POINTS of them take 6 MB at most
BUTTONS = {
    "rectangle": "Rectangle",
    "free": "Free-hand",
    "erase": "Erase",
    "undo": "Undo",
    "clear": "Clear",
    "zoom-in": "Zoom in",
    "zoom-out": "Zoom out",
    "move-left": "←",
    "move-right": "→",
    "move-up": "↑",
    "move-down": "↓",
}
TEMPLATE = (
    '<div class="canvas" hidden><div class="canvas-tools" role="toolbar" aria-label="Drawing">'
    + "".join(
        f'<button type="button" data-do="{name}"'
        + (f' aria-label="{name.replace("-", " ").capitalize()}"' if len(text) == 1 else "")
        + f">{text}</button>"
        for name, text in BUTTONS.items()
    )
    + '</div><canvas tabindex="0" role="application" data-tool="TOOL" aria-label="LABEL"></canvas>'
    '<p class="canvas-hint"><b role="status"></b> <span></span></p></div>'
)


def canvas(tool: str, label: str, elem_id: str) -> gr.HTML:
    """A surface whose `tool` is heads or rectangle; its value is a list of [x, y] in photo pixels,
    as JSON text."""
    return gr.HTML(
        "[]",
        html_template=TEMPLATE.replace("TOOL", tool).replace("LABEL", label),
        js_on_load=SCRIPT,
        elem_id=elem_id,
        src="",
        width=1,
        height=1,
        digest="",
        opened=0,
        saved={},
        added={},
    )


def with_photo(shown: bytes | str, width: int, height: int, digest: str = "") -> Any:
    """An update that puts a photo of (width, height) pixels on the surface.

    Args:
        shown: a JPEG or, for a large one, the path of its file in Gradio's folder, since Gradio
            keeps whatever is sent within the page in memory for each visitor.
        digest: of its pixels; the browser stores unsaved heads under it.
    """
    src = shown
    if isinstance(shown, bytes):
        src = "data:image/jpeg;base64," + base64.b64encode(shown).decode("ascii")
    about: dict[str, Any] = {"digest": digest, "opened": time.time()}
    return gr.update(value="[]", src=src, width=width, height=height, **about)


def without_photo() -> Any:
    """An update that empties the surface."""
    return gr.update(value="[]", src="", width=1, height=1, digest="", opened=0)


def read_outline(value: Any) -> NDArray[np.float64]:
    """Read the corners of a region sent by the surface, (N, 2) x, y in photo pixels.

    Raises:
        VisitorError: as for `read_points`, or a corner is absurdly far from the photo.
    """
    corners = read_points(value, MOST_CORNERS)
    if corners.size and np.abs(corners).max() > FARTHEST:
        raise VisitorError("A point is far outside the photo. Give x and y in its pixels.")
    return corners


def read_points(value: Any, most: int = MOST_POINTS) -> NDArray[np.float64]:
    """Read the points sent by the surface, (N, 2) x, y in photo pixels, or a list that a program
    sent.

    Raises:
        VisitorError: it is not a list of points (a program sent it), or there are too many.
    """
    try:
        listed = json.loads(value[:LARGEST] or "[]") if isinstance(value, str) else value
        points = np.asarray(listed or [], dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError):
        points = np.zeros(1)
    points = points.reshape(0, 2) if points.size == 0 else points
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise VisitorError("The points must be a list of [x, y] in pixels of the photo.")
    if len(points) > most:
        raise VisitorError(f"There are {len(points):,} points; the limit is {most:,}.")
    return points
