"""The demo: a page that counts the people in one photo, and the endpoint /count for programs."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # Gradio reads it while it is imported

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder
from numpy.typing import NDArray

from csrnet_hub import CountResult, CrowdCounter, ImageError, ModelError, load_image
from csrnet_hub.render import colour_top, display_pair

EMBEDDED_MODEL = Path(__file__).resolve().parent / "weights" / "csrnet-partA"
MAX_FILE_SIZE = "50mb"
MAX_WAITING = 32  # visitors; the next one is told that the queue is full
CLEAN_EVERY, KEEP_FOR = 600, 3000  # seconds; an upload is gone within the hour
ANSWER = ("count", "width", "height", "model", "seconds", "device")  # of /count

INTRO = "# Crowd counter\nHow many people are in a photo, and where they stand."
WAITING = "The count appears here."
NOTE = """\
### What the number is worth
It is an estimate: a neural network (CSRNet) draws a density map, and the sum of the map is the
count. It was made for dense crowds seen from some distance. With only a few people, with very
large faces, or with things that repeat like a crowd (foliage, empty seats), it can be far off.
It recognises nobody. Photos are counted on the computer that serves this page and deleted within
the hour.
"""
NO_PHOTO = "There is no photo yet. Choose one first: drop it on the page, paste it or take it."
EXPIRED = "This upload is no longer here. Please choose the photo again."
UNEXPECTED = "The photo could not be counted: a fault on the server. Please try again later."

THEME = gr.themes.Soft(  # fonts of the visitor's system: none is fetched
    primary_hue="blue",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)
CSS = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
.html-container { padding-inline: 0 !important; }
.count { min-height: 4.5rem; overflow-wrap: anywhere; }
.count p, .details p { margin: 0; }
.count .people { font-size: clamp(1.75rem, 6vw, 3rem); font-weight: 700; line-height: 1.2; }
.count .message { font-size: var(--text-lg); }
.count .problem { color: var(--error-text-color); font-weight: 600; }
.exact, .facts, .waiting { color: var(--body-text-color); opacity: .75; }
.details .facts { margin-top: .6rem; overflow-wrap: anywhere; }
.scale { display: flex; flex-wrap: wrap; align-items: center; gap: .25rem .6rem; }
.scale i { flex: 1 1 6rem; height: .6rem; border-radius: .3rem;
  background: linear-gradient(to right, #000080, #0000ff 11%, #00ffff 36%, #80ff80 50%,
    #ffff00 64%, #ff0000 89%, #800000); }
@media (max-width: 640px) { #photo { height: 320px !important; } }
"""
Shown: TypeAlias = tuple[str, dict[str, Any], str]  # number, slider, details


def build_app(counter: CrowdCounter) -> gr.Blocks:
    """Lay out the page around a counter; `launch(**launch_options())` on the result serves it."""

    def clear(text: str) -> Shown:
        return message_html(text, "waiting"), gr.update(value=None, visible=False), ""

    def show(
        upload: dict[str, Any] | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  (Gradio looks for this default)
    ) -> Shown:
        try:
            with sentences_for_visitors():
                progress(0, desc="Reading the photo")
                pixels = read_photo(upload, counter)
                step = partial(progress, desc="Counting the people", unit="parts")
                step(0)
                result = counter.count(pixels, progress=lambda done, of: step((done, of)))
                pair = display_pair(pixels, result.density, max_side=1280)
                return count_html(result), gr.update(value=pair, visible=True), details_html(result)
        except gr.Error as error:  # in the count's place: a toast is gone after ten seconds
            return message_html(error.message, "problem"), gr.update(visible=False), ""

    def count(image: dict[str, Any] | None) -> dict[str, Any]:
        """Count the people in one photo.

        Args:
            image: a JPEG, PNG, WebP, GIF, TIFF or BMP file.

        Returns:
            A dictionary: count (the density map's sum, not rounded), width and height in pixels,
            model, seconds, device.
        """
        with sentences_for_visitors():
            result = counter.count(read_photo(image, counter))
        return {name: getattr(result, name) for name in ANSWER}

    app = gr.Blocks(title="Crowd counter", delete_cache=(CLEAN_EVERY, KEEP_FOR))
    with app:
        gr.Markdown(INTRO)
        with gr.Row():
            with gr.Column():
                photo = gr.Image(
                    label="Photo",
                    type="filepath",
                    image_mode=None,
                    height=420,
                    buttons=["fullscreen"],
                    alt_text="The photo you chose",
                    elem_id="photo",
                )
                button = gr.Button("Count the people", variant="primary", size="lg")
            with gr.Column():
                number = gr.HTML(message_html(WAITING, "waiting"))
                slider = gr.ImageSlider(
                    label="Photo and density map",
                    type="numpy",
                    interactive=False,
                    visible=False,
                    max_height=520,
                    elem_id="comparison",
                )
                details = gr.HTML()
        gr.Markdown(NOTE)
        shown = [number, slider, details]
        aside: dict[str, Any] = {"queue": False, "api_visibility": "private"}
        # preprocess=False: the photo arrives as an uploaded file. Gradio's own decoding knows no
        # pixel limit and fails on a broken file before the page could say so.
        counting: dict[str, Any] = {"preprocess": False, "concurrency_id": "counter"}
        gr.on([photo.upload, button.click], partial(clear, ""), None, shown, **aside).then(
            show, photo, shown, show_progress_on=number, api_visibility="private", **counting
        )
        photo.clear(partial(clear, WAITING), None, shown, **aside)
        answer = gr.JSON(label="result", visible=False)
        gr.Button(visible=False).click(count, photo, answer, api_name="count", **counting)
    app.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    return app


