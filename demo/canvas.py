"""The drawing surface of the page: a photo on which heads or a region are marked."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from csrnet_hub.annotations import read_annotation
from csrnet_hub.datasets.matlab import is_hdf5
from csrnet_hub.regions import FARTHEST

from .shared import VisitorError, uploaded_path

SCRIPT = (Path(__file__).parent / "canvas.js").read_text(encoding="utf-8")
MOST_POINTS = 50_000
MOST_CORNERS = 10_000  # of an outline: a few seconds; one drawn by hand has about a thousand
LARGEST = 8 * 2**20  # bytes of an annotation; of MOST_POINTS heads it has 6 MB at most
NO_ANNOTATION = "There is no annotation yet. Choose a .mat, .csv or .json file with the heads."
MATLAB_7_3 = (
    "This .mat file is one of MATLAB 7.3 (HDF5), which is not read here. In MATLAB save it with "
    "-v7, or choose a table, x,y."
)
EMPTY = "The annotation is empty (0 bytes). Save it again, and choose it again."
BUTTONS = {
    "rectangle": "Rectangle",
    "free": "Free-hand",
    "erase": "Erase",
    "undo": "Undo",
    "clear": "Clear",
    "zoom-in": "Zoom in",
    "zoom-out": "Zoom out",
}
TEMPLATE = (
    '<div class="canvas" hidden><div class="canvas-tools" role="toolbar" aria-label="Drawing">'
    + "".join(
        f'<button type="button" data-do="{name}">{text}</button>' for name, text in BUTTONS.items()
    )
    + '</div><canvas tabindex="0" role="application" data-tool="TOOL" aria-label="LABEL"></canvas>'
    '<p class="canvas-hint"><b role="status"></b> <span></span></p></div>'
)


def canvas(tool: str, label: str, elem_id: str) -> gr.HTML:
    """A surface for `tool` heads or rectangle; its value is a list of [x, y] in photo pixels."""
    return gr.HTML(
        [],
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


def with_photo(jpeg: bytes, width: int, height: int, digest: str = "") -> Any:
    """An update that puts a photo of (width, height) pixels on the surface, shown as `jpeg`.

    Args:
        digest: of its pixels, under which the browser keeps heads that are not saved.
    """
    src = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
    about: dict[str, Any] = {"digest": digest, "opened": time.time()}
    return gr.update(value=[], src=src, width=width, height=height, **about)


def without_photo() -> Any:
    """An update that empties the surface."""
    return gr.update(value=[], src="", width=1, height=1, digest="", opened=0)


def read_heads(upload: Any, photo_name: str) -> tuple[Path, NDArray[np.float32]]:
    """The file of an uploaded annotation and the heads (N, 2) in it of a photo of this name."""
    path = uploaded_path(upload, NO_ANNOTATION)
    size = path.stat().st_size
    if not size:  # as a table it would say that nobody is there
        raise VisitorError(EMPTY)
    if size > LARGEST:  # a table of millions of rows would keep others waiting
        raise VisitorError(
            f"The annotation has {size / 2**20:.1f} MB; {LARGEST // 2**20} MB are the most. "
            "Choose one of this photo alone."
        )
    if is_hdf5(path):  # a format too rich for files of strangers
        raise VisitorError(MATLAB_7_3)
    heads = read_annotation(path, photo_name)
    if len(heads) > MOST_POINTS:
        raise VisitorError(f"These are {len(heads):,} heads; {MOST_POINTS:,} are the most.")
    return path, heads


def read_outline(value: Any) -> NDArray[np.float64]:
    """What the surface sent as the corners of a region, (N, 2) x, y in photo pixels.

    Raises:
        VisitorError: as for `read_points`, or a corner is absurdly far from the photo.
    """
    corners = read_points(value, MOST_CORNERS)
    if corners.size and np.abs(corners).max() > FARTHEST:
        raise VisitorError("A point is far outside the photo. Give x and y in its pixels.")
    return corners


def read_points(value: Any, most: int = MOST_POINTS) -> NDArray[np.float64]:
    """What the surface sent, (N, 2) x, y in photo pixels.

    Raises:
        VisitorError: it is no list of points (a program sent it), or there are too many.
    """
    try:
        points = np.asarray(value or [], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros(1)
    points = points.reshape(0, 2) if points.size == 0 else points
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise VisitorError("The points must be a list of [x, y] in pixels of the photo.")
    if len(points) > most:
        raise VisitorError(f"These are {len(points):,} points; {most:,} are the most.")
    return points
