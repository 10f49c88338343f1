"""What the tests of the page share: a counter that needs no network of layers, a server, scenes."""

from __future__ import annotations

import io
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import gradio as gr
import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

import app
from csrnet_hub import CountResult, CrowdCounter, load_image
from csrnet_hub.notices import notices
from demo.files import keep_file

LIMIT = 100_000  # pixels


class PlainCounter(CrowdCounter):
    """Counts a head for every 255 levels of red in a cell: quick, and each picture has its own."""

    def __init__(self, name: str = "plain <b>", factor: float = 1.0) -> None:
        self.name, self.max_pixels, self.factor = name, LIMIT, factor

    def count(self, image: Any, progress: Any = None) -> CountResult:
        pixels = load_image(image, max_pixels=self.max_pixels)
        height, width = pixels.shape[:2]
        rows, columns = -(-height // 8), -(-width // 8)
        red = np.zeros((rows * 8, columns * 8))
        red[:height, :width] = pixels[..., 0] / 255
        cells = red.reshape(rows, 8, columns, 8).mean((1, 3)) * self.factor
        density = cells.astype(np.float32)
        count = float(density.sum(dtype=np.float64))
        if progress is not None:
            progress(1, 1)
        facts = {"seconds": 0.01, "model": self.name, "device": "cpu", "dtype": "float32"}
        return CountResult(
            count=count,
            density=density,
            width=width,
            height=height,
            tiles=1,
            interval=(count * 0.8, count * 1.25),
            level=0.9,
            notices=notices(pixels, count),
            **facts,
        )


class Slow(PlainCounter):
    """Counts each picture once it may."""

    def __init__(self, at_once: int = 0) -> None:
        super().__init__("slow")
        self.may, self.begun = threading.Semaphore(at_once), list[Any]()

    def count(self, image: Any, progress: Any = None) -> CountResult:
        self.begun.append(image)
        assert self.may.acquire(timeout=60)
        return super().count(image, progress)


def serve(page: gr.Blocks, tries: int = 3, **changes: Any) -> str:
    """Start the page on a free port; its address, with a slash at the end."""
    options = app.launch_options() | {"prevent_thread_lock": True, "quiet": True} | changes
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    try:
        address: str = page.launch(server_name="127.0.0.1", server_port=port, **options)[1]
    except OSError:  # somebody took it meanwhile
        if tries == 1:
            raise
        return serve(page, tries - 1, **changes)
    return address


def fetched(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=60)  # a busy machine is slow


def posted(url: str, **options: Any) -> httpx.Response:
    return httpx.post(url, trust_env=False, timeout=60, **options)


def noise(width: int = 120, height: int = 80, seed: int = 0) -> Image.Image:
    levels = np.random.default_rng((width, seed)).integers(0, 256, (height, width, 3))
    return Image.fromarray(levels.astype(np.uint8))


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def uploaded(name: str, content: bytes) -> dict[str, Any]:
    return {"path": keep_file(name, content), "orig_name": name}


class Request:
    session_hash = "me"


def until(condition: Callable[[], Any]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")


def reds(levels: Iterable[int]) -> list[Image.Image]:
    """Pictures of one colour each."""
    return [Image.new("RGB", (96, 64), (level, 40, 40)) for level in levels]


def film(
    to: Path | IO[bytes],
    pictures: list[Image.Image],
    rate: int = 1,
    codec: str = "libx264",
    kind: str | None = None,
    aspect: Fraction = Fraction(1),
    **options: str,
) -> None:
    """Write a clip of pictures of one size, so many a second."""
    av = pytest.importorskip("av")
    with av.open(to if kind else str(to), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())


def words(html: str) -> str:
    """What somebody reads, without the markup."""
    return re.sub(r"</?b>", "", re.sub(r"<(?!/?b>)[^>]+>", " ", html))


def dots(path: Path, people: int = 40, size: tuple[int, int] = (160, 112)) -> Path:
    """A small picture of coloured dots on grey, as a file."""
    picture = Image.new("RGB", size, (90, 130, 110))
    draw = ImageDraw.Draw(picture)
    for x, y in np.random.default_rng(people).uniform(0, 1, (people, 2)) * size:
        draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=(255, 60, int(y) % 256))
    picture.save(path)
    return path
