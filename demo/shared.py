"""What all tabs use: uploads, tables and sentences for visitors."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csrnet_hub import CountResult, ImageError, count_table, load_image
from csrnet_hub.datasets import DatasetError

from .files import upload_folder

MAX_FILE_SIZE = "50mb"
MAX_WAITING = 32  # visitors; the next one is told that the queue is full
BUSY = (
    "This could not be counted: too many people are waiting, or the connection was lost. Please "
    "try again in a minute."
)
COUNTING = "Counting the people: a few seconds, more for large photos."
# Requested from a phone's camera: the rear one, and Gradio's default size.
CAMERA = {
    "facingMode": {"ideal": "environment"},
    "width": {"ideal": 1920},
    "height": {"ideal": 1440},
}
SHOWN = 1280  # pixels of the longer side of a picture on the page

# Screen readers announce new content only if the element was already a live region.
READ_ALOUD = """\
element.setAttribute("aria-live", "polite");
element.setAttribute("aria-atomic", "true");
"""

NO_PHOTO = "There is no photo yet. Choose one first: drop it on the page, paste it or take it."
EXPIRED = "This upload is no longer here. Please choose the file again."
UNEXPECTED = "Something went wrong on the server. Please try again later."

# As in `csrnet count`, but without the column for saved maps.
COLUMNS = tuple(column for column in count_table.COLUMNS if column != "map")


class VisitorError(ValueError):
    """A visitor's mistake other than a bad picture; the message is for the visitor."""


class NotWantedError(Exception):
    """Whoever asked for a count has left or asked for another, so it is abandoned."""


class EnoughError(Exception):
    """Whoever asked for many counts wants to see the results so far, and no more."""


def photo_input(elem_id: str, label: str = "Photo") -> gr.Image:
    """A photo to upload, paste or take; use it with ``preprocess=False`` and `read_photo`.

    Gradio's own decoding ignores the pixel limit and EXIF orientation, and fails on a broken file
    before the page can say so.
    """
    return gr.Image(
        label=label,
        type="filepath",
        image_mode=None,
        height=380,
        sources=["upload", "clipboard", "webcam"],
        webcam_options=gr.WebcamOptions(mirror=False, constraints={"video": CAMERA}),
        buttons=["fullscreen"],
        alt_text="The photo you chose",
        elem_id=elem_id,
        elem_classes=["photo"],
    )


def noted(*uploads: Any) -> None:
    """Tell the page of files that are chosen but never used, so that it removes them too."""
    for upload in uploads:
        upload.upload(
            lambda _: None,
            upload,
            None,
            preprocess=False,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )


