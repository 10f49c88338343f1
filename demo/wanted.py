"""Counts requested by a visitor: if there are several in one tab, only the last answer is shown."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from .happened import HAPPENED, Heard, numbering
from .pace import Tell
from .shared import BUSY, COUNTING, EnoughError, NotWantedError
from .turns import PHOTOS

CLEARED = 0
STOP = "Stop and show results so far"
STOPPING = "Stopping after this one"


@dataclass
class Latest(Heard):
    """A visitor's requests in a tab, identified by numbers assigned by the browser.

    Attributes:
        number: the latest request; CLEARED once the upload was removed, None if not known, for
            example because the server had too many visitors to keep it.
        begun, done, answered: the latest request that has started, ended, and ended successfully.
        enough: the request that the visitor has stopped to see the results so far.
    """

    number: int | None = None
    begun: int = 0
    done: int = 0
    answered: int = 0
    enough: int | None = None

    def is_past(self, number: int) -> bool:
        """Whether the answer to request `number` is no longer wanted."""
        return self.number is not None and self.number != number


def count_when(
    asked: list[Callable[..., Any]],
    nothing: Callable[..., list[Any]],
    run: Callable[..., Any],
    inputs: list[Any],
    outputs: list[Any],
    show_on: Any,
    waiting: str,
    meanwhile: str = COUNTING,
    cleared: tuple[Callable[..., Any], ...] = (),
    changed: tuple[Callable[..., Any], ...] = (),
    line: str = PHOTOS,
    stop: gr.Button | None = None,
) -> None:
    """Wire a count to events: first show that it is running, then call `run` in the queue.

    If the visitor asks again while a count is running, only the last request is answered.

    Args:
        asked: the events' listeners, such as `button.click`.
        nothing: returns `outputs` for a sentence and its kind, as in `message_html`.
        run: returns `outputs` for `inputs`, or yields them step by step; also takes `progress`.
        show_on: where progress and the place in the queue are shown.
        waiting: the sentence shown instead of a stopped count.
        meanwhile: the sentence shown while the count is running.
        cleared: listeners of events that stop a count requested before them, such as
            `photos.clear`; results that are already there stay.
        changed: listeners of events that stop it too, after which `waiting` is shown, such as
            `photo.upload`. Gradio calls an event's listeners one after another: others of the same
            event, including those in `asked`, follow these.
        line: the queue in which it waits, from `turns`.
        stop: a hidden button, shown while the count is running. When it is pressed, `progress`
            raises an EnoughError to make `run` show its results; a waiting count is given up.
    """
    latest = gr.State(Latest())
    number = gr.Number(visible=False)  # placeholder for the browser's number
    own = f"window.asked{number._id}"  # the number of this tab's last request
    aside: dict[str, Any] = {"queue": False, "api_visibility": "private"}
    quiet = {"trigger_mode": "multiple", "show_progress": "hidden", **aside}
    numbered: dict[str, Any] = {"js": numbering(HAPPENED), "preprocess": False}
    last: dict[str, Any] = {"js": numbering(f"{own} || 0"), "preprocess": False}
    # includes the uploads, so that the page knows of them and removes them too
    sent = [latest, number, *inputs]
    answer = while_wanted(run, partial(_instead, nothing, waiting))
    buttons = [stop] if stop else []
    shown = partial(_with_button, len(buttons), nothing)
    # Gradio waits for uploads to arrive, but a count should stop at once
    for listen in cleared:
        stopped = partial(_stop, shown, waiting)
        listen(stopped, [latest, number], [*buttons, *outputs], **numbered, **quiet)
    for listen in changed:
        empty = partial(_empty, shown, waiting)
        listen(empty, sent, [*buttons, *outputs], **numbered, **quiet)
    for listen in asked:
        # "multiple": by default Gradio drops an event while an earlier one is being answered
        begun = listen(
            partial(_begin, shown, meanwhile),
            sent,
            [*buttons, *outputs],
            trigger_mode="multiple",
            **numbered | {"js": numbering(f"{own} = {HAPPENED}")},
            **aside,
        )
        counted = begun.then(
            answer,
            sent,
            outputs,
            trigger_mode="multiple",
            concurrency_id=line,
            show_progress_on=show_on,
            api_visibility="private",
            **last,
        )
        for tried in (begun, counted):
            failed = partial(_failed, shown)
            tried.failure(failed, [latest, number], [*buttons, *outputs], **last, **aside)
        if stop:
            counted.then(_hide, latest, stop, show_progress="hidden", **aside)
    if stop:
        stop.click(
            partial(_enough, shown, waiting),
            [latest, number, number],
            [stop, *outputs],
            js=f"latest => [latest, {own} || 0, {HAPPENED}]",
            **quiet,
        )


def while_wanted(
    run: Callable[..., Any], instead: Callable[[Latest, int], list[Any] | None]
) -> Callable[..., Any]:
    """Wrap `run` to return the result of `instead` for an answer that is no longer wanted.

    In that case a waiting count is not started, and a running one stops at its next step or at the
    next part of a photo.
    """

    def at_once(
        latest: Latest,
        number: int,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  (Gradio looks for this default)
        *inputs: Any,
    ) -> Any:
        answer = instead(latest, number)
        if not answer:
            with _turn(latest, number):
                answer = run(*inputs, progress=_watched(progress, latest, number))
        return instead(latest, number) or answer

    def step_by_step(
        latest: Latest,
        number: int,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  (as above)
        *inputs: Any,
    ) -> Iterator[Any]:
        if past := instead(latest, number):
            yield past
            return
        with _turn(latest, number):
            tell = _watched(progress, latest, number)
            with closing(run(*inputs, progress=tell)) as steps:
                for step in steps:
                    past = instead(latest, number)
                    yield past or step
                    if past:
                        return
        if past := instead(latest, number):  # it was abandoned within a step
            yield past

    return step_by_step if inspect.isgeneratorfunction(run) else at_once


def _watched(progress: Tell, latest: Latest, number: int) -> Tell:
    def tell(*share: Any, **words: Any) -> None:
        if latest.is_past(number):
            raise NotWantedError
        if latest.enough == number:
            raise EnoughError
        progress(*share, **words)

    return tell


@contextmanager
def _turn(latest: Latest, number: int) -> Iterator[None]:
    latest.begun = max(latest.begun, number)
    try:
        yield
        latest.answered = max(latest.answered, number)
    except NotWantedError:
        if not latest.is_past(number):  # whoever asked has left
            latest.number = CLEARED
    finally:
        latest.done = max(latest.done, number)


def _with_button(
    buttons: int, nothing: Callable[..., list[Any]], seen: bool, *sentence: str
) -> list[Any]:
    """The update of a tab's stop button, if any, and what the tab shows instead of a count."""
    button = gr.update(visible=seen, value=STOP, interactive=True)
    return [*[button] * buttons, *nothing(*sentence)]


