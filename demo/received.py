"""Limits on what is received, checked on arrival, before Gradio stores it in memory or on disk."""

from __future__ import annotations

from typing import NoReturn

import gradio as gr
from fastapi import HTTPException
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .files import NO_ROOM, has_room

UPLOAD, TOOLS = "/gradio_api/upload", "/gradio_api/mcp"
# Bytes of one request: the page sends 3 MB at most (50,000 heads); MCP tools receive pictures as
# text. Each list or dictionary in it takes two bytes, but would need about seventy in memory.
MOST, MOST_OF_TOOLS, MOST_LISTS = 4 * 2**20, 16 * 2**20, 100_000
MOST_BESIDE_FILES = 64 * 2**10  # bytes of an upload's non-file parts; browsers send none
TOO_MUCH = (
    "This request is too large: apart from uploads, it may have {} MB and {:,} lists. Choose fewer "
    "files or points; programs should upload the file first and send the path or address they get."
)
BESIDE_FILES = "An upload may contain only files: give every part a filename."
NOT_MULTIPART = "This upload could not be read: send it as multipart/form-data."


class Bounded:
    """ASGI middleware that answers 413 as soon as a request is too long, and 507 to an upload for
    which the disk has no room, each with a sentence."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif (scope["path"].endswith(UPLOAD) or TOOLS in scope["path"]) and not has_room():
            # plain text, since the page shows it unchanged
            await PlainTextResponse(NO_ROOM, 507)(scope, receive, send)
        else:
            check = _check(scope)

            async def told(message: Message) -> None:
                if check.refused and message["type"] == "http.response.start":
                    message["status"] = check.refused  # Gradio answers 400
                await send(message)

            await self.app(scope, _checked(receive, check), told)


def forget_uploads(seen: set[str]) -> set[str]:
    """Drop the ids of uploads that were `seen` some time ago and have ended or never began, which
    Gradio would keep for ever; return the ids that it still keeps."""
    kept = gr.routes.file_upload_statuses
    for upload_id in seen & kept._signals.keys():
        if upload_id not in kept._statuses or kept.is_done(upload_id):
            kept.stop_tracking(upload_id)
            del kept._signals[upload_id]
    return set(kept._signals)


def _checked(receive: Receive, check: _Size | _Files) -> Receive:
    more = True

    async def checked() -> Message:
        nonlocal more
        message = await receive()
        if more and message["type"] == "http.disconnect":
            check.ended()
        more = message.get("more_body", False)
        if part := message.get("body"):
            check(part)
        return message

    return checked


def _check(scope: Scope) -> _Size | _Files:
    path, kind = scope["path"], Headers(scope=scope).get("content-type")
    if path.endswith(UPLOAD) and kind and kind.lower().startswith("multipart/"):
        return _Files(kind)
    return _Size(MOST_OF_TOOLS if f"{TOOLS}/" in f"{path}/" else MOST)


class _Size:
    refused = 0  # FastAPI turns the HTTPException into the answer

    def __init__(self, most: int) -> None:
        self._most, self._received, self._lists = most, 0, 0

    def ended(self) -> None:
        """It was broken off."""

    def __call__(self, part: bytes) -> None:
        self._received += len(part)
        self._lists += part.count(b"[") + part.count(b"{")
        if self._received > self._most or self._lists > MOST_LISTS:
            raise HTTPException(413, TOO_MUCH.format(self._most // 2**20, MOST_LISTS))


class _Files:
    """Gradio limits the size of each file, but would collect parts without a filename in memory.
    When an upload is refused midway, it removes the files only after a MultiPartException.

    Attributes:
        refused: the status of the answer; 0 while the upload is accepted.
    """

    def __init__(self, content_type: str) -> None:
        self._boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        self._parser: MultipartParser | None = None
        self._name = self._value = b""
        self._is_file, self._beside = False, 0
        self.refused = 0

    def ended(self) -> None:
        """It was broken off."""
        self._refuse(400, NOT_MULTIPART)

    def _refuse(self, status: int, sentence: str) -> NoReturn:
        self.refused = status
        raise MultiPartException(sentence)

    def __call__(self, part: bytes) -> None:
        if not has_room():
            self._refuse(507, NO_ROOM)
        try:
            self._parser = self._parser or self._made()
            self._parser.write(part)
        except FormParserError:
            self._refuse(400, NOT_MULTIPART)
        if max(self._beside, len(self._name) + len(self._value)) > MOST_BESIDE_FILES:
            self._refuse(413, BESIDE_FILES)

    def _made(self) -> MultipartParser:
        return MultipartParser(
            self._boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._add_name,
                "on_header_value": self._add_value,
                "on_header_end": self._end_header,
                "on_part_data": self._count,
            },
        )

    def _begin(self) -> None:
        self._is_file = False

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":  # the last one counts, as in Gradio
            self._is_file = b"filename" in parse_options_header(self._value)[1]
        self._name = self._value = b""

    def _count(self, data: bytes, start: int, end: int) -> None:
        self._beside += 0 if self._is_file else end - start
