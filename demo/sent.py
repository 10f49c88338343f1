"""What pages and programs send: addresses, which are not fetched, and files that lie here."""

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
OWN_ADDRESS = "/gradio_api/file="  # after the server's, before the path
# Of Gradio's, for what this page does not have: each would let anybody fill disk or memory, or have
# the server's ffmpeg read what it likes.
NOT_SERVED = ("process_recording", "deep_link", "component_server")
LONGEST_ID = 64  # characters of an upload's, which Gradio keeps for ever; its own have 13 at most
LONG_ID = f"An upload_id may have at most {LONGEST_ID} characters. Send a shorter one, or none."
NO_ADDRESS = "Web addresses are not fetched here. Download the file and send the file itself."


def is_address(path: Any) -> bool:
    """Whether a file's path is a web address."""
    return isinstance(path, str) and ADDRESS.match(path) is not None


def has_address(value: Any) -> bool:
    """Whether a file somewhere in what was sent is given by its web address."""
    return any(isinstance(part, dict) and is_address(part.get("path")) for part in _parts(value))


def with_own_uploads(value: Any) -> Any:
    """What was sent, with the path of each file that is given by its address in Gradio's folder:
    nothing is fetched, whatever the server in the address, and none but an upload is named."""
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
    """Before every request: none makes the server fetch a file from the web, as Gradio's would, or
    reaches what this page does not have.

    Raises:
        HTTPException: 403, a part of the path is an address; 404, it is one of NOT_SERVED; 400, an
            upload_id is longer than Gradio should keep.
    """
    # not of request.url, which older Starlettes make from a Host header that anybody may forge
    if request.scope["path"].rstrip("/").rpartition("/")[2] in NOT_SERVED:
        raise HTTPException(404)
    if any(len(value) > LONGEST_ID for value in request.query_params.getlist("upload_id")):
        raise HTTPException(400, LONG_ID)
    if any(is_address(value) for value in request.path_params.values()):
        raise HTTPException(403, NO_ADDRESS)


def files_in(value: Any) -> set[str]:
    """The paths of files in Gradio's folder that stand somewhere in nested lists and dictionaries.

    Anybody may send any text, and what is here is removed one day: it must be a file's own place
    there, FOLDER/TOKEN/NAME, and lead nowhere else.
    """
    folder = upload_folder()
    texts = (part for part in _parts(value) if isinstance(part, str))
    near = (text for text in texts if text.startswith(str(folder)))
    return {text for text in near if _lies_in(folder, Path(text))}


def _lies_in(folder: Path, path: Path) -> bool:
    own = path.parent.parent == folder and os.path.normpath(path) == str(path)
    return own and os.path.isfile(path)  # noqa: PTH113  (False for a name that is none)


def _parts(value: Any) -> Iterator[Any]:
    """A value and all that stands in it, however deep: what somebody sends fails nobody's call."""
    rest = [value]
    while rest:
        part = rest.pop()
        yield part
        if isinstance(part, (dict, list, tuple)):
            rest += part.values() if isinstance(part, dict) else part
