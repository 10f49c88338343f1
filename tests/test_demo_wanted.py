"""Asking again while a count is under way, and what is noted of an upload. No browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

pytest.importorskip("gradio", minversion="6")
import gradio as gr

import app
from demo import batch, shared, wanted

from .page import PlainCounter


@pytest.fixture(scope="module")
def page(uploads: Any) -> Iterator[gr.Blocks]:
    page = app.build_app(PlainCounter("first"))
    yield page
    page.close()


@pytest.fixture
def latest() -> wanted.Latest:
    return wanted.Latest(1)


def instead(latest: wanted.Latest, number: int) -> list[Any] | None:
    return ["past"] if latest.is_past(number) else None


def test_the_answer_for_an_earlier_photo_is_left_out(latest):
    def run(photo: str, progress: Any) -> list[Any]:
        if photo == "counted while another is chosen":
            latest.number = 3
        return [photo]

    answer = wanted.while_wanted(run, instead)
    assert answer(latest, 1, None, "alone") == ["alone"]
    latest.number = 2
    assert answer(latest, 2, None, "counted while another is chosen") == ["past"]
    assert answer(latest, 3, None, "the other") == ["the other"]
    assert answer(wanted.Latest(), 7, None, "kept nowhere") == ["kept nowhere"]


def test_what_nobody_wants_any_more_is_not_begun_and_goes_no_further(latest):
    def run(photos: list[str], progress: Any) -> Any:
        for name in photos:
            begun.append(name)
            yield [name]

    begun: list[str] = []
    answer = wanted.while_wanted(run, instead)
    latest.number = 2
    assert list(answer(latest, 1, None, ["waited in the queue"])) == [["past"]]
    assert not begun
    steps = answer(latest, 2, None, ["a", "b", "c", "d"])
    assert [next(steps), next(steps)] == [["a"], ["b"]]
    latest.number = 4
    assert list(steps) == [["past"]]
    assert begun == ["a", "b", "c"]
    assert wanted.while_wanted(begun.append, instead)(latest, 3, None, "d") == ["past"]
    assert "d" not in begun


def test_whoever_stops_a_request_gets_what_there_is_and_a_later_one_runs_on(latest):
    def run(photos: list[str], progress: Any) -> Any:
        done: list[str] = []
        with suppress(shared.EnoughError):
            for name in photos:
                progress(0.5)
                done.append(name)
                yield [*done]
        yield [*done, "the end"]

    answer = wanted.while_wanted(run, instead)
    steps = answer(latest, 1, lambda share: None, ["a", "b", "c"])
    assert [next(steps), next(steps)] == [["a"], ["a", "b"]]
    shown = partial(wanted._with_button, 1, batch.nothing)
    button, *rest = wanted._enough(shown, "Choose.", latest, 1, 2)
    assert (button["value"], button["interactive"]) == (wanted.STOPPING, False)
    assert rest == [gr.skip()] * 5
    assert list(steps) == [["a", "b", "the end"]]
    latest.number = 2
    assert list(answer(latest, 2, lambda share: None, ["d"])) == [["d"], ["d", "the end"]]


def test_the_stop_button_stays_for_a_later_request(latest):
    def run(progress: Any) -> Any:
        yield ["counted"]

    answer = wanted.while_wanted(run, instead)
    assert wanted._hide(latest) == gr.skip()
    list(answer(latest, 1, None))
    assert wanted._hide(latest)["visible"] is False
    latest.number = 3
    list(answer(latest, 2, None))  # given up, since a third is asked for
    assert wanted._hide(latest) == gr.skip()
    list(answer(latest, 3, None))
    assert wanted._hide(latest)["visible"] is False
    for unknown in (wanted.Latest(wanted.CLEARED), wanted.Latest()):
        assert wanted._hide(unknown)["visible"] is False


def test_a_request_that_waits_for_its_turn_is_given_up_at_once(latest):
    def run(progress: Any) -> Any:
        pytest.fail("it was given up")
        yield

    shown = partial(wanted._with_button, 1, batch.nothing)
    answer = wanted.while_wanted(run, instead)
    for given_up in (
        lambda: wanted._enough(shown, "Choose.", latest, 1, 2),
        lambda: wanted._stop(shown, "Choose.", latest, 2),
    ):
        latest.number = 1
        button, sentence, *_ = given_up()
        assert button["visible"] is False
        assert "Choose." in sentence
        assert latest.number == wanted.CLEARED
        assert list(answer(latest, 1, None)) == [["past"]]
        latest.begun = latest.done = 0


def test_removing_the_photos_leaves_what_was_counted(latest):
    shown = partial(wanted._with_button, 1, batch.nothing)
    list(wanted.while_wanted(lambda progress: (yield ["counted"]), instead)(latest, 1, None))
    button, *rest = wanted._enough(shown, "Choose.", latest, 1, 2)  # pressed as it ended
    assert button["visible"] is False
    assert rest == [gr.skip()] * 5
    assert wanted._stop(shown, "Choose.", latest, 2) == [gr.skip()] * 6


def test_a_request_that_the_server_has_forgotten_can_be_stopped():
    latest = wanted.Latest()
    shown = partial(wanted._with_button, 1, batch.nothing)
    assert wanted._enough(shown, "Choose.", latest, 7, 8)[0]["value"] == wanted.STOPPING
    assert latest.enough == 7
    assert wanted._enough(shown, "Choose.", wanted.Latest(), 0, 1)[0]["visible"] is False


def test_a_removed_photo_leaves_no_count_and_a_later_request_its_own_sentence():
    nothing = batch.nothing
    shown = wanted._instead(nothing, "Choose one.", wanted.Latest(wanted.CLEARED), 1)
    assert "Choose one." in shown[0]
    assert wanted._instead(nothing, "Choose one.", wanted.Latest(2), 1) == [gr.skip()] * 5
    assert wanted._instead(nothing, "Choose one.", wanted.Latest(1), 1) is None


def test_another_file_empties_the_tab_and_stops_the_count_before_and_not_the_one_after():
    shown = partial(wanted._with_button, 0, batch.nothing)
    nothing_new = [gr.skip()] * 5
    for latest in (wanted.Latest(), wanted.Latest(3, heard=3), wanted.Latest(0, heard=3)):
        assert "Choose one." in wanted._empty(shown, "Choose one.", latest, 4)[0]
        assert latest.is_past(3)
        # asked for before the file came, and heard after it
        assert wanted._begin(shown, "Counting.", latest, 2) == nothing_new
        assert latest.is_past(2)
        assert "Counting." in wanted._begin(shown, "Counting.", latest, 6)[0]
        for came_late in (wanted._empty, wanted._stop):
            assert came_late(shown, "Choose one.", latest, 5) == nothing_new
        assert wanted._enough(shown, "Choose one.", latest, 4, 5) == nothing_new
        assert latest.enough is None
        assert not latest.is_past(6)
        assert wanted._begin(shown, "Counting.", latest, 5) == nothing_new
        assert not latest.is_past(6)


def test_a_failure_is_said_unless_something_else_is_shown_by_then(latest):
    shown = partial(wanted._with_button, 0, batch.nothing)
    assert shared.BUSY in wanted._failed(shown, wanted.Latest(), 1)[0]
    latest.begun = latest.heard = 1  # the connection was lost
    assert shared.BUSY in wanted._failed(shown, latest, 1)[0]
    latest.heard = 2  # stopped, and the connection was lost then
    assert shared.BUSY in wanted._failed(shown, latest, 1)[0]
    removed, later = wanted.Latest(wanted.CLEARED, heard=2), wanted.Latest(2, heard=2)
    latest.number = 2
    wanted.while_wanted(lambda progress: ["counted"], instead)(latest, 2, None)
    for gone, number in ((removed, 1), (later, 1), (latest, 2)):
        assert wanted._failed(shown, gone, number) == [gr.skip()] * 5


def test_no_request_is_dropped_while_an_earlier_one_is_answered(page):
    counts = [fn for fn in page.fns.values() if fn.concurrency_id in ("counter", "batches")]
    counts = [fn for fn in counts if fn.api_visibility == "private"]
    assert len(counts) == 6  # a photo chosen or drawn, many, a comparison asked or drawn, a clip
    for count in counts:
        assert count.trigger_mode == "multiple"
        assert page.fns[count.trigger_after].trigger_mode == "multiple"


def test_every_upload_is_noted_as_soon_as_it_is_there(page):
    noted = {
        target
        for fn in page.fns.values()
        for target, event in fn.targets
        if event == "upload" and not fn.queue and target in [one._id for one in fn.inputs]
    }
    boxes = {
        block._id
        for block in page.blocks.values()
        if getattr(block, "interactive", None) is not False
        and isinstance(block, (gr.Image, gr.File, gr.Video))
        and block.elem_id
    }
    assert len(boxes) == 7
    assert boxes == noted
