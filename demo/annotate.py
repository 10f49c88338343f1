"""The annotation tab: click the heads, watch the density map grow, save them for training."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from csrnet_hub.annotations import to_csv, to_json, to_mat
from csrnet_hub.density import density_map, heads_in_frame
from csrnet_hub.images import DEFAULT_MAX_PIXELS
from csrnet_hub.render import colour_top, density_image

from .canvas import canvas, read_points, with_photo, without_photo
from .files import keep_file
from .happened import HAPPENED, numbering
from .heads import kept_name, kernel_widths, of_another, read_heads
from .models import Models
from .shared import (
    VisitorError,
    colour_bar,
    jpeg,
    message_html,
    noted,
    number_html,
    people,
    photo_input,
    png,
    read_photo,
    result_output,
    sentences_for_visitors,
    upload_name,
)
from .sheets import Sheet, Visit

WAITING = "Choose a photo, then click each head in it."
NOTHING_TO_SAVE = "There is no photo yet, so there are no heads to save. Choose a photo first."
LABEL = (
    "The photo. Click each head; with the keyboard the arrow keys move, Enter marks a head, "
    "Backspace removes the last one, plus and minus zoom."
)
RENAME = (
    "This photo's name cannot be used for its annotation files. Before training, rename the photo "
    "to {} so that they match."
)
SAVING = """\
To train on these heads, put each photo and one of its files (all CSV, all JSON or all .mat) in one
folder, here `SET`, and keep the file names. Then run `python -m train.prepare SET SET.h5`. All
three formats hold the same heads: x and y in pixels of the upright photo.
"""

# Requests may arrive in a different order from the events they report, and an annotation may arrive
# while its photo is still being uploaded.
OPENS = f"""(visit, number, upload) => {{
  window.opening = (window.opening || 0) + 1;
  return [visit, {HAPPENED}, upload];
}}"""
OPENED_ONE = "() => { window.opening = Math.max(0, window.opening - 1); }"
WAITS = """async () => {
  const tab = document.querySelector("#annotate-photo").closest('[role="tabpanel"]');
  while (tab.onTheWay || window.opening) await new Promise((done) => setTimeout(done, 100));
}"""
# Tells the surface, which asks before the page is left until the browser could fetch their file.
DOWNLOADED = """async (file) => {
  const detail = await fetch(file.url, { method: "HEAD" }).then((one) => one.ok, () => false);
  window.dispatchEvent(new CustomEvent("heads-downloaded", { detail }));
}"""
DETAILED = 4096  # pixels of the longer side: enough to make out heads in a phone's photo


def open_photo(upload: Any) -> tuple[Sheet, bytes]:
    """Return the sheet for an upload, and its photo as a JPEG for the page."""
    pixels = read_photo(upload, DEFAULT_MAX_PIXELS)
    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels)
    small.thumbnail((DETAILED, DETAILED), Image.Resampling.LANCZOS)
    # all pasted pictures have the same name, so heads are stored under a digest of the pixels
    digest = hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()[:16]
    return Sheet(upload_name(upload), width, height, digest, time.time()), jpeg(small)


def grown(visit: Visit, sent: Any, points: Any) -> list[Any]:
    """Return the number of heads, their density map so far and its colour bar."""
    try:
        with sentences_for_visitors():
            sheet = Sheet.sent(sent)
            if sheet is None:
                return nothing(WAITING)
            heads, _ = heads_in_frame(read_points(points), sheet.height, sheet.width)
            widths = kernel_widths(heads)
            density = density_map(heads, sheet.height, sheet.width, widths, stride=8)
            size = (sheet.width, sheet.height)
            picture = density_image(density, sheet.shown, photo_size=size)
            sums = f"the density map sums to {density.sum():,.2f}"
            number = number_html(people(len(heads)), sums)
            if visit.another(sheet):
                return [gr.skip()] * 4
            file = visit.maps.keep("density.png", png(picture))
            return [
                number,
                gr.update(value=file, visible=True),
                colour_bar(colour_top(density)),
                gr.skip(),  # the surface hides files that are out of date
            ]
    except gr.Error as error:
        return nothing(error.message, "problem")


def save(visit: Visit, sent: Any, points: Any) -> list[Any]:
    """Write the heads as CSV, JSON and .mat, and tell the surface which heads the files contain."""
    with sentences_for_visitors():
        sheet = Sheet.sent(sent)
        if sheet is None:
            problem = message_html(NOTHING_TO_SAVE, "problem")
            return [problem, gr.skip(), gr.update(visible=False), *[None] * 3]
        heads = read_points(points).astype(np.float32)
        name = kept_name(sheet.name)
        stem = Path(name).stem
        contents = {
            f"{stem}.csv": to_csv(heads, name),
            f"{stem}.json": to_json(heads, name, sheet.width, sheet.height),
            f"GT_{stem}.mat": to_mat(heads),
        }
        if visit.another(sheet):  # no page would offer the files, and they would stay for long
            return [gr.skip()] * 6
        files = [keep_file(file, content) for file, content in contents.items()]
        if name != sheet.name:
            gr.Warning(RENAME.format(escape(name, quote=False)), duration=None)
    held = {"digest": sheet.digest, "heads": points}
    return [gr.skip(), gr.update(saved=held), gr.update(visible=True), *files]


def start(visit: Visit, number: int, upload: Any) -> list[Any]:
    """Show a new photo on the surface, without heads; do nothing if it has been removed or replaced
    since. A file that is not a picture is removed from its box."""
    if not visit.hears(number):
        return [gr.skip()] * 7
    try:
        with sentences_for_visitors():
            sheet, photo = open_photo(upload)
            file = visit.photos.keep("photo.jpg", photo)
    except gr.Error as error:
        visit.note(None)
        return [None, without_photo(), *nothing(error.message, "problem"), None]
    visit.note(sheet)
    kept = asdict(sheet)
    surface = with_photo(file, sheet.width, sheet.height, sheet.digest)
    return [kept, surface, *grown(visit, kept, []), gr.skip()]


def clear(visit: Visit, number: int) -> list[Any]:
    """Empty the tab after its photo was removed, unless there is another photo by now."""
    if not visit.hears(number):
        return [gr.skip()] * 6
    visit.note(None)
    return [None, without_photo(), *nothing(WAITING)]


def go_on(sent: Any, upload: Any, points: Any) -> Any:
    """Send an annotation's heads to the surface, which adds them to those already marked."""
    with sentences_for_visitors():
        sheet = Sheet.sent(sent)
        if sheet is None:
            raise VisitorError("Choose the photo first, then the annotation.")
        path, heads = read_heads(upload, sheet.name)
        for doubt in of_another(path, sheet.name, (sheet.width, sheet.height)):
            gr.Warning(escape(doubt, quote=False))
        inside, outside = heads_in_frame(heads, sheet.height, sheet.width)
        if outside:
            lie, were = ("head lies", "was") if outside == 1 else ("heads lie", "were")
            gr.Warning(f"{outside:,} {lie} outside the photo and {were} left out.")
        marked = read_points(points).tolist()
        new = not_among(marked, inside.tolist())
        read_points([*marked, *new])  # checks the number of heads before adding them
        if twice := len(inside) - len(new):
            own, were = ("head", "was") if twice == 1 else ("heads", "were")
            already = f"{twice:,} {own} in the file {were} already marked"
            gr.Info(f"{already} and {were} not added again.")
    added = {"at": time.time(), "digest": sheet.digest, "heads": json.dumps(new)}
    return gr.update(added=added), None  # the box is free for the next photo's


