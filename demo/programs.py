"""The endpoints for programs, and the tab that describes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from inspect import cleandoc
from typing import Any

import gradio as gr

from csrnet_hub.regions import count_inside

from .canvas import read_outline
from .files import keep_file
from .models import Models
from .parts import check_corners
from .shared import (
    BUSY,
    MAX_FILE_SIZE,
    NotWantedError,
    VisitorError,
    npy,
    read_photo,
    sentences_for_visitors,
    upload_name,
)
from .turns import MOST_OF_ONE, PHOTOS

ADDRESS = "ADDRESS OF THIS PAGE"
SNIPPET = f"""\
from gradio_client import Client, handle_file

client = Client("{ADDRESS}")
answer = client.predict(handle_file("crowd.jpg"), api_name="/count")
print(answer["count"], answer["interval"])
"""
SHELL = f"""\
page="{ADDRESS}"
api="${{page%/}}/gradio_api"
file=$(curl -sSF "files=@crowd.jpg" "$api/upload" | cut -d '"' -f 2)
photo='{{"path": "'"$file"'", "meta": {{"_type": "gradio.FileData"}}}}'
call=$(curl -sS "$api/call/count" -H "Content-Type: application/json" \\
    -d '{{"data": ['"$photo"', null]}}' | cut -d '"' -f 4)
curl -sSN "$api/call/count/$call"
"""
ABOUT = """\
## From a program
Install `gradio_client` (`pip install gradio_client`) and send the file itself; web addresses are
not fetched. `/count` gives the count with its interval, `/density_map` the map as an `.npy` file,
`/count_part` the count inside an outline. In a shell, use `curl`: the answer follows `data:`.
`null` selects the first model; or give a name from the *Models* tab, such as `"csrnet-mine"`.
"""
LIMITS = f"""\
Files may be up to {MAX_FILE_SIZE.replace("mb", " MB")}. If a photo cannot be counted, the answer is
`event: error` with a message (in Python an `AppError`). Photos are counted one at a time; each
client may have {MOST_OF_ONE} calls waiting (all `curl` calls count as one client). Further calls
get status 503 (in Python `Queue is full!`): wait and resend. A private Space needs a token:
`Client(..., token="hf_...")`, or `-H "Authorization: Bearer hf_..."` with each `curl`.

If the page was started with `--mcp`, assistants find all three as MCP tools at `gradio_api/mcp/`
below this address. They send a picture as a `data:` URL, or upload it here and send the address
they get.
"""
# Runs in the browser, which knows the page's address.
FILL_IN = (
    f"() => {json.dumps([SNIPPET, SHELL])}"
    f".map(text => text.replace('{ADDRESS}', () => location.origin + location.pathname))"
)
ANSWER = ("count", "width", "height", "model", "seconds", "device", "scale")


@contextmanager
def sentences_for_programs() -> Iterator[None]:
    """As `sentences_for_visitors`, but do not log an error when a program has left."""
    try:
        with sentences_for_visitors():
            yield
    except NotWantedError:
        raise gr.Error(BUSY, print_exception=False) from None


def count(models: Models, image: Any, model: Any = None) -> dict[str, Any]:
    """Count the people in one photo.

    Args:
        image: a picture file (JPEG, PNG, WebP, HEIC, AVIF, TIFF, GIF, BMP).
        model: name of one of the page's models; the first if it is left out.

    Returns:
        A dictionary: count (the sum of the density map, not rounded), width and height in pixels,
        model, seconds, device, scale (the factor by which the photo's sides were multiplied for
        counting), interval (the prediction interval [low, high] in heads, or null if none is known
        to hold), its level, and notices (sentences on how the photo differs from those that the
        interval was calibrated on).
    """
    with sentences_for_programs():
        pixels = read_photo(image, models.find(model).max_pixels)
        result = models.count(model, pixels)
        answer = {name: getattr(result, name) for name in ANSWER}
        answer["interval"] = result.known_interval and [*result.known_interval]
        return answer | {"level": result.level, "notices": list(result.notices)}


def density_map(models: Models, image: Any, model: Any = None) -> str:
    """Draw the density map of one photo.

    Args:
        image: a picture file (JPEG, PNG, WebP, HEIC, AVIF, TIFF, GIF, BMP).
        model: name of one of the page's models; the first if it is left out.

    Returns:
        An .npy file: (ceil(height / 8), ceil(width / 8)) float32, heads per cell of 8 x 8 pixels.
    """
    with sentences_for_programs():
        result = models.count(model, read_photo(image, models.find(model).max_pixels))
        stem = upload_name(image).rsplit(".", 1)[0]
        return keep_file(f"{stem}-density.npy", npy(result.density))


def count_part(models: Models, image: Any, outline: Any, model: Any = None) -> dict[str, float]:
    """Count the people inside an outline.

    Args:
        image: a picture file (JPEG, PNG, WebP, HEIC, AVIF, TIFF, GIF, BMP).
        outline: the corners [[x, y], ...] in pixels of the upright photo, three to 10,000.
        model: name of one of the page's models; the first if it is left out.

    Returns:
        A dictionary: inside, outside and count (their sum), in heads.
    """
    with sentences_for_programs():
        corners = read_outline(outline)
        if len(corners) < 3:
            raise VisitorError("An outline needs at least three corners, [[x, y], ...] in pixels.")
        pixels = read_photo(image, models.find(model).max_pixels)
        check_corners(corners, len(pixels))
        result = models.count(model, pixels)
        inside = count_inside(result.density, corners, result.height, result.width)
        return {"inside": inside, "outside": result.count - inside, "count": result.count}


def described(function: Any) -> str:
    """An endpoint's name and description, as Markdown."""
    text = cleandoc(function.__doc__ or "")
    return f"### /{function.__name__}\n```text\n{text}\n```\n"


def layout(models: Models) -> None:
    """Lay out the tab and define the endpoints /count, /density_map and /count_part."""
    gr.Markdown(ABOUT)
    snippet = gr.Code(SNIPPET, language="python", label="In Python", interactive=False)
    shell = gr.Code(SHELL, language="shell", label="In a shell", interactive=False)
    gr.on(None, None, None, [snippet, shell], js=FILL_IN, api_visibility="private")
    gr.Markdown(LIMITS)
    gr.Markdown("".join(map(described, (count, density_map, count_part))))
    with gr.Column(visible=False):
        image = gr.File(label="image")
        model = gr.Dropdown(models.names, value=models.names[0], label="model")
        outline = gr.JSON(label="outline")
        answer, array = gr.JSON(label="result"), gr.File(label="density map")
        button = gr.Button()
    options: dict[str, Any] = {"preprocess": False, "concurrency_id": PHOTOS}
    for function, inputs, output in (
        (count, [image, model], answer),
        (density_map, [image, model], array),
        (count_part, [image, outline, model], answer),
    ):
        call: Any = partial(function, models)
        # MCP reads a tool's name and the descriptions of its parameters from here
        call.__name__ = function.__name__
        call.__doc__ = function.__doc__
        button.click(
            call,
            inputs,
            output,
            api_name=function.__name__,
            api_description=cleandoc(function.__doc__ or ""),
            **options,
        )
