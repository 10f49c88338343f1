"""Count a part: draw a region on the counted photo and see the count inside it."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from csrnet_hub.regions import count_inside

from .canvas import canvas, read_outline
from .counted import Counted
from .shared import (
    EXPIRED,
    VisitorError,
    headline,
    message_html,
    number_html,
    result_output,
    sentences_for_visitors,
)

MOST_CROSSED = 100_000_000  # corners times rows of the photo: a few seconds
UNDER_WAY = False  # instead of a counted photo; None means that it is no longer kept
DRAW_ONE = "The count inside appears here once a region is drawn."
LABEL = (
    "The photo. Draw a region with the pointer, or a rectangle with the keyboard: "
    "the arrow keys move, Enter sets a corner."
)


def check_corners(corners: NDArray[np.float64], height: int) -> None:
    """Reject an outline (N, 2) if counting inside it would take more than seconds.

    Raises:
        VisitorError: there are too many corners for a photo of that height.
    """
    if len(corners) * height > MOST_CROSSED:
        raise VisitorError(
            f"{len(corners):,} points are too many for a photo {height:,} pixels high. "
            "Draw the region with fewer."
        )


def part_html(counted: Counted | bool | None, outline: Any) -> str:
    """The counts inside and outside an outline, and their sum.

    Raises:
        VisitorError: the outline is invalid or too fine, or the photo is no longer kept.
    """
    corners = read_outline(outline)
    if counted is None and len(corners):  # the connection was lost for a while
        raise VisitorError(EXPIRED)
    if counted is None or isinstance(counted, bool) or len(corners) < 3:
        return message_html(DRAW_ONE, "waiting")
    result = counted.result
    check_corners(corners, result.height)
    inside = count_inside(result.density, corners, result.height, result.width)
    return number_html(
        headline(inside),
        f"{round(inside, 2) + 0.0:,.2f} inside + {result.count - inside:,.2f} outside = "
        f"{result.count:,.2f} in the whole photo",
    )


def show_part(counted: Counted | bool | None, outline: Any) -> str:
    """`part_html`, or a message saying what is wrong."""
    try:
        with sentences_for_visitors():
            return part_html(counted, outline)
    except gr.Error as error:
        return message_html(error.message, "problem")


def layout(state: gr.State) -> tuple[gr.HTML, gr.HTML]:
    """Lay out the drawing surface with the count inside beside it, and return both."""
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            surface = canvas("rectangle", LABEL, "part")
        with gr.Column(scale=1, min_width=240):
            inside = result_output(DRAW_ONE, "inside", card=False)
    surface.input(
        show_part,
        [state, surface],
        inside,
        show_progress="hidden",
        trigger_mode="always_last",
        concurrency_limit=4,
        api_visibility="private",
    )
    return surface, inside
