"""Clips as files: their frames read one after the other, and a clip made of pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .shared import VisitorError

MOST = 300  # frames that are counted
USUAL_RATE = 25  # frames a second of a stream that does not say
ROUNDED = 1e-3  # seconds, by which the times in a file may be off
# Without them FFmpeg would follow an uploaded playlist to files of the server, and draw any text.
# Given to the streams too, as `options`, they crash Python at FLV and MPG before PyAV 18.
ONLY = {
    "format_whitelist": "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,dv,mxf,"
    "nut,rm,wtv,h264,hevc,ivf,yuv4mpegpipe,mp3,wav,aac,flac",
    "protocol_whitelist": "file",
}
NO_READER = (
    "Clips cannot be read here: the server lacks the package PyAV. Whoever runs it can add it with "
    "pip install av."
)
DAMAGED = (
    "This clip cannot be read: it is no clip, or it was cut off. Upload it again, as MP4, MOV, "
    "WebM or MKV."
)
EMPTY = "The file is empty (0 bytes). Upload the clip again."
NO_PICTURES = "There are no pictures in this file, only sound. Choose a clip with pictures."


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

    The first in each 1 / rate seconds is given, none where the clip has none.

    Raises:
        VisitorError: PyAV is absent, the file is no clip, or its frames have too many pixels.
    """
    av = reader()
    if not path.stat().st_size:
        raise VisitorError(EMPTY)
    given = due = 0
    try:
        with av.open(str(path), container_options=ONLY) as clip:
            if not clip.streams.video:
                raise VisitorError(NO_PICTURES if clip.streams.audio else DAMAGED)
            stream = clip.streams.video[0]
            size = (stream.codec_context.width, stream.codec_context.height)
            if max_pixels is not None and size[0] * size[1] > max_pixels:
                raise VisitorError(
                    f"The clip's frames are too large: {size[0]} x {size[1]} pixels. Save a copy "
                    "with smaller frames."
                )
            stream.thread_type = "AUTO"
            first = None
            for number, frame in enumerate(clip.decode(stream)):
                seconds = _seconds(frame, number, stream)
                first = seconds if first is None else first
                step = math.floor((seconds - first + ROUNDED) * rate)
                if step < due:
                    continue
                yield seconds - first, _upright(frame)
                given, due = given + 1, step + 1
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
        with av.open(str(path), container_options=ONLY) as clip:
            seconds = float((clip.duration or 0) / av.time_base)
    except (av.FFmpegError, ValueError):
        return 0
    return min(MOST, math.ceil(float(seconds) * rate))


def _seconds(frame: Any, number: int, stream: Any) -> float:
    if frame.time is not None:
        return float(frame.time)
    rate = stream.codec_context.framerate or stream.average_rate or USUAL_RATE  # a bare stream
    return number / float(rate)


def _upright(frame: Any) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90)  # as a phone held the camera
    return np.ascontiguousarray(np.rot90(pixels, turns))


class Clip:
    """An H.264 clip in memory, one frame for each counted one, as long as that stood."""

    def __init__(self, rate: float) -> None:
        self._av = reader()
        self._stream: Any = None
        self._content = io.BytesIO()
        self._container = self._av.open(self._content, "w", format="mp4")
        self._rate = rate
        self._last = -1  # milliseconds

    def add(self, picture: Image.Image, seconds: float) -> None:
        """The frame that is shown from `seconds` on; cut to an even size, and to that of the first.

        By their numbers alone the frames of a clip with fewer a second than were asked for would
        run too fast.
        """
        if self._stream is None:
            rate = Fraction(self._rate).limit_denominator(1000)
            # with frames out of order a gap would be lost from the length that the file gives
            self._stream = self._container.add_stream("libx264", rate=rate, options={"bf": "0"})
            self._stream.width, self._stream.height = (
                max(2, side // 2 * 2) for side in picture.size
            )
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, 1000)
        size = (self._stream.width, self._stream.height)
        fitted = picture.crop((0, 0, *size)) if picture.size != size else picture
        frame = self._av.VideoFrame.from_image(fitted)
        self._last = frame.pts = max(self._last + 1, round(seconds * 1000))
        frame.time_base = Fraction(1, 1000)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> bytes:
        """The file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
        return self._content.getvalue()
