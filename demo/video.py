"""The tab for a clip: counts over time, as a plot, a CSV and an annotated clip."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from csrnet_hub import CountResult
from csrnet_hub.render import display_pair, overlay_image

from .models import Models
from .pace import Pace
from .plots import timeline
from .shared import (
    VisitorError,
    headline,
    keep_file,
    message_html,
    noted,
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
from .wanted import count_when

MOST = 300  # frames that are counted
ROUNDED = 1e-3  # seconds, by which the times in a file may be off
SIDE = 960  # pixels, the longer side of the annotated clip
WAITING = (
    f"Choose a clip, and how many frames of each second of it to count: {MOST} at most in all. "
    "Fewer are quicker."
)
COUNTING = "Counting the people, one frame after the other: a few seconds each."
NO_CLIP = "There is no clip yet. Choose one first."
NO_READER = (
    "Clips cannot be read here: the server lacks the package PyAV. Whoever runs it can add it with "
    "pip install av."
)
DAMAGED = "This is not a clip that can be read. Use MP4, MOV, WebM or MKV."
COLUMNS = ("seconds", "count", "low", "high")


@dataclass(frozen=True)
class Moment:
    """One counted frame: when, in seconds from the start, and its result."""

    seconds: float
    result: CountResult

    def record(self) -> dict[str, Any]:
        low, high = self.result.interval or (None, None)
        values = (round(self.seconds, 3), self.result.count, low, high)
        return dict(zip(COLUMNS, values))


def reader() -> Any:
    """PyAV.

    Raises:
        VisitorError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise VisitorError(NO_READER) from error
    return av


