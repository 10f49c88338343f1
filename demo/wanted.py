"""Counts that a visitor asks for: of several in one tab only the last one's answer is shown."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from .pace import Tell
from .shared import BUSY, COUNTING, EnoughError, NotWantedError
from .turns import PHOTOS

NUMBERS = itertools.count(1)
CLEARED = 0


@dataclass
class Latest:
    """The number of a visitor's latest request in a tab: CLEARED once the upload was removed, None
    where nothing is known, as when the server had too many visitors to keep it; and that of the
    request of which the visitor has seen enough."""

    number: int | None = None
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
        cleared: listeners of the events that stop it, such as `photo.clear`.
        changed: listeners of the events after which `waiting` is shown, such as `photo.upload`; a
            count that was asked for before is stopped.
        line: where it waits, of `turns`.
        stop: a hidden button, seen while the count is under way; after it `run` is told by an
            EnoughError of its `progress` to show what there is.
    """
    latest = gr.State(Latest())
    number = gr.Number(visible=False)  # it is in the browser: each request carries its own
    aside: dict[str, Any] = {"queue": False, "api_visibility": "private"}
    answer = while_wanted(run, partial(_instead, nothing, waiting))
    buttons = [stop] if stop else []
    for listen in asked:
        # "multiple": by default Gradio drops an event while an earlier one is answered
        begun = listen(
            partial(_begin, nothing, meanwhile, len(buttons)),
            latest,
            [number, *buttons, *outputs],
            trigger_mode="multiple",
            **aside,
        )
        counted = begun.then(
            answer,
            [latest, number, *inputs],
            outputs,
            preprocess=False,
            trigger_mode="multiple",
            concurrency_id=line,
            show_progress_on=show_on,
            api_visibility="private",
        )
        counted.failure(partial(nothing, BUSY, "problem"), None, outputs, **aside)
        if stop:
            counted.then(_hide, [latest, number], stop, show_progress="hidden", **aside)
    if stop:
        stop.click(_enough, latest, None, show_progress="hidden", **aside)
    for listen in cleared:
        listen(_stop, latest, None, show_progress="hidden", **aside)
    for listen in changed:
        listen(
            partial(_empty, nothing, waiting),
            [latest, number],
            outputs,
            trigger_mode="multiple",
            show_progress="hidden",
            **aside,
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
        answer = None
        with _to_the_end(latest, number):
            tell = _watched(progress, latest, number)
            answer = instead(latest, number) or run(*inputs, progress=tell)
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
        tell = _watched(progress, latest, number)
        with _to_the_end(latest, number), closing(run(*inputs, progress=tell)) as steps:
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
def _to_the_end(latest: Latest, number: int) -> Iterator[None]:
    try:
        yield
    except NotWantedError:
        if not latest.is_past(number):  # whoever asked has left
            latest.number = CLEARED


def _begin(
    nothing: Callable[..., list[Any]], meanwhile: str, buttons: int, latest: Latest
) -> list[Any]:
    latest.number = next(NUMBERS)
    return [latest.number, *[gr.update(visible=True)] * buttons, *nothing(meanwhile)]


def _enough(latest: Latest) -> None:
    latest.enough = latest.number


def _hide(latest: Latest, number: int) -> Any:
    # a later request shows the button for itself
    return gr.skip() if latest.number and latest.is_past(number) else gr.update(visible=False)


def _stop(latest: Latest) -> None:
    latest.number = CLEARED


def _empty(
    nothing: Callable[..., list[Any]], waiting: str, latest: Latest, number: int | None
) -> list[Any]:
    shown = nothing(waiting)
    if latest.number and latest.number != number:  # the count was asked for after the change
        return [gr.skip() for _ in shown]
    latest.number = CLEARED
    return shown


def _instead(
    nothing: Callable[..., list[Any]], waiting: str, latest: Latest, number: int
) -> list[Any] | None:
    if not latest.is_past(number):
        return None
    shown = nothing(waiting)
    # A later request has put its own sentence there: leave it.
    return shown if latest.number == CLEARED else [gr.skip() for _ in shown]
