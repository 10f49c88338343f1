"""How much the page takes from anybody: long requests, uploads, their ids."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

pytest.importorskip("gradio", minversion="6")
import gradio as gr
from fastapi import HTTPException, Request
from starlette.datastructures import URL

import app
from demo import files, received, sent, visitors
from demo.batch import MOST as MOST_PHOTOS
from demo.canvas import MOST_POINTS

from .page import PlainCounter, encoded, fetched, noise, posted, serve, until

FORM = {"Content-Type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="files"%s\r\n\r\n%s\r\n'


@pytest.fixture(scope="module")
def url(uploads: Path) -> Iterator[str]:
    page = app.build_app(PlainCounter())
    yield serve(page)
    page.close()


def chunks(*parts: bytes) -> Iterator[bytes]:
    """A body of which no header tells the length."""
    yield from parts


@pytest.mark.parametrize(
    "data",
    [b"[]," * 200_000, b"{}," * 200_000, b'"' + b"x" * received.MOST + b'",'],
    ids=["lists", "dictionaries", "text"],
)
@pytest.mark.parametrize("path", ["call/count", "queue/join", "call/upload", "run/count"])
def test_what_is_too_long_is_refused_before_it_is_read(url: str, path: str, data: bytes) -> None:
    body = chunks(b'{"fn_index": 0, "data": [', data, b"0]}")
    kind = {"Content-Type": "application/json"}
    answer = posted(f"{url}gradio_api/{path}", content=body, headers=kind)
    assert answer.status_code == 413
    assert "too large" in answer.json()["detail"]


def test_what_the_page_sends_at_most_is_taken(url: str) -> None:
    heads = json.dumps([[12345.6787109375 + 1e-12, 0.12345678955316544]] * MOST_POINTS)
    name = "é" * 70 + ".jpg"
    photo = {"path": f"/tmp/{'0' * 64}/{name}", "url": f"{url}gradio_api/file={name}"}
    batch = [photo | {"orig_name": name, "meta": {"_type": "gradio.FileData"}}] * MOST_PHOTOS
    outline = [[1.5, 2.5]] * 10_000
    for data in (heads, batch, outline):
        answer = posted(f"{url}gradio_api/call/count", json={"data": [data, None]})
        assert answer.status_code == 200


def test_tools_are_sent_larger_pictures_as_text() -> None:
    for path, most in (
        ("/gradio_api/mcp/", received.MOST_OF_TOOLS),
        ("/below/gradio_api/mcp", received.MOST_OF_TOOLS),
        ("/gradio_api/mcpx", received.MOST),
    ):
        check = received._check({"type": "http", "path": path, "headers": []})
        check(b"x" * most)
        with pytest.raises(HTTPException, match="too large"):
            check(b"x")


def test_an_upload_is_of_files_alone(url: str) -> None:
    picture = encoded(noise())
    own = PART % (b'; filename="a.png"', picture)
    field = PART % (b"", b"x" * received.MOST_BESIDE_FILES)
    fields = chunks(own, field, PART % (b"", b"x"), b"--b--\r\n")
    refused = posted(f"{url}gradio_api/upload", content=fields, headers=FORM)
    assert (refused.status_code, refused.text) == (413, received.BESIDE_FILES)
    many = [("files", (f"{number}.png", picture)) for number in range(20)]
    assert len(posted(f"{url}gradio_api/upload", files=many).json()) == 20
    large = [("files", ("large.png", bytes(2 * received.MOST)))]
    assert posted(f"{url}gradio_api/upload", files=large).status_code == 200


def test_an_upload_that_is_none_gets_a_sentence(url: str) -> None:
    answer = posted(f"{url}gradio_api/upload", content=chunks(b"no part"), headers=FORM)
    assert (answer.status_code, answer.text) == (400, received.NOT_MULTIPART)


def test_nothing_is_uploaded_to_a_disk_that_is_nearly_full(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = iter([True, False])  # as it begins, and with its first bytes
    monkeypatch.setattr(received, "has_room", lambda: next(room))
    photo = {"files": ("a.png", encoded(noise()))}
    while_it_comes = posted(f"{url}gradio_api/upload", files=photo)
    monkeypatch.setattr(received, "has_room", lambda: False)
    at_once = [posted(f"{url}gradio_api/{path}", files=photo) for path in ("upload", "mcp/")]
    for answer in (while_it_comes, *at_once):
        assert answer.status_code == 507
        assert received.NO_ROOM in answer.text
    assert fetched(f"{url}config").status_code == 200


def test_an_upload_that_is_refused_or_broken_off_on_the_way_leaves_no_file(
    url: str, uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files_there() -> set[Path]:
        return {path for path in uploads.rglob("*") if path.is_file()}

    before, rooms = files_there(), iter([True, True])
    begun = PART % (b'; filename="a.png"', bytes(2**21))
    with monkeypatch.context() as patch:
        patch.setattr(received, "has_room", lambda: next(rooms, False))
        answer = posted(f"{url}gradio_api/upload", content=chunks(begun, b"--b--"), headers=FORM)
    assert (answer.status_code, answer.text) == (507, received.NO_ROOM)
    assert files_there() == before
    server = urlsplit(url)
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {server.netloc}\r\n"
    head += f"Content-Length: 9999999\r\nContent-Type: {FORM['Content-Type']}\r\n\r\n"
    with socket.create_connection((server.hostname, server.port or 80)) as line:
        line.sendall(head.encode() + begun)
        until(lambda: files_there() != before)
    until(lambda: files_there() == before)


def test_there_is_room_as_long_as_the_disk_says_so(
    uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = 100 * files.ROOM, files.ROOM
    for room, total, free in (
        (True, large, files.ROOM + 1),
        (False, large, files.ROOM),
        (True, small, small // 10 + 1),
        (False, small, small // 10),
    ):
        disk = SimpleNamespace(total=total, free=free)
        monkeypatch.setattr(files.shutil, "disk_usage", lambda _, disk=disk: disk)
        assert files.has_room() is room
    monkeypatch.undo()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(uploads / "gone"))
    assert files.has_room()


def test_no_long_id_of_an_upload_is_kept(url: str) -> None:
    kept = gr.routes.file_upload_statuses._signals
    long = "x" * (sent.LONGEST_ID + 1)
    for query in (f"upload_id={long}", f"upload_id={long}&upload_id=x"):
        answer = fetched(f"{url}gradio_api/upload_progress?{query}")
        assert (answer.status_code, answer.json()["detail"]) == (400, sent.LONG_ID)
    assert long not in kept


def test_ids_of_uploads_that_ended_or_never_began_are_dropped(
    uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = gr.routes.FileUploadProgress()
    monkeypatch.setattr(gr.routes, "file_upload_statuses", progress)
    _ = progress._signals["never began"]
    for upload_id in ("ended", "comes"):
        progress.track(upload_id)
    progress.set_done("ended")
    page = app.build_app(PlainCounter())
    # a minute later each time
    for kept in ({"never began", "ended", "comes"}, {"comes"}):
        page._looked -= visitors.LOOK_EVERY
        page._look_after_files()
        assert progress._signals.keys() == kept
    assert progress._statuses.keys() == {"comes"}


def test_no_forged_host_hides_what_is_asked_for() -> None:
    path = {"type": "http", "path": "/gradio_api/deep_link/", "query_string": b"", "headers": []}
    request = Request(path)
    request._url = URL("http://forged?/gradio_api/deep_link")  # as older Starlettes read it
    with pytest.raises(HTTPException) as caught:
        asyncio.run(sent.refuse(request))
    assert caught.value.status_code == 404
