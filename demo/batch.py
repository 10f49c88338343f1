"""The tab for many photos: a table, a gallery, totals, a histogram and a CSV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from csrnet_hub import CountResult
from csrnet_hub.tiles import Progress

from .counted import count_html, notices_html, overlaid
from .files import Recent, keep_file
from .models import Models, quota_spent
from .pace import Pace
from .plots import histogram
from .shared import (
    EnoughError,
    VisitorError,
    headline,
    jpeg,
    message_html,
    noted,
    number_html,
    people,
    plot_output,
    png,
    read_photo,
    result_output,
    row,
    sentences_for_visitors,
    to_csv,
    upload_name,
)
from .turns import BATCHES
from .wanted import STOP, count_when

MOST = 500  # photos at once
THUMBNAIL = 480  # pixels
WAITING = (
    "Choose the photos, then count them. A photo that cannot be read gets a row that says why."
)
NO_PHOTOS = "There are no photos yet. Choose some first: drop them on the page."
COUNTING = "Counting the people, one photo after the other: a few seconds each."
STOPPED = "Stopped before a photo was counted."
HEAD = ["photo", "people", "low", "high", "width", "height", "remark"]
LABEL = "Photos: to sort, click a heading, then its ⋮"
TYPES: Any = ["str", *["number"] * 5, "str"]


@dataclass(frozen=True)
class Line:
    """One photo of the batch: its result and thumbnail file, or the reason why there is none;
    `last` if that reason applies to all following photos too."""

    name: str
    result: CountResult | None = None
    thumbnail: str = ""
    remark: str = ""
    last: bool = False

    def cells(self) -> list[Any]:
        if self.result is None:
            return [self.name, None, None, None, None, None, self.remark]
        around = self.result.known_interval
        margin = [round(end) for end in around] if around else [None, None]
        size = [self.result.width, self.result.height]
        return [self.name, round(self.result.count, 1), *margin, *size, self.remark]

    def record(self) -> dict[str, Any]:
        if self.result is None:
            return {"image": self.name, "error": self.remark}
        return row(self.name, self.result)


def count_one(models: Models, upload: Any, model: Any, step: Progress | None = None) -> Line:
    """Count one upload, reporting its parts to `step`; a failure becomes a line with the reason."""
    name = upload_name(upload)
    try:
        with sentences_for_visitors():
            pixels = read_photo(upload, models.find(model).max_pixels)
            result = models.count(model, pixels, step)
            thumbnail = keep_file(f"{name}.jpg", jpeg(overlaid(pixels, result, THUMBNAIL)))
            said = " ".join(result.notices)
            # without the density map, which a view would keep: 500 of them may take gigabytes
            result = replace(result, density=result.density[:0].copy())
            return Line(name, result, thumbnail, said)
    except gr.Error as error:
        return Line(name, remark=str(error.message), last=quota_spent(error))


def summary_html(lines: list[Line], of: int, stopped: bool = False) -> str:
    """The total in large type, the mean, fewest and most; how many could not be read, and how many
    were left when the visitor stopped. A single photo is shown as in the tab for one photo."""
    results = [line.result for line in lines if line.result is not None]
    if not results:
        tried = f"None of {len(lines)} photos" if len(lines) > 1 else "The first photo"
        why = f"{tried} could {'' if len(lines) > 1 else 'not '}be counted: the table says why."
        alone = of == 1 or lines[-1].last
        return message_html(lines[-1].remark if alone else why, "problem")
    if of == 1:
        return count_html(results[0]) + notices_html(results[0].notices)
    counts = [result.count for result in results]
    facts = [f"total of {len(counts)} of {of} photos"]
    if len(counts) > 1:
        facts.append(f"mean {sum(counts) / len(counts):,.1f}")
        facts += [f"fewest {people(min(counts))}", f"most {people(max(counts))}"]
    if bad := len(lines) - len(counts):
        facts.append(f"{bad} could not be counted")
    if stopped:
        left = of - len(lines)
        facts.append(f"stopped with {left} {'photo' if left == 1 else 'photos'} left")
    facts.append(f"model {results[0].model}")
    return number_html(headline(sum(counts)), escape(" · ".join(facts)))


def shown(lines: list[Line], of: int, done: bool, tables: Recent) -> list[Any]:
    """What the tab shows: summary, table, gallery, histogram and CSV.

    Args:
        done: whether no photo is left or the visitor has stopped the batch.
        tables: the CSV files; one is always available, since a batch can take an hour.
    """
    counts = [line.result.count for line in lines if line.result is not None]
    gallery = [
        (line.thumbnail, f"{max(line.result.count, 0.0):,.0f} · {line.name}")
        for line in lines
        if line.result is not None
    ]
    file = tables.keep("counts.csv", to_csv(line.record() for line in lines))
    name = "Table (CSV)" if done else f"Table so far (CSV), {len(lines)} of {of}"
    csv = gr.update(value=file, label=name, visible=True)
    plot = gr.update(visible=False)
    if done and len(counts) > 1:
        plot = gr.update(value=keep_file("counts.png", png(histogram(counts))), visible=True)
    table = gr.update(value=[line.cells() for line in lines], visible=True, label=label(lines))
    pictures = gr.update(value=gallery, visible=bool(gallery))
    summary = summary_html(lines, of, stopped=done and len(lines) < of)
    if not done:  # or a screen reader would never fall silent
        summary = f'<div aria-hidden="true">{summary}</div>'
    return [summary, table, pictures, plot, csv]


def label(lines: list[Line]) -> str:
    """The table's label; it explains low and high if any photo has them."""
    levels = [line.result.level for line in lines if line.cells()[2] is not None and line.result]
    return (
        f"{LABEL}; low to high: each photo's {levels[0]:.0%} prediction interval"
        if levels
        else LABEL
    )


