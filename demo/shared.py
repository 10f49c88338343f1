"""What every tab uses: uploads, files for download, sentences for visitors."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder
from numpy.typing import NDArray
from PIL import Image

from csrnet_hub import CountResult, ImageError, load_image
from csrnet_hub.datasets import DatasetError

MAX_FILE_SIZE = "50mb"
MAX_WAITING = 32  # visitors; the next one is told that the queue is full
MAX_SESSIONS = 100  # whose last photo is kept for redrawing
CLEAN_EVERY, KEEP_FOR = 600, 3000  # seconds; an upload is gone within the hour
SHOWN = 1280  # pixels, the longer side of a picture on the page

NO_PHOTO = "There is no photo yet. Choose one first: drop it on the page, paste it or take it."
EXPIRED = "This upload is no longer here. Please choose the photo again."
UNEXPECTED = "The photo could not be counted: a fault on the server. Please try again later."
NO_ADDRESS = "Web addresses are not fetched here. Download the file and send the file itself."

COLUMNS = ("image", "count", "low", "high", "width", "height", "model", "seconds", "device")


class VisitorError(ValueError):
    """A visitor's mistake other than a bad picture; the message is for the visitor."""


class Page(gr.Blocks):
    """A page that fetches no web address: Gradio would, for any that a program sends as a file."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kw: Any) -> Any:
        if any(map(has_address, inputs)):
            raise gr.Error(NO_ADDRESS, print_exception=False)
        return await super().preprocess_data(block_fn, inputs, *args, **kw)


def has_address(value: Any) -> bool:
    """Whether a file somewhere in what was sent is given by its web address."""
    if isinstance(value, dict):
        path = value.get("path")
        given = isinstance(path, str) and re.match(r"\s*[a-z][a-z0-9+.-]+:/", path, re.IGNORECASE)
        return bool(given) or any(map(has_address, value.values()))
    return isinstance(value, (list, tuple)) and any(map(has_address, value))


def photo_input(elem_id: str, label: str = "Photo") -> gr.Image:
    """A photo to upload, paste or take; to be used with ``preprocess=False`` and `read_photo`.

    Gradio's own decoding knows no pixel limit and no EXIF orientation, and fails on a broken file
    before the page could say so.
    """
    return gr.Image(
        label=label,
        type="filepath",
        image_mode=None,
        height=380,
        sources=["upload", "clipboard", "webcam"],
        buttons=["fullscreen"],
        alt_text="The photo you chose",
        elem_id=elem_id,
        elem_classes=["photo"],
    )


def plot_output(label: str, alt_text: str, elem_id: str) -> gr.Image:
    """A plot that appears once there is something to plot."""
    return gr.Image(
        label=label,
        show_label=False,
        interactive=False,
        visible=False,
        type="filepath",
        format="png",
        buttons=["download"],
        alt_text=alt_text,
        elem_id=elem_id,
    )


def uploaded_path(upload: Any, missing: str = NO_PHOTO) -> Path:
    """The file behind `{"path": ...}`, as Gradio describes an upload.

    Raises:
        VisitorError: there is none (`missing`), or it has gone.
    """
    if isinstance(upload, dict) and isinstance(upload.get("video"), dict):
        upload = upload["video"]
    if not isinstance(upload, dict) or not upload.get("path"):
        raise VisitorError(missing)
    path = Path(str(upload["path"])).resolve()
    # A program may send any path of the server; only what was uploaded is for it to read.
    if not (path.is_relative_to(Path(get_upload_folder()).resolve()) and path.is_file()):
        raise VisitorError(EXPIRED)
    return path


def upload_name(upload: Any, default: str = "photo") -> str:
    """What the visitor calls an upload, without folders."""
    upload = upload if isinstance(upload, dict) else {}
    name = str(upload.get("orig_name") or Path(str(upload.get("path") or "")).name)
    return name.replace("\\", "/").rsplit("/", 1)[-1][:100] or default


def read_photo(upload: Any, max_pixels: int | None) -> NDArray[np.uint8]:
    """The upright pixels (H, W, 3) of an upload.

    Raises:
        VisitorError: there is none, or it has gone.
        ImageError: it is not a picture within the limit.
    """
    pixels: NDArray[np.uint8] = load_image(uploaded_path(upload), max_pixels=max_pixels)
    return pixels


@contextmanager
def sentences_for_visitors() -> Iterator[None]:
    """Turn a visitor's mistake into its sentence as gr.Error, any other failure into UNEXPECTED."""
    try:
        yield
    except (ImageError, DatasetError, VisitorError) as error:
        text = escape(str(error), quote=False)  # messages are shown as HTML
        raise gr.Error(text, print_exception=False) from None
    except gr.Error:
        raise
    except Exception:
        logging.getLogger(__name__).exception("a photo could not be counted")
        raise gr.Error(UNEXPECTED, print_exception=False) from None


