"""Who waits for the network, and what a server on the open web owes those who wait."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio", minversion="6")

import app
from demo import sent, shared, turns, visitors
from demo.files import FILLING, sweep
from demo.turns import Turns

from .page import PlainCounter, Slow, dots, fetched, posted, serve, until


@pytest.fixture
def slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Slow, visitors.Page, Turns]]:
    """A counter that waits, its page, and those whose turn it is."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    counter, line = Slow(), Turns()
    monkeypatch.setattr("demo.models.Turns", lambda: line)
    page = app.build_app(counter)
    yield counter, page, line
    for _ in range(999):
        counter.may.release()
    page.close()


def uploaded(api: str, photo: Path) -> dict[str, Any]:
    (path,) = posted(f"{api}upload", files={"files": (photo.name, photo.read_bytes())}).json()
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def number_of(page: visitors.Page, name: str) -> int:
    (number,) = (number for number, fn in page.fns.items() if fn.api_name == name)
    return number


def test_whoever_asked_first_comes_first_and_a_batch_lets_others_in_between() -> None:
    line, order, waits = Turns(), [], threading.Event()

    def batch() -> None:
        for i in range(3):
            with line.turn(lambda: None):
                order.append(f"batch {i}")
                if i == 0:
                    waits.set()
                    until(lambda: len(line._line) == 2)

    long = threading.Thread(target=batch, daemon=True)
    long.start()
    assert waits.wait(10)
    with line.turn(lambda: None):
        order.append("one photo")
    long.join(60)
    assert order == ["batch 0", "one photo", "batch 1", "batch 2"]


def test_a_turn_that_is_given_up_holds_nobody_back() -> None:
    line = Turns()

    def gone() -> None:
        raise shared.NotWantedError

    with line.turn(lambda: None), pytest.raises(shared.NotWantedError), line.turn(gone):
        pass
    with line.turn(gone):
        pass  # nobody is before it


def ask_batch(api: str, page: visitors.Page, session: str, files: list[dict[str, Any]]) -> None:
    batch = next(n for n, fn in page.fns.items() if fn.concurrency_id == turns.BATCHES)
    asked = {"fn_index": batch, "session_hash": session, "data": [None, 1, files, None]}
    assert posted(f"{api}queue/join", json=asked).status_code == 200


def answer(api: str, event: str) -> Any:
    told = fetched(f"{api}call/count/{event}").text
    name, content = told.strip().splitlines()[-2:]
    assert name == "event: complete", told
    return json.loads(content.removeprefix("data: "))[0]


def test_a_photo_is_counted_between_the_photos_of_a_batch(
    slow: tuple[Slow, visitors.Page, Turns], tmp_path: Path
) -> None:
    counter, page, line = slow
    api = f"{serve(page)}gradio_api/"
    file = uploaded(api, dots(tmp_path / "a.png"))
    ask_batch(api, page, "batch", [file] * 9)
    until(lambda: counter.begun)
    event = posted(f"{api}call/count", json={"data": [file, None]}).json()["event_id"]
    until(lambda: len(line._line) == 2)
    for _ in range(2):  # a photo of the batch, and the one
        counter.may.release()
    assert answer(api, event)["count"] > 0
    until(lambda: len(line._line) == 1)  # the batch goes on


def test_a_full_line_for_counts_keeps_nobody_from_the_rest(
    slow: tuple[Slow, visitors.Page, Turns], tmp_path: Path
) -> None:
    _, page, _ = slow
    api = f"{serve(page)}gradio_api/"
    file = uploaded(api, dots(tmp_path / "a.png"))
    count = {"fn_index": number_of(page, "count"), "data": [file, None]}
    sessions = [f"visitor {i}" for i in range(shared.MAX_WAITING + 2)]
    codes = [
        posted(f"{api}queue/join", json=count | {"session_hash": one}).status_code
        for one in sessions
    ]
    assert codes[: shared.MAX_WAITING] == [200] * shared.MAX_WAITING
    assert codes[-1] == 503
    lines = (None, turns.PHOTOS, turns.BATCHES)
    other = next(n for n, fn in page.fns.items() if fn.queue and fn.concurrency_id not in lines)
    rest = {"fn_index": other, "session_hash": "one more", "data": [None] * 9}
    assert posted(f"{api}queue/join", json=rest).status_code == 200


def test_calls_that_name_no_session_take_no_more_places_than_one_page(
    slow: tuple[Slow, visitors.Page, Turns], tmp_path: Path
) -> None:
    _, page, _ = slow
    api = f"{serve(page)}gradio_api/"
    data = {"data": [uploaded(api, dots(tmp_path / "a.png")), None]}
    answers = [posted(f"{api}call/count", json=data) for _ in range(turns.MOST_OF_ONE + 2)]
    assert answers[-1].status_code == 503
    assert "gradio_client" in answers[-1].json()["detail"]
    assert sum(one.status_code == 200 for one in answers) <= turns.MOST_OF_ONE + 1  # one is counted
    named = data | {"session_hash": "somebody", "fn_index": number_of(page, "count")}
    assert posted(f"{api}queue/join", json=named).status_code == 200