def nothing(text: str, kind: str = "waiting") -> list[Any]:
    """What the tab shows when there is no batch."""
    hidden = gr.update(visible=False)
    return [message_html(text, kind), hidden, hidden, hidden, hidden]


def run(
    models: Models,
    uploads: Any,
    model: Any,
    progress: gr.Progress = gr.Progress(),  # noqa: B008  (Gradio looks for this default)
) -> Iterator[list[Any]]:
    """Count the uploads one after another, showing the results so far about once a second."""
    try:
        with sentences_for_visitors():
            if not isinstance(uploads, list) or not uploads:
                raise VisitorError(NO_PHOTOS)
            if len(uploads) > MOST:
                raise VisitorError(
                    f"There are {len(uploads):,} photos; the limit is {MOST}. Count them in parts."
                )
            models.find(model)
    except gr.Error as error:
        yield nothing(error.message, "problem")
        return
    lines: list[Line] = []
    tables = Recent()
    last, pace = time.monotonic(), Pace(progress, len(uploads), "photos")
    try:
        with suppress(EnoughError):
            for upload in uploads:
                lines.append(count_one(models, upload, model, pace.within(len(lines), "Counting")))
                if lines[-1].last:
                    break
                if time.monotonic() - last > 1 and len(lines) < len(uploads):
                    yield _shown(lines, len(uploads), False, tables)
                    last = time.monotonic()
        yield _shown(lines, len(uploads), True, tables) if lines else nothing(STOPPED)
    except gr.Error as error:
        yield nothing(error.message, "problem")


def _shown(lines: list[Line], of: int, done: bool, tables: Recent) -> list[Any]:
    with sentences_for_visitors():
        return shown(lines, of, done, tables)


def layout(models: Models) -> None:
    """Lay out the tab and wire it."""
    with gr.Row():
        with gr.Column():
            files = gr.File(
                label="Photos", file_count="multiple", height=220, elem_id="batch-photos"
            )
            model = models.choice("batch-model")
            button = gr.Button("Count all", variant="primary", size="lg", elem_classes=["counts"])
            stop = gr.Button(STOP, visible=False, elem_id="batch-stop")
        with gr.Column():
            summary = result_output(WAITING, "batch-summary")
            csv = gr.DownloadButton("Table (CSV)", visible=False, size="sm")
            plot = plot_output(
                "How the counts are spread", "A histogram of the counts", "histogram"
            )
    table = gr.Dataframe(
        headers=HEAD,
        datatype=TYPES,
        interactive=False,
        visible=False,
        label=LABEL,
        wrap=True,
        column_widths=["220px", *["95px"] * 5, "480px"],  # phones scroll inside the table
        elem_id="batch-table",
    )
    gallery = gr.Gallery(
        label="Where they stand",
        show_label=False,
        columns=4,
        height="max-content",
        object_fit="cover",  # equal-sized thumbnails; a click shows the whole photo
        buttons=["download", "fullscreen"],  # the default "share" sends them to huggingface.co
        interactive=False,
        visible=False,
        type="filepath",
        format="jpeg",
        elem_id="batch-gallery",
    )
    outputs = [summary, table, gallery, plot, csv]
    count_when(
        [button.click],
        nothing,
        partial(run, models),
        [files, model],
        outputs,
        summary,
        WAITING,
        COUNTING,
        cleared=(files.clear,),
        line=BATCHES,
        stop=stop,
    )
    noted(files)
