"""What pages and programs send: web addresses, which are not fetched, and files stored here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fastapi import HTTPException, Request

from .files import upload_folder

ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
OWN_ADDRESS = "/gradio_api/file="  # between the server's address and the path
# Gradio routes for features that this page lacks: each would let anyone fill disk or memory, keep
# the server busy, or make its ffmpeg read arbitrary input.
NOT_SERVED = ("process_recording", "deep_link", "component_server", "reload")
LONGEST_ID = 64  # characters; Gradio keeps an upload's id for ever; its own have 13 at most
LONG_ID = f"An upload_id may have at most {LONGEST_ID} characters. Send a shorter one, or none."
NO_ADDRESS = "Web addresses are not fetched here. Download the file and send the file itself."


def is_address(path: Any) -> bool:
    """Whether a file's path is a web address."""
    return isinstance(path, str) and ADDRESS.match(path) is not None


def has_address(value: Any) -> bool:
    """Whether any file in what was sent is given by a web address."""
    return any(isinstance(part, dict) and is_address(part.get("path")) for part in _parts(value))


def with_own_uploads(value: Any) -> Any:
    """What was sent, with the address of each upload replaced by its path in Gradio's folder.
    Nothing is fetched, whatever server the address names, and only uploads can be named."""
    if isinstance(value, list):
        return [with_own_uploads(part) for part in value]
    if not isinstance(value, dict):
        return value
    server, _, path = str(value.get("path")).rpartition(OWN_ADDRESS)
    own = server.startswith(("http://", "https://")) and not set("?#") & {*server, *path}
    path = unquote(path) if own else ""
    if files_in(path) and Path(path).is_file():
        return {"path": path, "orig_name": Path(path).name, "meta": {"_type": "gradio.FileData"}}
    return {key: with_own_uploads(part) for key, part in value.items()}


async def refuse(request: Request) -> None:
    """Check every request, so that none makes the server fetch a file from the web, as Gradio
    would, or reaches a route that this page does not need.

    Raises:
        HTTPException: 403 if a part of the path is an address, 404 for a route in NOT_SERVED, 400
            if an upload_id is longer than Gradio should keep.
    """
    # not from request.url, which older Starlettes build from a Host header that anyone may forge
    if request.scope["path"].rstrip("/").rpartition("/")[2] in NOT_SERVED:
        raise HTTPException(404)
    if any(len(value) > LONGEST_ID for value in request.query_params.getlist("upload_id")):
        raise HTTPException(400, LONG_ID)
    if any(is_address(value) for value in request.path_params.values()):
        raise HTTPException(403, NO_ADDRESS)


def files_in(value: Any) -> set[str]:
    """The paths of files in Gradio's folder found anywhere in nested lists and dictionaries.

    Anyone may send any text, and the files found here are later removed: a path must have the form
    FOLDER/TOKEN/NAME and lead nowhere else.
    """
    folder = upload_folder()
    texts = (part for part in _parts(value) if isinstance(part, str))
    near = (text for text in texts if text.startswith(str(folder)))
    return {text for text in near if _lies_in(folder, Path(text))}


def _lies_in(folder: Path, path: Path) -> bool:
    own = path.parent.parent == folder and os.path.normpath(path) == str(path)
    return own and os.path.isfile(path)  # noqa: PTH113  (False for an invalid name)


def _parts(value: Any) -> Iterator[Any]:
    """A value and everything nested in it; without recursion, so that no depth can cause an
    error."""
    rest = [value]
    while rest:
        part = rest.pop()
        yield part
        if isinstance(part, (dict, list, tuple)):
            rest += part.values() if isinstance(part, dict) else part