def frames(
    path: Path, rate: float, max_pixels: int | None
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Frames of a clip, `rate` a second from its start: seconds and upright pixels (H, W, 3).

    At most 300 are given: the first in each 1 / rate seconds, none where the clip has none.

    Raises:
        VisitorError: PyAV is absent, the file is no clip, or its frames have too many pixels.
    """
    av = reader()
    given = due = 0
    try:
        with av.open(str(path)) as clip:
            if not clip.streams.video:
                raise VisitorError(DAMAGED)
            stream = clip.streams.video[0]
            size = (stream.codec_context.width, stream.codec_context.height)
            if max_pixels is not None and size[0] * size[1] > max_pixels:
                raise VisitorError(
                    f"The clip's frames are too large: {size[0]} x {size[1]} pixels."
                )
            stream.thread_type = "AUTO"
            first = None
            for frame in clip.decode(stream):
                seconds = float(frame.time or 0.0)
                first = seconds if first is None else first
                step = math.floor((seconds - first + ROUNDED) * rate)
                if step < due:
                    continue
                yield seconds - first, _upright(frame)
                given, due = given + 1, step + 1
                if given >= MOST:
                    return
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, VisitorError):
            raise
        if not given:  # what came before the damage is still worth showing
            raise VisitorError(DAMAGED) from error


def frames_expected(path: Path, rate: float) -> int:
    """About how many frames `frames` will give; 0 for a clip that does not say how long it is.

    Raises:
        VisitorError: PyAV is absent.
    """
    av = reader()
    try:
        with av.open(str(path)) as clip:
            seconds = float((clip.duration or 0) / av.time_base)
    except (av.FFmpegError, ValueError):
        return 0
    return min(MOST, math.ceil(float(seconds) * rate))


def _upright(frame: Any) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90)  # as a phone held the camera
    return np.ascontiguousarray(np.rot90(pixels, turns))


class Clip:
    """An H.264 clip in memory, one frame for each counted one."""

    def __init__(self, rate: float) -> None:
        self._av = reader()
        self._stream: Any = None
        self._content = io.BytesIO()
        self._container = self._av.open(self._content, "w", format="mp4")
        self._rate = rate

    def add(self, picture: Image.Image) -> None:
        """A frame; it is cut to an even size, and to that of the first."""
        if self._stream is None:
            from fractions import Fraction

            rate = Fraction(self._rate).limit_denominator(1000)
            self._stream = self._container.add_stream("libx264", rate=rate)
            self._stream.width, self._stream.height = (
                max(2, side // 2 * 2) for side in picture.size
            )
            self._stream.pix_fmt = "yuv420p"
        size = (self._stream.width, self._stream.height)
        fitted = picture.crop((0, 0, *size)) if picture.size != size else picture
        frame = self._av.VideoFrame.from_image(fitted)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> bytes:
        """The file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
        return self._content.getvalue()


def annotated(pixels: NDArray[np.uint8], moment: Moment) -> Image.Image:
    """A frame with its map over it and its count in a corner."""
    result = moment.result
    small, _ = display_pair(pixels, result.density, SIDE)
    size = (result.width, result.height)
    picture = overlay_image(np.asarray(small), result.density, 0.6, photo_size=size)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(12, picture.height // 16))
    text = f"{moment.seconds:.1f} s   {people(result.count)}"
    margin = picture.height // 40
    place = (margin, picture.height - margin)
    pen.rectangle(pen.textbbox(place, text, font=font, anchor="ls"), fill="black")
    pen.text(place, text, fill="white", font=font, anchor="ls")
    return picture


def summary_html(moments: list[Moment]) -> str:
    """The mean count in large type, the least and the most with their times."""
    by_count = sorted(moments, key=lambda moment: moment.result.count)
    least, most = by_count[0], by_count[-1]
    mean = sum(moment.result.count for moment in moments) / len(moments)
    cut = f" · only the first {MOST} frames were counted" if len(moments) == MOST else ""
    return number_html(
        headline(mean),
        f"the mean of {len(moments)} frames · least {people(least.result.count)} at "
        f"{least.seconds:.1f} s · most {people(most.result.count)} at {most.seconds:.1f} s{cut}",
    )


def nothing(text: str, kind: str = "waiting") -> list[Any]:
    """What the tab shows without a counted clip."""
    hidden = gr.update(visible=False)
    return [message_html(text, kind), hidden, hidden, hidden]


def run(
    models: Models,
    upload: Any,
    rate: Any,
    model: Any,
    progress: gr.Progress = gr.Progress(),  # noqa: B008  (Gradio looks for this default)
) -> Iterator[list[Any]]:
    """Count a clip's frames; summary, plot, annotated clip and CSV.

    About once a second it yields without news, so that Gradio can stop it when nobody waits.
    """
    last = time.monotonic()
    try:
        with sentences_for_visitors():
            path = uploaded_path(upload, NO_CLIP)
            per_second = float(rate) if isinstance(rate, (int, float)) and 0.05 <= rate <= 30 else 1
            moments: list[Moment] = []
            clip = Clip(per_second)
            pace = Pace(progress, frames_expected(path, per_second), "frames")
            for seconds, pixels in frames(path, per_second, models.find(model).max_pixels):
                step = pace.within(len(moments), f"Counting the people at {seconds:.1f} s")
                moments.append(Moment(seconds, models.count(model, pixels, step)))
                clip.add(annotated(pixels, moments[-1]))
                if time.monotonic() - last > 1:
                    yield [gr.skip() for _ in nothing("")]
                    last = time.monotonic()
            if not moments:
                raise VisitorError(DAMAGED)
            yield shown(moments, clip.finish(), Path(upload_name(upload, "clip")).stem)
    except gr.Error as error:
        yield nothing(error.message, "problem")


def shown(moments: list[Moment], clip: bytes, stem: str) -> list[Any]:
    """What the tab shows of a counted clip."""
    plot = timeline(
        [moment.seconds for moment in moments],
        [moment.result.count for moment in moments],
        [moment.result.interval for moment in moments],
    )
    table = to_csv((moment.record() for moment in moments), COLUMNS)
    files = (
        keep_file(f"{stem}-counts.png", png(plot)),
        keep_file(f"{stem}-annotated.mp4", clip),
        keep_file(f"{stem}-counts.csv", table),
    )
    return [summary_html(moments), *(gr.update(value=file, visible=True) for file in files)]


def layout(models: Models) -> None:
    """Lay out the tab and wire it."""
    try:
        reader()
    except VisitorError as error:
        gr.HTML(message_html(str(error), "problem"))
        return
    with gr.Row():
        with gr.Column():
            clip = gr.Video(label="Clip", sources=["upload"], height=320, elem_id="clip")
            rate = gr.Slider(0.1, 10, value=1, step=0.1, label="Frames counted per second")
            model = models.choice("video-model")
            button = gr.Button("Count the clip", variant="primary", size="lg")
        with gr.Column():
            summary = result_output(WAITING, "clip-summary")
            csv = gr.DownloadButton("Counts (CSV)", visible=False, size="sm")
            plot = plot_output(
                "People over time", "A plot of the count over the seconds of the clip", "timeline"
            )
            marked = gr.Video(
                label="The clip with its maps", interactive=False, visible=False, elem_id="marked"
            )
    noted(clip)
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
        cleared=(clip.clear,),
    )
