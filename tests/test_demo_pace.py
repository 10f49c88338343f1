"""What is told of a count that is under way, and that one nobody waits for ends. No browser."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio", minversion="6")
import gradio as gr

from csrnet_hub import CountResult
from demo import batch, counted, pace, photo, programs, shared, visitors, wanted
from demo.models import Models

from .page import PlainCounter, Request, encoded, noise, uploaded

PARTS = 4


class PartsCounter(PlainCounter):
    """Counts a picture in parts; `between(done)` runs after each."""

    def __init__(self, between: Any) -> None:
        super().__init__("parts")
        self.between, self.done = between, 0

    def count(self, image: Any, progress: Any = None) -> CountResult:
        for _ in range(PARTS):
            self.done += 1
            self.between(self.done)
            progress(self.done, PARTS)
        return super().count(image)


def test_a_photo_that_is_counted_again_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [0.0], []
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now[0]))
    step = pace.counting(lambda share, desc="", unit="": said.append(desc))
    for of, each in ((9, 1.0), (40, 0.5)):  # first shrunk, then larger
        for done in range(1, of + 1):
            now[0] += each
            step(done, of)
    assert said[5] == "Counting the people, a few seconds left"  # of nine
    assert said[9 + 10] == "Counting the people, about 20 seconds left"  # 10 of 40 in five


def test_the_time_that_a_photo_waits_for_its_turn_is_none_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, said = [0.0], []
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now[0]))
    step = pace.counting(lambda share, desc="", unit="": said.append(desc))
    now[0] = 60.0
    step(0, 1)
    now[0] = 65.0
    step(1, 10)
    assert said[-1] == "Counting the people, about 40 seconds left"


def test_the_size_at_which_a_photo_was_counted_is_told() -> None:
    result = PlainCounter().count(np.zeros((80, 120, 3), np.uint8))
    assert "counted at" not in counted.details_html(result)
    text = counted.details_html(replace(result, scale=0.25))
    assert "120 × 80 pixels, counted at 30 × 20" in text
    assert shared.row("a.png", replace(result, scale=0.25))["scale"] == 0.25


@pytest.mark.parametrize(
    ("seconds", "share", "words"),
    [
        (1.0, 0.5, ""),  # too soon to say
        (30.0, 0.0, ""),
        (30.0, 1.0, ""),
        (5.0, 0.5, ", a few seconds left"),
        (10.0, 0.5, ", about 10 seconds left"),
        (14.0, 0.25, ", about 40 seconds left"),
        (20.0, 0.25, ", about a minute left"),
        (20.0, 0.1, ", about 3 minutes left"),
    ],
)
def test_the_time_left_is_said_as_a_person_would_say_it(seconds, share, words):
    assert pace.time_left(seconds, share) == words


def test_a_long_count_says_how_long_it_will_take(monkeypatch):
    heard: list[str] = []
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    step = pace.counting(lambda value, **words: heard.append(words["desc"]))
    step(1, 7)
    many = pace.Pace(lambda value, **words: heard.append(words["desc"]), 10, "photos")
    many.within(0, "Counting")(1, 2)  # half of one photo of ten in twenty seconds
    assert heard[1] == "Counting the people, about a minute left"
    assert heard[2:] == [
        f"Counting, 0 of 10 photos{left}" for left in ("", ", about 6 minutes left")
    ]


def test_the_parts_of_a_large_photo_are_told_one_after_the_other():
    heard: list[Any] = []
    step = pace.counting(lambda value, **words: heard.append((value, words["desc"])))
    for done in (1, 2):
        step(done, 2)
    step(1, 1)  # a small photo has one part: a bar would jump from nothing to all
    assert [value for value, _ in heard] == [None, (1, 2), (2, 2)]
    assert {words for _, words in heard} == {"Counting the people"}


def test_a_photo_for_which_another_was_chosen_is_counted_no_further(uploads):
    latest = wanted.Latest(1)

    def another(done: int) -> None:
        if done == 2:
            latest.number = 2

    counter = PartsCounter(another)
    run = lambda *inputs, progress: photo._show(Models([counter]), *inputs, progress)  # noqa: E731
    answer = wanted.while_wanted(run, lambda latest, n: ["past"] if latest.is_past(n) else None)
    shown = answer(
        latest,
        1,
        lambda *_, **__: None,
        uploaded("a.png", encoded(noise())),
        None,
        0.5,
        False,
        3,
        3,
    )
    assert shown == ["past"]
    assert counter.done == 2


def test_no_photo_of_many_is_counted_further_once_they_are_removed(uploads):
    latest = wanted.Latest(1)

    def removed(done: int) -> None:
        if done == PARTS + 2:
            latest.number = wanted.CLEARED

    counter = PartsCounter(removed)
    run = lambda files, progress: batch.run(Models([counter]), files, None, progress)  # noqa: E731

    def run_them(files: Any, progress: Any) -> Any:
        yield from run(files, progress)

    answer = wanted.while_wanted(run_them, lambda one, n: ["past"] if one.is_past(n) else None)
    files = [uploaded(f"{i}.png", encoded(noise())) for i in range(3)]
    counter.done = 0
    *_, last = answer(latest, 1, lambda *_, **__: None, files)  # a slow machine shows steps before
    assert last == ["past"]
    assert counter.done == PARTS + 2


@pytest.mark.parametrize("session", ["me", "another"])
def test_a_photo_whose_visitor_has_left_is_counted_no_further(session, uploads, monkeypatch):
    page = visitors.Page()
    counter = PartsCounter(lambda done: page.forget(Request()) if done == 2 else None)
    offered = Models([counter])

    async def call(self: Any, *, session_hash: str) -> Any:
        return await asyncio.to_thread(offered.count, None, np.asarray(noise()))

    monkeypatch.setattr(gr.Blocks, "process_api", call)
    asked = page.process_api(session_hash=session)
    if session == "me":
        with pytest.raises(shared.NotWantedError):
            asyncio.run(asked)
    else:
        assert asyncio.run(asked).count > 0
    assert counter.done == (2 if session == "me" else PARTS)


def test_a_count_that_ended_because_its_visitor_left_is_no_fault(caplog):
    def run(progress: Any) -> list[Any]:
        with shared.sentences_for_visitors():
            raise shared.NotWantedError

    answer = wanted.while_wanted(run, lambda one, n: ["past"] if one.is_past(n) else None)
    assert answer(wanted.Latest(), 1, None) == ["past"]
    with pytest.raises(gr.Error) as caught, programs.sentences_for_programs():
        raise shared.NotWantedError
    assert not caught.value.print_exception
    assert not caplog.text