def not_among(marked: list[list[float]], heads: list[list[float]]) -> list[list[float]]:
    """The heads not yet marked, compared to 0.01 pixel, the precision of the surface."""
    there = {(round(x, 2), round(y, 2)) for x, y in marked}
    return [[x, y] for x, y in heads if (round(x, 2), round(y, 2)) not in there]


def nothing(text: str, kind: str = "waiting") -> list[Any]:
    """What the tab shows beside the surface when there is no photo."""
    hidden = gr.update(visible=False)
    return [message_html(text, kind), hidden, "", hidden]


def layout(models: Models) -> None:
    """Lay out the tab and wire it."""
    del models  # nothing is counted here
    visit, sheet = gr.State(Visit()), gr.JSON(None, visible=False)
    with gr.Row():
        photo = photo_input("annotate-photo", "Photo to annotate")
        with gr.Column():
            earlier = gr.File(
                label="Continue a saved annotation",
                file_types=[".mat", ".csv", ".json"],
                height=170,
                elem_id="earlier",
            )
            number = result_output(WAITING, "heads-number")
            button = gr.Button("Save the heads", variant="primary")
            with gr.Row(visible=False, elem_id="heads-files") as downloads:
                files = [
                    gr.DownloadButton(label, size="sm", min_width=100)
                    for label in ("CSV", "JSON", "ShanghaiTech .mat")
                ]
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            surface = canvas("heads", LABEL, "heads")
        with gr.Column(scale=2, min_width=260):
            density = gr.Image(
                label="Its density map so far",
                visible=False,
                interactive=False,
                type="filepath",
                format="png",
                height="auto",
                buttons=["download"],
                alt_text="The density map of the heads marked so far, in jet colours",
                elem_id="grown",
                elem_classes=["picture"],
            )
            scale = gr.HTML("")
    gr.Markdown(SAVING)
    beside = [number, density, scale, downloads]
    aside: dict[str, Any] = {
        "show_progress": "hidden",
        "api_visibility": "private",
        "concurrency_limit": 4,
    }
    # run in order, skipping none, so that the surface shows the photo that is in the box
    in_turn = aside | {"concurrency_id": "sheet", "concurrency_limit": 1}
    in_turn["trigger_mode"] = "multiple"
    whole = [sheet, surface, *beside]
    happened = gr.Number(visible=False)  # placeholder for the browser's number
    numbered = {"preprocess": False, **in_turn}
    opening = [visit, happened, photo]
    opened = photo.upload(start, opening, [*whole, photo], js=OPENS, **numbered)
    for ended in (opened.then, opened.failure):
        ended(None, js=OPENED_ONE)
    photo.clear(clear, [visit, happened], whole, js=numbering(HAPPENED), **numbered)
    noted(photo, earlier)
    given = earlier.upload(None, js=WAITS, trigger_mode="multiple")
    going_on = {"preprocess": False, "trigger_mode": "multiple", **aside}
    given.then(go_on, [sheet, earlier, surface], [surface, earlier], **going_on)
    last = aside | {"trigger_mode": "always_last"}
    marked = [visit, sheet, surface]
    surface.input(grown, marked, beside, **last)
    button.click(save, marked, [number, surface, downloads, *files], **last)
    for file in files:
        file.click(None, file, js=DOWNLOADED)