def launch_options() -> dict[str, Any]:
    """What the page asks of `gr.Blocks.launch`: its looks, its limits, nothing recorded."""
    return {
        "theme": THEME,
        "css": CSS,
        "footer_links": ["api", "gradio"],
        "run_history": False,
        "enable_monitoring": False,
        "max_file_size": MAX_FILE_SIZE,
        "show_error": False,  # gr.Error is shown all the same; others might name paths
        "ssr_mode": False,
    }


def read_photo(upload: dict[str, Any] | None, counter: CrowdCounter) -> NDArray[np.uint8]:
    """The upright pixels (H, W, 3) of an upload, `{"path": ...}` as Gradio describes a file.

    Raises:
        ImageError: there is none, it has gone, or it is not a picture within the counter's limit.
    """
    if not upload or not upload.get("path"):
        raise ImageError(NO_PHOTO)
    path = Path(upload["path"]).resolve()
    # A program may send any path of the server; only what was uploaded is for it to read.
    if not (path.is_relative_to(Path(get_upload_folder()).resolve()) and path.is_file()):
        raise ImageError(EXPIRED)
    return load_image(path, max_pixels=counter.max_pixels)


@contextmanager
def sentences_for_visitors() -> Iterator[None]:
    """Turn a bad picture into its sentence as gr.Error, any other failure into UNEXPECTED."""
    try:
        yield
    except ImageError as error:
        text = escape(str(error), quote=False)  # messages are shown as HTML
        raise gr.Error(text, print_exception=False) from None
    except Exception:
        logging.getLogger(__name__).exception("a photo could not be counted")
        raise gr.Error(UNEXPECTED, print_exception=False) from None


def headline(count: float) -> str:
    """A count as one would say it: `about 1,234 people`."""
    people = max(0, round(count))
    return f"about {people:,} {'person' if people == 1 else 'people'}"


def message_html(text: str, kind: str) -> str:
    """A sentence (HTML) in the place of the count, of kind `waiting` or `problem`."""
    role = "alert" if kind == "problem" else "status"
    return f'<div class="count" role="{role}"><p class="message {kind}">{text}</p></div>'


def count_html(result: CountResult) -> str:
    """The count in large type, the unrounded value below it."""
    return (
        f'<div class="count" role="status"><p class="people">{headline(result.count)}</p>'
        f'<p class="exact">{result.count:,.2f} before rounding</p></div>'
    )


def details_html(result: CountResult) -> str:
    """The map's colours, then time, size, model and device."""
    facts = (
        f"{result.seconds:.1f} s",
        f"{result.width:,} × {result.height:,} pixels",
        f"model {escape(result.model)}",
        f"on {escape(result.device)}",
    )
    return (
        '<div class="details"><p class="scale"><span>nobody</span><i aria-hidden="true"></i>'
        f"<span>{colour_top(result.density):.2g} people in 8 × 8 pixels</span></p>"
        f'<p class="facts">{" · ".join(facts)}</p></div>'
    )


def main(argv: list[str] | None = None) -> None:
    """Load the model, serve the page until interrupted."""
    env = os.environ.get
    parser = argparse.ArgumentParser(prog="app.py", description="Serve the crowd-counting page.")
    parser.add_argument(
        "--model",
        default=env("CSRNET_MODEL") or str(EMBEDDED_MODEL),
        help="folder or Hub id (default: CSRNET_MODEL, else the weights in this repository)",
    )
    parser.add_argument("--host", default=env("GRADIO_SERVER_NAME") or "127.0.0.1")
    parser.add_argument("--port", type=int, default=env("GRADIO_SERVER_PORT") or None)
    parser.add_argument("--share", action="store_true", help="also open a public address at Gradio")
    args = parser.parse_args(argv)
    try:
        app = build_app(CrowdCounter.from_pretrained(args.model))
        app.launch(
            server_name=args.host, server_port=args.port, share=args.share, **launch_options()
        )
    except (ModelError, OSError) as error:  # no such model, or the port is taken
        parser.exit(1, f"app.py: {error}\n")


if __name__ == "__main__":
    main()
