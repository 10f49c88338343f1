"""The tab for video clips: counts over time, as a plot, a CSV and an annotated clip."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from csrnet_hub import CountResult

from . import clips
from .counted import notices_html, overlaid
from .files import keep_file
from .models import Models, quota_spent
from .pace import Pace
from .plots import timeline
from .shared import (
    MAX_FILE_SIZE,
    EnoughError,
    VisitorError,
    headline,
    message_html,
    number_html,
    people,
    plot_output,
    png,
    result_output,
    sentences_for_visitors,
    to_csv,
    upload_name,
    uploaded_path,
)
from .turns import BATCHES
from .visitors import still_here
from .wanted import STOP, count_when

SIDE = 960  # pixels of the longer side of the annotated clip
WAITING = (
    f"Choose a clip of up to {MAX_FILE_SIZE[:-2]} MB and how many frames to count per second "
    f"({clips.MOST} in total at most; fewer is faster). Clips that this browser cannot play are "
    "counted too."
)
COUNTING = "Counting the people, one frame after the other: a few seconds each."
STOPPED = "Stopped before a frame was counted."
NO_CLIP = "There is no clip yet. Choose one first."
CUT_SHORT = (
    "the clip is too long to be read to its end (upload a shorter or smaller copy); last counted "
    "frame at"
)
DAMAGED = "Parts of the clip could not be read, so frames are missing: it is damaged or incomplete."
COLUMNS = ("seconds", "count", "low", "high", "scale", "model", "remark")


@dataclass(frozen=True)
class Moment:
    """One counted frame: its time in seconds from the start, and its result without the map."""

    seconds: float
    result: CountResult

    @property
    def ends(self) -> tuple[float, float] | tuple[None, None]:
        return self.result.known_interval or (None, None)

    def record(self) -> dict[str, Any]:
        result, remark = self.result, " ".join(self.result.notices)
        values = (round(self.seconds, 3), result.count, *self.ends, result.scale, result.model)
        return dict(zip(COLUMNS, (*values, remark)))


def annotated(pixels: NDArray[np.uint8], result: CountResult, seconds: float) -> Image.Image:
    """A frame with its map overlaid and its count in a corner."""
    picture = overlaid(pixels, result, SIDE)
    pen = ImageDraw.Draw(picture)
    text = f"{seconds:.1f} s   {people(result.count)}"
    margin = picture.height // 40
    letters = max(12, picture.height // 16)
    room = picture.width - 2 * margin
    font = ImageFont.load_default(letters)
    if (wide := font.getlength(text)) > room:
        font = ImageFont.load_default(max(1.0, letters * room / wide))
    place = (margin, picture.height - margin)
    pen.rectangle(pen.textbbox(place, text, font=font, anchor="ls"), fill="black")
    pen.text(place, text, fill="white", font=font, anchor="ls")
    return picture


def summary_html(moments: list[Moment], cut: str = "", doubt: str = "") -> str:
    """The mean count in large type, the fewest and the most with their times, why counting ended
    early, and what is doubtful."""
    by_count = sorted(moments, key=lambda moment: moment.result.count)
    fewest, most = by_count[0], by_count[-1]
    mean = sum(moment.result.count for moment in moments) / len(moments)
    facts = [
        f"the mean of {len(moments)} frames",
        f"fewest {people(fewest.result.count)} at {fewest.seconds:.1f} s",
        f"most {people(most.result.count)} at {most.seconds:.1f} s",
    ]
    if len(moments) == 1:
        facts = [f"in one frame, at {fewest.seconds:.1f} s"]
    facts += [f"{cut} {moments[-1].seconds:.1f} s"] if cut else []
    facts.append(f"model {escape(most.result.model)}")
    return number_html(headline(mean), " · ".join(facts), notices_html([doubt] if doubt else []))


def nothing(text: str, kind: str = "waiting") -> list[Any]:
    """What the tab shows when there is no counted clip."""
    hidden = gr.update(visible=False)
    return [message_html(text, kind), hidden, hidden, hidden]


def run(
    models: Models,
    upload: Any,
    rate: Any,
    model: Any,
    progress: gr.Progress = gr.Progress(),  # noqa: B008  (Gradio looks for this default)
) -> Iterator[list[Any]]:
    """Count a clip's frames and yield the summary, plot, annotated clip and CSV.

    About once a second it yields no change, so that Gradio can stop it when nobody is waiting.
    """
    last = time.monotonic()
    try:
        with sentences_for_visitors():
            path = uploaded_path(upload, NO_CLIP)
            per_second = float(rate) if isinstance(rate, (int, float)) and 0.05 <= rate <= 30 else 1
            moments: list[Moment] = []
            marked, cut = clips.Clip(per_second), ""
            pace, reading = Pace(progress, 0, "frames"), clips.Reading(_given_up(progress))
            limit = models.find(model).max_pixels
            try:
                for seconds, pixels in clips.frames(path, per_second, limit, reading):
                    if (done := len(moments)) == clips.MOST:
                        cut = f"only the first {done} frames were counted, up to"
                        break
                    pace.of = reading.expected  # from the first frame on
                    step = pace.within(done, f"Counting the people at {seconds:.1f} s")
                    result = models.count(model, pixels, step)
                    marked.add(annotated(pixels, result, seconds), seconds)
                    # without the density map, which a view would keep: 300 take gigabytes
                    result = replace(result, density=result.density[:0].copy())
                    moments.append(Moment(seconds, result))
                    reading.meanwhile = _given_up(progress)  # restarts its clock
                    if time.monotonic() - last > 1:
                        yield [gr.skip() for _ in nothing("")]
                        last = time.monotonic()
                if reading.spent:
                    cut = CUT_SHORT
            except EnoughError:
                cut = "stopped at"
            except gr.Error as error:
                if not (moments and quota_spent(error)):
                    raise
                cut = "GPU quota used up at"
            except (MemoryError, RuntimeError):
                if not moments:
                    raise
                logging.getLogger(__name__).exception("a frame could not be counted")
                cut = "ended by an error on the server at"
            if not moments:
                raise VisitorError(STOPPED if cut else clips.DAMAGED)
            doubt = "" if cut or reading.whole else DAMAGED
            summary = summary_html(moments, cut, doubt)
            yield shown(moments, marked, summary, upload_name(upload, "clip"))
    except gr.Error as error:
        yield nothing(error.message, "problem")


def _given_up(progress: gr.Progress) -> Callable[[], None]:
    """A callback that stops reading a clip when nobody waits for it, even while many frames are
    being skipped."""
    told = time.monotonic()

    def meanwhile() -> None:
        nonlocal told
        if time.monotonic() - told > 1:
            told = time.monotonic()
            still_here()
            progress(None, desc="Reading the clip")

    return meanwhile


def shown(moments: list[Moment], marked: clips.Clip, summary: str, name: str) -> list[Any]:
    """What the tab shows for a counted clip of that name."""
    stem = Path(name).stem
    plot = timeline(
        [moment.seconds for moment in moments],
        [moment.result.count for moment in moments],
        [moment.ends for moment in moments],
        moments[0].result.level,
    )
    table = to_csv((moment.record() for moment in moments), COLUMNS)
    files = (
        keep_file(f"{stem}-counts.png", png(plot)),
        keep_file(f"{stem}-annotated.mp4", marked.finish()),
        keep_file(f"{stem}-counts.csv", table),
    )
    return [summary, *(gr.update(value=file, visible=True) for file in files)]


def layout(models: Models) -> None:
    """Lay out the tab and wire it."""
    try:
        clips.reader()
    except VisitorError as error:
        gr.HTML(message_html(str(error), "problem"))
        return
    with gr.Row():
        with gr.Column():
            clip = gr.Video(label="Clip", sources=["upload"], height=320, elem_id="clip")
            rate = gr.Slider(0.1, 10, value=1, step=0.1, label="Frames counted per second")
            model = models.choice("video-model")
            button = gr.Button(
                "Count the clip", variant="primary", size="lg", elem_classes=["counts"]
            )
            stop = gr.Button(STOP, visible=False, elem_id="clip-stop")
        with gr.Column():
            summary = result_output(WAITING, "clip-summary")
            csv = gr.DownloadButton("Counts (CSV)", visible=False, size="sm")
            plot = plot_output(
                "People over time", "A plot of the count over the seconds of the clip", "timeline"
            )
            marked = gr.Video(
                label="The clip with its maps", interactive=False, visible=False, elem_id="marked"
            )
    outputs = [summary, plot, marked, csv]
    count_when(
        [button.click],
        nothing,
        partial(run, models),
        [clip, rate, model],
        outputs,
        summary,
        WAITING,
        COUNTING,
        changed=(clip.upload, clip.clear, clip.change),  # change: trimmed in the box
        line=BATCHES,
        stop=stop,
    )
