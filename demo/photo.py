"""The tab for one photo: its count, where people stand, counts of parts, and downloads."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from .canvas import with_photo, without_photo
from .counted import Counted, count_html, details_html, grid_html, map_scale, notices_html
from .files import KEEP_FOR
from .models import Models
from .pace import counting
from .parts import DRAW_ONE, UNDER_WAY
from .parts import layout as part_layout
from .scenes import draw_scene
from .shared import (
    EXPIRED,
    VisitorError,
    jpeg,
    message_html,
    photo_input,
    read_photo,
    result_output,
    sentences_for_visitors,
    upload_name,
)
from .wanted import count_when

WAITING = (
    "Choose a photo: drop it, paste it or take one. The count appears here. The photo stays on the "
    "computer that serves this page and is removed when you leave."
)
NOTE = """\
It is an estimate: a neural network (CSRNet) draws a density map, and the sum of the map is the
count. It was made for crowds, dense or loose, seen from some distance. With only a few people, with
very large faces, or with things that repeat like a crowd (foliage, empty seats), it can be far off.
It identifies nobody. Photos are counted on the computer that serves this page and removed when
the page is closed, or an hour after they were last needed.
"""
DRAWN = {f"drawn-scene-{people}.jpg": people for people in (60, 200, 500)}
DRAWN_NOTICE = (
    "This scene is drawn, with {} people in it. The model learnt from photographs, so its count of "
    "a drawing can be far off."
)


def layout(models: Models) -> None:
    """Lay out the tab and wire it."""
    state = gr.State(None, time_to_live=KEEP_FOR)
    with gr.Row():
        with gr.Column():
            photo = photo_input("photo")
            model = models.choice("photo-model")
            button = gr.Button(
                "Count the people", variant="primary", size="lg", elem_classes=["counts"]
            )
            examples = drawn_scenes(photo)
        with gr.Column():
            number = result_output(WAITING, "number")
            with gr.Row(visible=False) as downloads:
                files = [
                    gr.DownloadButton(label, size="sm", min_width=105)
                    for label in ("Overlay (PNG)", "Map (.npy)", "Row (CSV)", "Row (JSON)")
                ]
            with gr.Accordion("How far to trust this number", open=False):
                gr.Markdown(NOTE)
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

    shown = [photo, state, number, downloads, *files]
    shown += [seen, comparison, overlay, scale, table, surface, inside]
    aside: dict[str, Any] = {"queue": False, "api_visibility": "private"}
    inputs = [photo, model, *looks, *grid]
    chosen = partial(gr.on, [photo.upload, button.click])
    count_when(
        [chosen, examples.load_input_event.then],
        nothing,
        partial(_show, models),
        inputs,
        shown,
        number,
        WAITING,
        changed=(photo.clear,),
    )
    gr.on(
        [looks[0].change, looks[1].change],
        redraw,
        [state, *looks],
        [overlay, files[0]],
        preprocess=False,  # Gradio would fail while a slider's number box is empty
        trigger_mode="always_last",
        show_progress="hidden",
        concurrency_limit=4,
        api_visibility="private",
    )
    gr.on(
        [slider.change for slider in grid],
        redraw_grid,
        [state, *grid],
        table,
        preprocess=False,
        trigger_mode="always_last",
        show_progress="hidden",
        **aside,
    )


def _pictures() -> tuple[gr.ImageSlider, gr.Image, gr.HTML, list[Any]]:
    with gr.Row(equal_height=False):
        with gr.Column():
            comparison = gr.ImageSlider(
                label="Photo and density map",
                type="pil",
                format="jpeg",
                interactive=False,
                max_height=480,
                buttons=["fullscreen"],
                elem_id="comparison",
                elem_classes=["picture"],
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
                elem_classes=["picture"],
            )
            with gr.Row():
                opacity = gr.Slider(
                    0, 1, value=0.6, step=0.05, label="Opacity of the map", elem_id="opacity"
                )
                points = gr.Checkbox(
                    label="Mark the peaks",
                    info="Where the map is highest. A dense crowd has fewer peaks than heads.",
                    elem_id="peaks",
                )
    return comparison, overlay, scale, [opacity, points]


def nothing(text: str, kind: str = "waiting", keep: bool = True) -> list[Any]:
    """What the tab shows when there is no count, in the order of `shown`: a sentence, and the photo
    if `keep`."""
    hidden, photo = gr.update(visible=False), gr.update() if keep else None
    files = [None] * 4
    drawn = [hidden, None, None, "", "", without_photo(), message_html(DRAW_ONE, "waiting")]
    return [photo, UNDER_WAY, message_html(text, kind), hidden, *files, *drawn]


def everything(counted: Counted, looks: tuple[Any, Any], grid: tuple[Any, Any]) -> list[Any]:
    """What the tab shows for a counted photo, in the order of `shown`."""
    result, visible = counted.result, gr.update(visible=True)
    overlay = counted.overlay_file(*_looks(*looks))
    files = [overlay, counted.map_file(), counted.csv_file(), counted.json_file()]
    words = count_html(result) + notices_html(result.notices) + details_html(result)
    table = grid_html(result, *grid)
    surface = with_photo(counted.photo, result.width, result.height)
    drawn = [counted.pair(), overlay, map_scale(result), table, surface]
    return [
        gr.update(),
        counted,
        words,
        visible,
        *files,
        visible,
        *drawn,
        message_html(DRAW_ONE, "waiting"),
    ]


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
    read = False
    try:
        with sentences_for_visitors():
            progress(None, desc="Reading the photo")
            pixels = read_photo(upload, models.find(model).max_pixels)
            read = True
            result = models.count(model, pixels, counting(progress))
            name = upload_name(upload)
            more = (DRAWN_NOTICE.format(DRAWN[name]),) if name in DRAWN else ()
            counted = Counted.of(name, pixels, result, more)
            return everything(counted, (opacity, points), (rows, columns))
    except gr.Error as error:  # instead of the count: a toast is gone after ten seconds
        return nothing(error.message, "problem", keep=read)  # a non-picture leaves its box


def redraw(counted: Counted | bool | None, opacity: Any, points: Any) -> tuple[Any, Any]:
    """The overlay for the page and for download, after its opacity or points have changed."""
    if isinstance(counted, bool):
        return gr.skip(), gr.skip()
    with sentences_for_visitors():
        if counted is None:  # the connection was lost for a while
            raise VisitorError(EXPIRED)
        path = counted.overlay_file(*_looks(opacity, points))
    return path, path


def redraw_grid(counted: Counted | bool | None, rows: Any, columns: Any) -> Any:
    """The table of the grid, after its rows or columns have changed."""
    if isinstance(counted, bool):
        return gr.skip()
    with sentences_for_visitors():
        if counted is None:
            raise VisitorError(EXPIRED)
        return grid_html(counted.result, rows, columns)


def drawn_scenes(photo: gr.Image) -> Any:
    """gr.Examples of scenes drawn by the page itself; nothing is counted before a click."""
    with TemporaryDirectory() as folder:  # Gradio makes its own copies
        files = [Path(folder) / name for name in DRAWN]
        for file, people in zip(files, DRAWN.values()):
            file.write_bytes(jpeg(draw_scene(people, seed=people)[0]))
        return gr.Examples(
            [[str(file)] for file in files],
            photo,
            label="No photo at hand? Try a drawn scene. It does not show the accuracy.",
            elem_id="drawn",
            cache_examples=False,
            api_visibility="private",
        )


def _looks(opacity: Any, points: Any) -> tuple[float, bool]:
    number = opacity if isinstance(opacity, (int, float)) else 0.6
    if number != number:  # NaN, from a program
        raise VisitorError("The opacity is a number from 0 to 1.")
    return min(max(float(number), 0.0), 1.0), bool(points)
