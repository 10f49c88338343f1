"""The tab that compares a count with an annotation: both maps, the error and its location."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csrnet_hub import CountResult
from csrnet_hub.annotations import to_csv
from csrnet_hub.density import density_map, heads_in_frame
from csrnet_hub.regions import grid_counts
from csrnet_hub.render import colour_top, density_image, shown_photo

from .counted import notices_html
from .files import keep_file
from .heads import kernel_widths, of_another, read_heads
from .models import Models
from .pace import counting
from .photo import DRAWN, DRAWN_NOTICE
from .scenes import draw_scene
from .shared import (
    SHOWN,
    colour_bar,
    message_html,
    number_html,
    people,
    photo_input,
    png,
    read_photo,
    result_output,
    sentences_for_visitors,
    upload_name,
)
from .wanted import count_when

WAITING = "Choose a photo and its annotation: the heads, as .mat (ShanghaiTech), .csv or .json."
SCENE = "drawn-scene.png"
FIELDS = 4  # rows and columns of the error table
BLUR = 2.0  # cells: differences between neighbouring cells do not matter


@dataclass(frozen=True)
class Comparison:
    """A count beside the annotation of the same photo.

    Attributes:
        result: the prediction.
        heads: annotated heads inside the frame.
        outside: annotated points outside the frame, which are not counted.
        truth: their density map, in the shape of the result's map.
        notices: what is unusual about the photo, or about the annotation for this photo.
    """

    result: CountResult
    heads: int
    outside: int
    truth: NDArray[np.float64]
    notices: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        return self.result.count - self.heads


def compare(
    result: CountResult, heads: NDArray[np.float32], notices: Sequence[str] = ()
) -> Comparison:
    """Compare a prediction with annotated heads (N, 2), x, y in pixels."""
    inside, outside = heads_in_frame(heads, result.height, result.width)
    # as in training, where photos have the size at which they are counted here
    small = min(result.scale, 1.0)
    sigma = kernel_widths(inside * small) / small
    truth = density_map(inside, result.height, result.width, sigma, stride=8)
    return Comparison(result, len(inside), outside, truth, tuple(notices))


def numbers_html(comparison: Comparison) -> str:
    """The error in large type and as a share of the heads, both counts, and the notices."""
    error, heads = comparison.error, comparison.heads
    said = list(comparison.notices)
    if outside := comparison.outside:
        lie = "1 point lies" if outside == 1 else f"{outside:,} points lie"
        not_counted = "is not counted" if outside == 1 else "are not counted"
        text = f"{lie} outside the photo and {not_counted}. Is this the right annotation?"
        said.insert(0, text)
    words = f"{abs(error):,.1f} {'too many' if error > 0 else 'too few'}"
    return number_html(
        words if abs(error) >= 0.05 else "no error",
        f"the error is {abs(error) / heads:.1%} of the heads" if heads else "",
        f'<p class="range">predicted {people(comparison.result.count)} '
        f"by {escape(comparison.result.model)}, "
        f"annotated {people(heads)}</p>{notices_html(said)}",
    )


def errors_html(comparison: Comparison) -> str:
    """A table of the error, predicted minus annotated, in each cell of a grid."""
    result = comparison.result
    shape = (result.height, result.width, FIELDS, FIELDS)
    errors = grid_counts(result.density, *shape) - grid_counts(comparison.truth, *shape)
    most = max(float(np.abs(errors).max()), 1e-9)
    lines = "".join(
        "<tr>"
        + "".join(
            f'<td style="background: rgb({"214 96 77" if value > 0 else "67 147 195"} / '
            f'{abs(value) / most * 0.6:.2f})">{signed(value)}</td>'
            for value in line
        )
        + "</tr>"
        for line in errors
    )
    return (
        '<div class="sheet" tabindex="0"><table>'
        "<caption>Error in each sixteenth of the photo, in heads: red is "
        f"too many, blue too few; the sum is {signed(errors.sum())}</caption>{lines}</table></div>"
    )


def signed(heads: float) -> str:
    """A number of heads to one decimal, with its sign unless it is zero."""
    text = f"{heads:+,.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def difference(
    comparison: Comparison, size: tuple[int, int], photo_size: tuple[int, int]
) -> tuple[Image.Image, float]:
    """Predicted minus annotated density in red and blue, and the value of the deepest colour."""
    from matplotlib import colormaps
    from scipy.ndimage import gaussian_filter

    blur = BLUR / min(comparison.result.scale, 1.0)
    values = gaussian_filter(comparison.result.density - comparison.truth, blur, mode="constant")
    top = max(float(np.abs(values).max()), 1e-3)
    box = (0.0, 0.0, photo_size[0] / 8, photo_size[1] / 8)
    scaled = Image.fromarray((values / top).astype(np.float32)).resize(
        size, Image.Resampling.BILINEAR, box=box
    )
    colours = colormaps["RdBu_r"]((np.asarray(scaled) + 1) / 2, bytes=True)[..., :3]
    return Image.fromarray(np.ascontiguousarray(colours)), top


def shown(pixels: NDArray[np.uint8], comparison: Comparison) -> list[Any]:
    """What the tab shows: numbers, the panel, truth, prediction, their bar, the difference, its
    bar, the table and the photo."""
    result = comparison.result
    photo_size = (result.width, result.height)
    size = shown_photo(pixels, SHOWN // 2).size
    # Annotated heads have sharp peaks: scaled to the highest, the prediction would be all blue.
    top = max(colour_top(result.density, result.scale), float(np.quantile(comparison.truth, 0.99)))
    maps = [
        keep_file(f"{name}.png", png(density_image(density, size, top, photo_size)))
        for name, density in (("annotated", comparison.truth), ("predicted", result.density))
    ]
    signed, most = difference(comparison, size, photo_size)
    bars = [
        colour_bar(top, "or more heads in 8 × 8 pixels"),
        colour_bar(most, kind="signed"),
    ]
    error = keep_file("difference.png", png(signed))
    numbers, table = numbers_html(comparison), errors_html(comparison)
    return [numbers, gr.update(visible=True), *maps, bars[0], error, bars[1], table, gr.update()]


def nothing(text: str, kind: str = "waiting", keep: bool = True) -> list[Any]:
    """What the tab shows when there is no comparison; `keep` says whether the photo stays."""
    hidden, photo = gr.update(visible=False), gr.update() if keep else None
    return [message_html(text, kind), hidden, None, None, "", None, "", "", photo]


def run(
    models: Models,
    upload: Any,
    annotation: Any,
    model: Any,
    progress: gr.Progress = gr.Progress(),  # noqa: B008  (Gradio looks for this default)
) -> list[Any]:
    """Read both files, count and compare."""
    read = False
    try:
        with sentences_for_visitors():
            pixels = read_photo(upload, models.find(model).max_pixels)
            read = True
            name = upload_name(upload)
            path, heads = read_heads(annotation, name)
            result = models.count(model, pixels, counting(progress))
            said = [DRAWN_NOTICE.format(len(heads))] if name in (SCENE, *DRAWN) else []
            said += of_another(path, name, (result.width, result.height))
            return shown(pixels, compare(result, heads, [*said, *result.notices]))
    except gr.Error as error:
        return nothing(error.message, "problem", keep=read)  # a non-picture leaves its box


def draw_one() -> tuple[str, str]:
    """Draw a scene and return the files of the picture and of its heads."""
    picture, heads = draw_scene(seed=int(np.random.default_rng().integers(1000)))
    return keep_file(SCENE, png(picture)), keep_file("drawn-scene.csv", to_csv(heads, SCENE))


def layout(models: Models) -> None:
    """Lay out the tab and wire it."""
    with gr.Row():
        with gr.Column():
            photo = photo_input("compare-photo")
        with gr.Column():
            annotation = gr.File(
                label="Its annotation (.mat, .csv, .json)", height=170, elem_id="annotation"
            )
            model = models.choice("compare-model")
            with gr.Row():
                button = gr.Button("Compare", variant="primary", size="lg", elem_classes=["counts"])
                drawn = gr.Button("Try a drawn scene", size="lg")
            numbers = result_output(WAITING, "errors")
    with gr.Column(visible=False) as panel:
        with gr.Row():
            truth = _picture("Annotated", "The density map of the annotation", "truth")
            predicted = _picture("Predicted", "The predicted density map", "predicted")
            error = _picture("Difference, smoothed", "Where the count errs", "difference")
        with gr.Row():  # one bar below the two maps, one below their difference
            with gr.Column(scale=2, min_width=320):
                bar = gr.HTML("")
            with gr.Column(scale=1, min_width=260):
                error_bar = gr.HTML("")
        table = gr.HTML("", elem_id="error-table")
    outputs = [numbers, panel, truth, predicted, bar, error, error_bar, table, photo]
    inputs = [photo, annotation, model]

    def drawing(*counted: Any, **options: Any) -> Any:
        files = [photo, annotation]
        draw = drawn.click(draw_one, None, files, concurrency_limit=2, api_visibility="private")
        return draw.then(*counted, **options)

    count_when(
        [button.click, drawing],
        nothing,
        partial(run, models),
        inputs,
        outputs,
        numbers,
        WAITING,
        # drawn.click too: a late answer for a bad photo would otherwise remove the scene
        changed=(photo.upload, photo.clear, annotation.upload, annotation.clear, drawn.click),
    )


def _picture(label: str, alt: str, elem_id: str) -> gr.Image:
    return gr.Image(
        label=label,
        interactive=False,
        type="filepath",
        format="png",
        height="auto",
        min_width=260,
        buttons=["download", "fullscreen"],
        alt_text=alt,
        elem_id=elem_id,
        elem_classes=["picture"],
    )
