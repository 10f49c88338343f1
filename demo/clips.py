"""Clips as files: reading their frames one by one, and making a clip from pictures."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .shared import VisitorError

MOST = 300  # frames to count
# Decoders hold up to sixteen reference frames, plus one per thread.
LARGEST = 36_000_000  # pixels of a frame: more than 8K has
LARGE = 9_000_000  # pixels of a frame (more than 4K has) above which only one thread is used
# Hundreds of thousands of frames may be decoded to count a few: an hour of 1080p at 25 frames a
# second has 187 thousand million pixels, which take some minutes.
MOST_READ = 200_000_000_000  # pixels of all frames
THREADS = min(os.cpu_count() or 1, 4)
USUAL_RATE = 25  # frames a second, for a stream without a frame rate
BACKWARDS = 1.0  # seconds; a larger jump back in time is a new start
ROUNDED = 1e-3  # seconds by which the times in a file may be off
# Without these, FFmpeg would follow an uploaded playlist to files of the server, and draw any text.
# Passed to the streams as well, as `options`, they crash Python on FLV and MPG before PyAV 18.
ONLY = {
    "format_whitelist": "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,dv,mxf,"
    "nut,rm,wtv,h264,hevc,ivf,yuv4mpegpipe,mp3,wav,aac,flac",
    "protocol_whitelist": "file",
}
NO_READER = (
    "This server cannot read video because PyAV is not installed. Whoever runs it can use: pip "
    "install av."
)
DAMAGED = (
    "This file cannot be read: it is not a video, or it is incomplete. Upload it again, as MP4, "
    "MOV, WebM or MKV."
)
EMPTY = "The file is empty (0 bytes). Upload the clip again."
TOO_LONG = "The clip is too long, or its frames are too large. Upload a shorter or smaller copy."
NO_PICTURES = "This file has sound but no video. Choose another file."


def reader() -> Any:
    """Import PyAV.

    Raises:
        VisitorError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise VisitorError(NO_READER) from error
    return av


@dataclass
class Reading:
    """What becomes known about a clip while its frames are read.

    Attributes:
        meanwhile: called for each frame, including skipped ones; may raise to stop reading.
        damaged: whether a part could not be read.
        spent: whether reading stopped early because MOST_READ pixels were read.
        last, gap: the time of the last frame and the longest gap between two, in seconds.
        length: how long the video should last, in seconds; 0 if the file does not say.
        expected: roughly how many frames will be counted; 0 if the file does not say.
    """

    meanwhile: Callable[[], None] = lambda: None
    damaged: bool = False
    spent: bool = False
    last: float = 0.0
    gap: float = 0.0
    length: float = 0.0
    expected: int = 0

    @property
    def whole(self) -> bool:
        """Whether, after the last frame, the whole clip seems to have been read."""
        return not self.damaged and self.last + self.gap > 0.9 * self.length