def keep_file(name: str, content: bytes) -> str:
    """Write a file for one visitor where Gradio serves and later removes it; returns its path."""
    folder = Path(get_upload_folder()) / secrets.token_hex(16)  # nobody can guess another's
    folder.mkdir(parents=True)
    safe = re.sub(r"[^\w.,()+ -]", "_", name).strip(". ")[-80:] or "file"
    (folder / safe).write_bytes(content)
    return str(folder / safe)


def png(picture: Image.Image) -> bytes:
    """A picture as a PNG file; quick rather than small."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=3)
    return stream.getvalue()


def jpeg(picture: Image.Image) -> bytes:
    """A picture as a JPEG file."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=88)
    return stream.getvalue()


def npy(density: NDArray[np.float32]) -> bytes:
    """A density map as an .npy file."""
    stream = io.BytesIO()
    np.save(stream, density, allow_pickle=False)
    return stream.getvalue()


def row(name: str, result: CountResult) -> dict[str, Any]:
    """One photo's line of a table; low and high are None for a model without intervals."""
    low, high = result.interval or (None, None)
    values = (result.width, result.height, result.model, round(result.seconds, 3), result.device)
    return dict(zip(COLUMNS, (name, result.count, low, high, *values)))


def to_csv(rows: Iterable[dict[str, Any]], columns: Iterable[str] = COLUMNS) -> bytes:
    """A table as UTF-8 with a mark, so that spreadsheets read names in any script."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(columns), restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in line.items()} for line in rows)
    return stream.getvalue().encode("utf-8-sig")


def _harmless(value: Any) -> Any:
    # A spreadsheet would run a file called "=cmd()" as a formula.
    risky = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if risky else value


def to_json(content: Any) -> bytes:
    """An object as an indented JSON file."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def people(count: float) -> str:
    """`1,234 people`, `1 person`; never a negative number."""
    number = max(0, round(count))
    return f"{number:,} {'person' if number == 1 else 'people'}"


def headline(count: float) -> str:
    """A count as one would say it: `about 1,234 people`."""
    return f"about {people(count)}"


def message_html(text: str, kind: str) -> str:
    """A sentence (HTML) in the place of a result, of kind `waiting` or `problem`."""
    role = "alert" if kind == "problem" else "status"
    return f'<div class="count" role="{role}"><p class="message {kind}">{text}</p></div>'


def colour_bar(top: float, unit: str = "heads in 8 × 8 pixels", kind: str = "jet") -> str:
    """A bar with its numbers; `kind` is `jet` from 0 to `top`, `signed` from -top to top."""
    low = 0.0 if kind == "jet" else -top
    middle = (low + top) / 2
    return (
        f'<div class="scale"><i class="{kind}" aria-hidden="true"></i>'
        f"<span>{low:.2g}</span><span>{middle:.2g}</span><span>{top:.2g} {unit}</span></div>"
    )
