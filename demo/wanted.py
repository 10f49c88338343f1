"""Counts that a visitor asks for: of several in one tab only the last one's answer is shown."""

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
    """What a visitor asks for in a tab, by the numbers that the browser gives.

    Attributes:
        number: the latest request; CLEARED once the upload was removed, None where nothing is
            known, as when the server had too many visitors to keep it.
        begun, done, answered: the latest whose turn has come, that has ended, and that ended well.
        enough: that of which the visitor has seen enough.
    """

    number: int | None = None
    begun: int = 0
    done: int = 0
    answered: int = 0
    enough: int | None = None

    def is_past(self, number: int) -> bool:
        """Whether the answer to the request of that `number` is no longer wanted."""
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
    """Wire a count to events: first a sentence that it is under way, then `run` in the queue.

    Whoever asks again while a count is under way gets the answer to the last request alone.

    Args:
        asked: the events' listeners, such as `button.click`.
        nothing: gives `outputs` for a sentence and its kind, as `message_html` takes them.
        run: gives `outputs` for `inputs`, once or step by step; it takes `progress` too.
        show_on: where progress and the place in the queue are shown.
        waiting: the sentence in place of a count that was stopped.
        meanwhile: the sentence while it is under way.
        cleared: listeners of the events that stop a count that was asked for before them, such as
            `photos.clear`; what has been counted is shown still.
        changed: listeners of the events that do so and after which `waiting` is shown, such as
            `photo.upload`. Gradio sends to an event's listeners one after the other: others of
            the same event, those of `asked` too, come after these.
        line: where it waits, of `turns`.
        stop: a hidden button, seen while the count is under way; after it `run` is told by an
            EnoughError of its `progress` to show what there is, and one that waits is given up.
    """
    latest = gr.State(Latest())
    number = gr.Number(visible=False)  # holds the place of what the browser gives
    own = f"window.asked{number._id}"  # the number of this tab's last request
    aside: dict[str, Any] = {"queue": False, "api_visibility": "private"}
    quiet = {"trigger_mode": "multiple", "show_progress": "hidden", **aside}
    numbered: dict[str, Any] = {"js": numbering(HAPPENED), "preprocess": False}
    last: dict[str, Any] = {"js": numbering(f"{own} || 0"), "preprocess": False}
    # with the uploads, which the page hears of so: it removes them with the rest
    sent = [latest, number, *inputs]
    answer = while_wanted(run, partial(_instead, nothing, waiting))
    buttons = [stop] if stop else []
    shown = partial(_with_button, len(buttons), nothing)
    # Gradio sends uploads once they are there, and a count is to be stopped at once
    for listen in cleared:
        stopped = partial(_stop, shown, waiting)
        listen(stopped, [latest, number], [*buttons, *outputs], **numbered, **quiet)
    for listen in changed:
        empty = partial(_empty, shown, waiting)
        listen(empty, sent, [*buttons, *outputs], **numbered, **quiet)
    for listen in asked:
        # "multiple": by default Gradio drops an event while an earlier one is answered
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
    """`run`, giving what `instead` gives in place of an answer that is no longer wanted.

    What waits in the queue is not begun then, and what is under way stops at its next step or at
    the next part of a photo.
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
        if past := instead(latest, number):  # it was given up within a step
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
    """What a tab shows in the place of a count, after what becomes of its stop button, if any."""
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
    # nor is another request with this number to be hidden, whose count is shown
    gone = cleared or (latest.number or 0) > number or latest.answered >= number
    return _nothing_new(problem) if gone else problem


def _enough(
    shown: Callable[..., list[Any]], waiting: str, latest: Latest, number: int, now: int
) -> list[Any]:
    asked = number if latest.number is None else latest.number  # the server may have forgotten it
    given_up = shown(False, waiting)
    if not latest.hears(now):  # a count was asked for after it
        return _nothing_new(given_up)
    if not asked:
        return given_up
    if latest.number is not None and latest.begun < asked:  # it waits for its turn
        latest.number = CLEARED
        return given_up
    latest.enough = asked
    button = gr.update(value=STOPPING, interactive=False)
    if latest.done >= asked:  # it ended as the button was pressed
        button = gr.update(visible=False)
    return [button, *_nothing_new(given_up[1:])]


def _hide(latest: Latest) -> Any:
    # one that is under way shows the button for itself
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
    if not latest.hears(number):  # the count was asked for after the change
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
    # A later request has put its own sentence there: leave it.
    return shown if latest.number == CLEARED else _nothing_new(shown)