def result_output(text: str, elem_id: str, card: bool = True) -> gr.HTML:
    """The card for a number in large type; it shows `text` until there is a number.

    Args:
        card: False if it is inside another card.
    """
    return gr.HTML(
        message_html(text, "waiting"),
        js_on_load=READ_ALOUD,
        elem_id=elem_id,
        elem_classes=["result"] if card else None,
        padding=False,
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
    """The path of an upload, which Gradio describes as `{"path": ...}`.

    Raises:
        VisitorError: there is no upload (message: `missing`), or its file is gone.
    """
    if not isinstance(upload, dict) or not upload.get("path"):
        raise VisitorError(missing)
    path = Path(str(upload["path"])).resolve()
    # A program may send any path on the server, but may only read uploads.
    if not (path.is_relative_to(upload_folder()) and path.is_file()):
        raise VisitorError(EXPIRED)
    return path


def upload_name(upload: Any, default: str = "photo") -> str:
    """The visitor's name for an upload, without folders."""
    upload = upload if isinstance(upload, dict) else {}
    name = str(upload.get("orig_name") or Path(str(upload.get("path") or "")).name)
    return plain_name(name, default)


def plain_name(name: str, default: str = "photo") -> str:
    """The name of a file that somebody sends, without folders, at most 255 characters."""
    name = name.encode("utf-8", "replace").decode()  # lone surrogates cannot be written
    return name.replace("\\", "/").rsplit("/", 1)[-1][:255] or default


def read_photo(upload: Any, max_pixels: int | None) -> NDArray[np.uint8]:
    """The upright pixels (H, W, 3) of an upload.

    Raises:
        VisitorError: there is no upload, or its file is gone.
        ImageError: it is not a picture within the limit.
    """
    pixels: NDArray[np.uint8] = load_image(uploaded_path(upload), max_pixels=max_pixels)
    return pixels


@contextmanager
def sentences_for_visitors() -> Iterator[None]:
    """Turn a visitor's mistake into a gr.Error with its message, other failures into UNEXPECTED."""
    try:
        yield
    except (ImageError, DatasetError, VisitorError) as error:
        text = escape(str(error), quote=False)  # messages are shown as HTML
        raise gr.Error(text, print_exception=False) from None
    except (gr.Error, NotWantedError, EnoughError):
        raise
    except Exception:
        logging.getLogger(__name__).exception("a visitor's call failed")
        raise gr.Error(UNEXPECTED, print_exception=False) from None


def png(picture: Image.Image) -> bytes:
    """A picture as a PNG file; written fast rather than small."""
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
    """One photo's row of a table; low and high are None if no interval is known to hold."""
    low, high = result.known_interval or (None, None)
    size, seconds = (result.width, result.height), round(result.seconds, 3)
    about = (result.model, seconds, result.device, round(result.scale, 4), list(result.notices))
    return dict(zip(COLUMNS, (name, result.count, low, high, *size, *about)))


def to_csv(rows: Iterable[dict[str, Any]], columns: Iterable[str] = COLUMNS) -> bytes:
    """A table as UTF-8 with a byte order mark, so that spreadsheets read names in any script."""
    stream, names = io.StringIO(newline=""), list(columns)
    plain, quoted = (
        csv.DictWriter(stream, names, restval="", extrasaction="ignore", quoting=quoting)
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC)
    )
    plain.writeheader()
    for line in rows:
        cells = {key: _harmless(value) for key, value in line.items()}
        # a spreadsheet that splits at ; or tabs would read parts of a name as cells, even formulas
        splits = any(isinstance(cell, str) and set(cell) & set(";\t") for cell in cells.values())
        (quoted if splits else plain).writerow(cells)
    return stream.getvalue().encode("utf-8-sig")


def _harmless(value: Any) -> Any:
    value = " ".join(value) if isinstance(value, list) else value
    return f"'{value}" if isinstance(value, str) and is_formula(value) else value


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would run a text, such as the file name "=cmd()", as a formula."""
    return text.startswith(("=", "+", "-", "@", "\t", "\r"))


def to_json(content: Any) -> bytes:
    """An object as an indented JSON file."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def people(count: float) -> str:
    """`1,234 people`, `1 person`; never a negative number."""
    number = max(0, round(count))
    return f"{number:,} {'person' if number == 1 else 'people'}"


def headline(count: float) -> str:
    """A count in words: `about 1,234 people`."""
    return f"about {people(count)}"


def number_html(words: str, below: str = "", more: str = "") -> str:
    """Words with a number in large type, a line of small print (HTML) below, and more HTML."""
    large = re.sub(r"([\d.,]*\d)", r"<b>\1</b>", words, count=1)
    small = f'<p class="exact">{below}</p>' if below else ""
    return f'<div class="count"><p class="people">{large}</p>{more}{small}</div>'


def message_html(text: str, kind: str) -> str:
    """A sentence (HTML) shown instead of a result, of kind `waiting` or `problem`."""
    role = ' role="alert"' if kind == "problem" else ""
    return f'<div class="count"{role}><p class="message {kind}">{text}</p></div>'


def colour_bar(top: float, unit: str = "heads in 8 × 8 pixels", kind: str = "jet") -> str:
    """A labelled colour bar; `kind` is `jet` (0 to `top`) or `signed` (-`top` to `top`)."""
    low = 0.0 if kind == "jet" else -top
    middle = (low + top) / 2
    return (
        f'<div class="scale"><i class="{kind}" aria-hidden="true"></i>'
        f"<span>{low:.2g}</span><span>{middle:.2g}</span><span>{top:.2g} {unit}</span></div>"
    )
