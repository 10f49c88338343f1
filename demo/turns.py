"""Turns at the network: one picture at a time, first come, first served.

Each photo of a batch and each frame of a clip waits for its own turn, so that other visitors'
photos are counted in between.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .shared import MAX_WAITING

# Gradio's queues, each running one call at a time: for single photos, and for long calls.
PHOTOS, BATCHES = "counter", "batches"
MOST_OF_ONE = MAX_WAITING // 4  # waiting calls allowed per page or program
TOO_MANY = (
    f"You already have {MOST_OF_ONE} calls waiting (all MCP calls count as one caller). Wait for "
    "answers before sending more."
)
TOO_MANY_UNNAMED = (
    f"{MOST_OF_ONE} calls without a session_hash are already waiting. Wait, or use gradio_client, "
    "which sends one."
)
FULL = f"{MAX_WAITING} calls of this kind are already waiting. Try again in a minute."


class Turns:
    """A fair lock: a plain one would be taken again by the batch that has just released it."""

    def __init__(self) -> None:
        self._line: deque[object] = deque()
        self._moved = threading.Condition()

    @contextmanager
    def turn(self, meanwhile: Callable[[], None]) -> Iterator[None]:
        """Wait for a turn and hold it; `meanwhile` is called once a second while waiting, and may
        raise to give up."""
        place = object()
        with self._moved:
            self._line.append(place)
        try:
            with self._moved:
                while self._line[0] is not place:
                    self._moved.wait(1)
                    meanwhile()
            yield
        finally:
            with self._moved:
                self._line.remove(place)
                self._moved.notify_all()


def refusal(lines: dict[str, Any], body: Any, functions: dict[int, Any]) -> str | None:
    """Why a call may not join one of Gradio's queues; None if it may."""
    waiting = [event for line in lines.values() for event in line.queue]
    # If a call names no session, Gradio sets its session to the call's own id.
    whose = [None if one.session_hash == one._id else one.session_hash for one in waiting]
    if whose.count(body.session_hash) >= MOST_OF_ONE:
        return TOO_MANY_UNNAMED if body.session_hash is None else TOO_MANY
    asked = functions.get(body.fn_index)
    line = lines.get(asked.concurrency_id) if asked else None
    return FULL if line and len(line.queue) >= MAX_WAITING else None
