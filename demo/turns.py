"""Who waits for the network, and whose turn it is: one picture at a time, first come, first served.

Each photo of a batch and each frame of a clip waits for a turn of its own, so that others' photos
are counted between them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .shared import MAX_WAITING

# Gradio's lines, each with one call under way: what one photo takes, and what takes long.
PHOTOS, BATCHES = "counter", "batches"
MOST_OF_ONE = MAX_WAITING // 4  # calls of one page or program that may wait
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
    """A lock that is fair: a plain one would be taken again by the batch that has just left it."""

    def __init__(self) -> None:
        self._line: deque[object] = deque()
        self._moved = threading.Condition()

    @contextmanager
    def turn(self, meanwhile: Callable[[], None]) -> Iterator[None]:
        """Wait for a turn and hold it; `meanwhile` is called once a second of waiting, and may
        raise to give it up."""
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
    """Why a call may not wait with the others, in one of Gradio's lines; None if it may."""
    waiting = [event for line in lines.values() for event in line.queue]
    # Gradio calls the session of a call that names none like the call itself.
    whose = [None if one.session_hash == one._id else one.session_hash for one in waiting]
    if whose.count(body.session_hash) >= MOST_OF_ONE:
        return TOO_MANY_UNNAMED if body.session_hash is None else TOO_MANY
    asked = functions.get(body.fn_index)
    line = lines.get(asked.concurrency_id) if asked else None
    return FULL if line and len(line.queue) >= MAX_WAITING else None