def _begin(
    shown: Callable[..., list[Any]], meanwhile: str, latest: Latest, number: int, *_: Any
) -> list[Any]:
    sentence = shown(True, meanwhile)
    if not latest.hears(number):
        return _nothing_new(sentence)
    latest.number = number
    return sentence


def _failed(shown: Callable[..., list[Any]], latest: Latest, number: int) -> list[Any]:
    problem = shown(False, BUSY, "problem")
    cleared = latest.number == CLEARED and latest.heard > number
    # nor hide the count shown for another request with this number
    gone = cleared or (latest.number or 0) > number or latest.answered >= number
    return _nothing_new(problem) if gone else problem


def _enough(
    shown: Callable[..., list[Any]], waiting: str, latest: Latest, number: int, now: int
) -> list[Any]:
    asked = number if latest.number is None else latest.number  # if the server lost it
    given_up = shown(False, waiting)
    if not latest.hears(now):  # a count was requested later
        return _nothing_new(given_up)
    if not asked:
        return given_up
    if latest.number is not None and latest.begun < asked:  # it is still waiting
        latest.number = CLEARED
        return given_up
    latest.enough = asked
    button = gr.update(value=STOPPING, interactive=False)
    if latest.done >= asked:  # it ended just as the button was pressed
        button = gr.update(visible=False)
    return [button, *_nothing_new(given_up[1:])]


def _hide(latest: Latest) -> Any:
    # a running count needs the button
    under_way = latest.number and latest.number > latest.done
    return gr.skip() if under_way else gr.update(visible=False)


def _stop(
    shown: Callable[..., list[Any]], waiting: str, latest: Latest, number: int, *_: Any
) -> list[Any]:
    under_way = latest.number and latest.number > latest.done
    empty = _empty(shown, waiting, latest, number)
    return empty if under_way else _nothing_new(empty)


def _empty(
    shown: Callable[..., list[Any]], waiting: str, latest: Latest, number: int, *_: Any
) -> list[Any]:
    empty = shown(False, waiting)
    if not latest.hears(number):  # the count was requested after the change
        return _nothing_new(empty)
    latest.number = CLEARED
    return empty


def _nothing_new(shown: list[Any]) -> list[Any]:
    return [gr.skip() for _ in shown]


def _instead(
    nothing: Callable[..., list[Any]], waiting: str, latest: Latest, number: int
) -> list[Any] | None:
    if not latest.is_past(number):
        return None
    shown = nothing(waiting)
    # A later request has put its own sentence there, so leave it.
    return shown if latest.number == CLEARED else _nothing_new(shown)
