"""The tab for one photo: its count, where people stand, counts of parts, downloads."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr
import numpy as np

from .canvas import with_photo, without_photo
from .counted import Counted, count_html, details_html, grid_html, map_scale, notices_html
from .models import Models
from .parts import DRAW_ONE
from .parts import layout as part_layout
from .scenes import PEOPLE, draw_scene
from .shared import (
    KEEP_FOR,
    keep_file,
    message_html,
    photo_input,
    png,
    read_photo,
    sentences_for_visitors,
    upload_name,
)

WAITING = "The count appears here."
NOTE = """\
### What the number is worth
It is an estimate: a neural network (CSRNet) draws a density map, and the sum of the map is the
count. It was made for dense crowds seen from some distance. With only a few people, with very
large faces, or with things that repeat like a crowd (foliage, empty seats), it can be far off.
It recognises nobody. Photos are counted on the computer that serves this page and deleted within
the hour.
"""
DRAWN = "drawn-scene.png"
DRAWN_NOTICE = (
    f"This scene is drawn, with {PEOPLE} people in it. The model learnt from photographs, so its "
    "count of a drawing can be far off."
)
# In the browser: what Gradio's slider leaves without words.
SLIDER_TEXTS = """() => setTimeout(() => document.querySelectorAll("#comparison img").forEach(
  (image, i) => { image.alt = ["The photo", "Its density map in jet colours"][i] || ""; }), 300)"""


def layout(models: Models) -> None:
    """Lay out the tab and wire it."""
    state = gr.State(None, time_to_live=KEEP_FOR)
    with gr.Row():
        with gr.Column():
            photo = photo_input("photo")
            model = models.choice("photo-model")
            with gr.Row():
                button = gr.Button("Count the people", variant="primary", size="lg")
                drawn = gr.Button("Try a drawn scene", size="lg")
        with gr.Column():
            number = gr.HTML(message_html(WAITING, "waiting"), elem_id="number")
            notice = gr.HTML("", elem_id="notice")
            details = gr.HTML("")
            with gr.Row(visible=False) as downloads:
                files = [
                    gr.DownloadButton(label, size="sm", min_width=130)
                    for label in ("Overlay (PNG)", "Map (.npy)", "Row (CSV)", "Row (JSON)")
                ]
    with gr.Column(visible=False) as seen:
        comparison, overlay, scale, looks = _pictures()
        with gr.Accordion("Counts in a grid", open=True, elem_id="grid"):
            with gr.Row():
                grid = [
                    gr.Slider(1, 12, value=3, step=1, label=label) for label in ("Rows", "Columns")
                ]
            table = gr.HTML("")
        with gr.Accordion("Count a part of the photo", open=True, elem_id="parts"):
            surface, inside = part_layout(state)
    gr.Markdown(NOTE)

    shown = [state, number, notice, details, downloads, *files]
    shown += [seen, comparison, overlay, scale, table, surface, inside]
    aside: dict[str, Any] = {"queue": False, "api_visibility": "private"}
    counting: dict[str, Any] = {
        "preprocess": False,
        "concurrency_id": "counter",
        "show_progress_on": number,
        "api_visibility": "private",
    }
    inputs = [photo, model, *looks, *grid]
    show = partial(_show, models)
    gr.on([photo.upload, button.click], partial(nothing, ""), None, shown, **aside).then(
        show, inputs, shown, **counting
    )
    drawn.click(draw_one, None, photo, **aside).then(
        partial(nothing, ""), None, shown, **aside
    ).then(show, inputs, shown, **counting)
    photo.clear(partial(nothing, WAITING), None, shown, **aside)
    gr.on(
        [looks[0].change, looks[1].change],
        redraw,
        [state, *looks],
        [overlay, files[0]],
        trigger_mode="always_last",
        show_progress="hidden",
        concurrency_limit=4,
        api_visibility="private",
    )
    for slider in grid:
        slider.change(redraw_grid, [state, *grid], table, show_progress="hidden", **aside)
    comparison.change(None, None, None, js=SLIDER_TEXTS)


def _pictures() -> tuple[gr.ImageSlider, gr.Image, gr.HTML, list[Any]]:
    with gr.Row(equal_height=False):
        with gr.Column():
            comparison = gr.ImageSlider(
                label="Photo and density map: move the line",
                type="pil",
                format="jpeg",
                interactive=False,
                max_height=480,
                buttons=["fullscreen"],
                elem_id="comparison",
            )
            scale = gr.HTML("")
        with gr.Column():
            overlay = gr.Image(
                label="Density map over the photo",
                interactive=False,
                type="filepath",
                format="png",
                height="auto",
                buttons=["fullscreen"],
                alt_text="The photo with the density map in jet colours over it",
                elem_id="overlay",
            )
            with gr.Row():
                opacity = gr.Slider(
                    0, 1, value=0.6, step=0.05, label="Opacity of the map", elem_id="opacity"
                )
                points = gr.Checkbox(
                    label="Mark the peaks",
                    info="Where the map is highest. Peaks are fewer than heads in a dense crowd.",
                    elem_id="peaks",
                )
    return comparison, overlay, scale, [opacity, points]


def nothing(text: str, kind: str = "waiting") -> list[Any]:
    """What the tab shows without a count, in the order of `shown`: a sentence."""
    hidden = gr.update(visible=False)
    files = [None] * 4
    drawn = [hidden, None, None, "", "", without_photo(), message_html(DRAW_ONE, "waiting")]
    return [None, message_html(text, kind), "", "", hidden, *files, *drawn]


def everything(counted: Counted, looks: tuple[Any, Any], grid: tuple[Any, Any]) -> list[Any]:
    """What the tab shows of a counted photo, in the order of `shown`."""
    result, visible = counted.result, gr.update(visible=True)
    overlay = counted.overlay_file(*_looks(*looks))
    files = [overlay, counted.map_file(), counted.csv_file(), counted.json_file()]
    words = [count_html(result), notices_html(counted), details_html(result)]
    table = grid_html(result, *grid)
    surface = with_photo(counted.photo, result.width, result.height)
    drawn = [counted.pair(), overlay, map_scale(result), table, surface]
    return [counted, *words, visible, *files, visible, *drawn, message_html(DRAW_ONE, "waiting")]


def _show(
    models: Models,
    upload: Any,
    model: Any,
    opacity: Any,
    points: Any,
    rows: Any,
    columns: Any,
    progress: gr.Progress = gr.Progress(),  # noqa: B008  (Gradio looks for this default)
) -> list[Any]:
    try:
        with sentences_for_visitors():
            progress(0, desc="Reading the photo")
            pixels = read_photo(upload, models.find(model).max_pixels)
            step = partial(progress, desc="Counting the people", unit="parts")
            step(0)
            result = models.count(model, pixels, lambda done, of: step((done, of)))
            name = upload_name(upload)
            more = (DRAWN_NOTICE,) if name == DRAWN else ()
            counted = Counted.of(name, pixels, result, more)
            return everything(counted, (opacity, points), (rows, columns))
    except gr.Error as error:  # in the count's place: a toast is gone after ten seconds
        return nothing(error.message, "problem")


def redraw(counted: Counted | None, opacity: Any, points: Any) -> tuple[Any, Any]:
    """The overlay for the page and for download, after a change of its looks."""
    if counted is None:
        return gr.skip(), gr.skip()
    with sentences_for_visitors():
        path = counted.overlay_file(*_looks(opacity, points))
    return path, path


def redraw_grid(counted: Counted | None, rows: Any, columns: Any) -> str:
    """The table of the grid, "" without a photo."""
    if counted is None:
        return ""
    with sentences_for_visitors():
        return grid_html(counted.result, rows, columns)


def draw_one() -> str:
    """A scene that the page draws itself, as a file."""
    seed = int(np.random.default_rng().integers(1000))
    return keep_file(DRAWN, png(draw_scene(seed=seed)[0]))


def _looks(opacity: Any, points: Any) -> tuple[float, bool]:
    number = opacity if isinstance(opacity, (int, float)) else 0.6
    return min(max(float(number), 0.0), 1.0), bool(points)