def frames(
    path: Path, rate: float, max_pixels: int | None, reading: Reading | None = None
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield frames of a clip, `rate` per second: time in seconds and upright pixels (H, W, 3).

    The first frame of each 1 / rate seconds is yielded, if there is one. Damaged parts are skipped.
    Where the times start again, as in joined files, the clip continues. Reading stops after
    MOST_READ pixels.

    Args:
        max_pixels: of a frame; at most LARGEST.

    Raises:
        VisitorError: PyAV is not installed, the file is not a clip, or there are too many pixels,
            in one frame or before the first frame that could be yielded.
    """
    av = reader()
    reading = reading or Reading()
    if not path.stat().st_size:
        raise VisitorError(EMPTY)
    given = due = 0
    try:
        with av.open(str(path), container_options=ONLY) as clip:
            stream = _pictures_of(av, clip)
            size = (stream.codec_context.width, stream.codec_context.height)
            if size[0] * size[1] > min(max_pixels or LARGEST, LARGEST):
                raise VisitorError(
                    f"The clip's frames are too large: {size[0]} × {size[1]} pixels. Upload a copy "
                    "with smaller frames."
                )
            # for frames that grow later; doubled because the decoder's padding counts too
            stream.codec_context.options = {"max_pixels": str(2 * LARGEST)}
            stream.codec_context.thread_type = "AUTO"
            stream.codec_context.thread_count = THREADS if size[0] * size[1] <= LARGE else 1
            first: float | None = None
            whole = float((clip.duration or 0) / av.time_base)
            reading.length = _length(clip, stream, whole)
            reading.expected = min(MOST, math.ceil(whole * rate - ROUNDED))
            for number, frame in enumerate(_decoded(av, clip, stream, reading)):
                reading.meanwhile()
                seconds = _seconds(frame, number, stream)
                first = seconds if first is None else first
                if seconds - first < reading.last - BACKWARDS:
                    first = seconds - reading.last
                reading.gap = max(reading.gap, seconds - first - reading.last)
                reading.last = max(reading.last, seconds - first)
                step = math.floor((seconds - first + ROUNDED) * rate)
                if step < due:
                    continue
                yield seconds - first, _upright(frame, stream)
                given, due = given + 1, step + 1
            if reading.spent and not given:
                raise VisitorError(TOO_LONG)
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, VisitorError):
            raise
        if not given:  # frames before the damage are still worth showing
            raise VisitorError(DAMAGED) from error
        reading.damaged = True


def _pictures_of(av: Any, clip: Any) -> Any:
    """The clip's video stream; the cover picture of a song does not count as one."""
    cover = av.stream.Disposition.attached_pic
    streams = [one for one in clip.streams.video if not one.disposition & cover]
    if not streams:
        sound = clip.streams.audio or clip.streams.video
        raise VisitorError(NO_PICTURES if sound else DAMAGED)
    return streams[0]


def _length(clip: Any, stream: Any, whole: float) -> float:
    """How long the video should last, in seconds; 0 if that may be the length of the sound."""
    own = float(stream.duration * stream.time_base) if stream.duration else whole
    return 0.0 if clip.streams.audio and own > 0.99 * whole else own


def _decoded(av: Any, clip: Any, stream: Any, reading: Reading) -> Iterator[Any]:
    read = 0
    for packet in clip.demux(stream):
        if read > MOST_READ:
            reading.spent = True
            return
        try:
            found = packet.decode()
        except av.InvalidDataError:
            reading.damaged, found = True, []
        # at least one: frames that are damaged or skipped by an edit list are decoded too
        read += max(1, len(found)) * stream.codec_context.width * stream.codec_context.height
        yield from found


def _seconds(frame: Any, number: int, stream: Any) -> float:
    if frame.time is not None:
        return float(frame.time)
    rate = stream.codec_context.framerate or stream.average_rate or USUAL_RATE  # a bare stream
    return number / float(rate)


def _upright(frame: Any, stream: Any) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) as they should be displayed: rotated or mirrored as the file says, square,
    and in the colours of a standard screen."""
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    if (table := _brightness(getattr(frame, "color_trc", None))) is not None:  # from PyAV 15
        pixels = table[pixels]
    # the file's pixel aspect ratio takes precedence over the codec's
    wide = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
    if wide != 1 and 0.5 <= wide <= 2:  # shrunk, never enlarged: stays within the pixel limit
        height, width = pixels.shape[:2]
        size = (max(1, round(width * min(wide, 1))), max(1, round(height / max(wide, 1))))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    return np.ascontiguousarray(_turned(pixels, frame))


def _turned(pixels: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
    try:
        matrix = next((one for one in frame.side_data if one.type.name == "DISPLAYMATRIX"), None)
    except ValueError:  # the frame also has side data of a kind unknown to PyAV
        return np.rot90(pixels, round(frame.rotation / 90))
    if matrix is None:
        return pixels
    # Maps x, y of the frame to x, y of the picture: x a + y c, x b + y d.
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(a) < abs(b):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


@cache
def _brightness(curve: int | None) -> NDArray[np.uint8] | None:
    """A table (256,) of screen levels for the levels of an HDR clip with a curve from ITU-R
    BT.2100; None for other clips. 203 nits (ITU-R BT.2408) and anything brighter become white."""
    level = np.arange(256) / 255
    if curve == 16:  # PQ
        m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
        root = level ** (1 / m2)
        nits = 10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    elif curve == 18:  # HLG, on a screen of 1,000 nits
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(level <= 0.5, level**2 / 3, (np.exp((level - c) / a) + b) / 12)
        nits = 1000 * scene**1.2
    else:
        return None
    light = np.clip(nits / 203, 0, 1)
    screen = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * screen).astype(np.uint8)


class Clip:
    """An H.264 clip in memory with one frame per counted frame, shown until the next one."""

    def __init__(self, rate: float) -> None:
        self._av = reader()
        self._stream: Any = None
        self._content = io.BytesIO()
        self._container = self._av.open(self._content, "w", format="mp4")
        self._rate = rate
        self._last = -1  # milliseconds

    def add(self, picture: Image.Image, seconds: float) -> None:
        """Add the frame shown from `seconds` on, cropped to an even size and to the first's size.

        Times are stored because, by frame numbers alone, a clip with fewer frames per second than
        requested would play too fast.
        """
        if self._stream is None:
            rate = Fraction(self._rate).limit_denominator(1000)
            # no B-frames: with reordered frames, a gap would be missing from the file's length
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
        """Close the clip and return the file's content."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
        return self._content.getvalue()