@pytest.fixture(scope="module")
def page(uploads: Path) -> Iterator[tuple[visitors.Page, str]]:
    page = app.build_app(PlainCounter("plain"))
    yield page, f"{serve(page)}gradio_api/"
    page.close()


@pytest.mark.parametrize("path", ["http://192.0.2.1/a.jpg", "HTTPS://192.0.2.1/a", "ftp://a/b"])
@pytest.mark.parametrize("route", ["file=", "file/"])
def test_nobody_makes_the_server_fetch_a_file_from_the_web(
    route: str, path: str, page: tuple[visitors.Page, str]
) -> None:
    answer = fetched(f"{page[1]}{route}{path}")
    assert answer.status_code == 403
    assert answer.json() == {"detail": sent.NO_ADDRESS}


@pytest.mark.parametrize("route", [*sent.NOT_SERVED, "dev/reload"])
def test_what_gradio_has_and_this_page_has_not_is_not_there(
    route: str, page: tuple[visitors.Page, str]
) -> None:
    """Such as what hands anything that is sent to the server's ffmpeg."""
    assert fetched(f"{page[1]}{route}?session_hash=a").status_code in (404, 405)
    files = {"video": ("a.mp4", b"#EXTM3U")}
    assert posted(f"{page[1]}{route}", files=files).status_code in (404, 405)


def test_no_call_goes_past_the_queue(page: tuple[visitors.Page, str], tmp_path: Path) -> None:
    file = uploaded(page[1], dots(tmp_path / "a.png"))
    assert posted(f"{page[1]}run/count", json={"data": [file, None]}).status_code == 404
    served = fetched(f"{page[1]}file={file['path']}")
    assert served.status_code == 200
    assert served.content == (tmp_path / "a.png").read_bytes()


def test_calls_without_a_page_push_nobodys_photo_out(
    page: tuple[visitors.Page, str], tmp_path: Path
) -> None:
    data = {"data": [uploaded(page[1], dots(tmp_path / "a.png")), None]}
    held = page[0].state_holder
    before = len(held.session_data)
    for _ in range(3):
        answer(page[1], posted(f"{page[1]}call/count", json=data).json()["event_id"])
    assert len(held.session_data) == before
    assert len(held.time_last_used) == before


def test_the_files_of_a_batch_that_runs_or_waits_do_not_grow_old(
    slow: tuple[Slow, visitors.Page, Turns], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter, page, _ = slow
    api = f"{serve(page)}gradio_api/"
    runs, waits, neither = (uploaded(api, dots(tmp_path / f"{n}.png", n)) for n in (5, 6, 7))
    ask_batch(api, page, "runs", [runs] * 2)
    ask_batch(api, page, "waits", [waits] * 2)
    until(lambda: counter.begun)
    for file in (runs, waits, neither):
        os.utime(file["path"], (1, 1))
    monkeypatch.setattr(visitors, "LOOK_EVERY", 0.0)
    page._look_after_files()
    ages = [Path(file["path"]).stat().st_mtime for file in (runs, waits, neither)]
    assert ages[0] > time.time() - 600
    assert ages[1] > time.time() - 600
    assert ages[2] == 1


def test_what_a_call_names_and_no_visitor_sent_is_left_as_it_is(
    slow: tuple[Slow, visitors.Page, Turns], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter, page, _ = slow
    api = f"{serve(page)}gradio_api/"
    other = dots(tmp_path / "server's own.png")
    os.utime(other, (1, 1))
    sent = [str(tmp_path / "uploads" / end) for end in ("\0", "\ud800", f"../{other.name}")]
    bad = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in sent]
    calls = {"fn_index": number_of(page, "count"), "session_hash": "s"}
    file = uploaded(api, dots(tmp_path / "a.png"))
    posted(f"{api}queue/join", json=calls | {"data": [file, None]})
    until(lambda: counter.begun)
    monkeypatch.setattr(visitors, "LOOK_EVERY", 0.0)
    for one in bad:
        asked = json.dumps(calls | {"data": [one, None]})  # half a character stays one
        typed = {"Content-Type": "application/json"}
        posted(f"{api}queue/join", content=asked, headers=typed)
    page._look_after_files()
    assert other.stat().st_mtime == 1


def test_on_zerogpu_one_who_waits_shuts_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradio.utils.is_zero_gpu_space", lambda: True)
    assert app.build_app(PlainCounter("plain"))._queue.max_size is None


def test_of_an_upload_that_has_gone_no_folder_tells_what_it_was(
    uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, fresh, kept = (uploads / (one * 64) for one in "012")
    for folder in (gone, fresh, kept):
        folder.mkdir()
    (kept / "a.jpg").write_bytes(b"x")
    later = time.time() + FILLING + 1
    os.utime(fresh, (later, later))
    monkeypatch.setattr("demo.files.time", SimpleNamespace(time=lambda: later))
    sweep()
    assert [one.exists() for one in (gone, fresh, kept)] == [False, True, True]
