"""What a visitor sees while a count is running: its progress and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SOON = 2.0  # seconds before the pace can be estimated

Tell = Callable[..., Any]  # gr.Progress, or a substitute for it


def counting(progress: Tell) -> Callable[[int, int], None]:
    """Show that people are being counted; the returned function shows the parts done of a large
    picture."""
    progress(None, desc="Counting the people")  # share unknown: no bar stuck at 0
    began = before = time.monotonic()
    last = 0

    def step(done: int, of: int) -> None:
        nonlocal began, before, last
        if not done:  # this photo's turn has come
            began = before = time.monotonic()
            return
        if done <= last:  # the photo is counted again at another size
            began = before
        last, before = done, time.monotonic()
        if of > 1:
            left = time_left(before - began, done / of)
            progress((done, of), desc=f"Counting the people{left}", unit="parts")

    return step


class Pace:
    """Progress over many pictures, counted one after another.

    Args:
        progress: called to show it.
        of: number of pictures; 0 if unknown.
        unit: what they are called.
    """

    def __init__(self, progress: Tell, of: int, unit: str) -> None:
        self.progress, self.of, self.unit = progress, of, unit
        self.began = time.monotonic()

    def tell(self, number: int, words: str, part: float = 0.0) -> Any:
        """Show that `number` pictures are done, and a `part` (0 to 1) of the next."""
        if not self.of:
            return self.progress(None, desc=words)
        of = max(self.of, number + 1)
        left = time_left(time.monotonic() - self.began, (number + part) / of)
        done = f", {number} of {of} {self.unit}"
        return self.progress((number, of), desc=words + done + left, unit=self.unit)

    def within(self, number: int, words: str) -> Callable[[int, int], None]:
        """A callback for the parts of the next picture, when `number` are done."""
        self.tell(number, words)

        def step(done: int, of: int) -> None:
            if of > 1:
                self.tell(number, words, done / of)

        return step


def time_left(seconds: float, share: float) -> str:
    """Such as `, about 2 minutes left`, if a `share` of the work took `seconds`; "" if unknown."""
    if seconds < SOON or not 0 < share < 1:
        return ""
    left = seconds / share - seconds
    if left < 8:
        return ", a few seconds left"
    if left < 55:
        return f", about {max(10, round(left, -1)):.0f} seconds left"
    minutes = round(left / 60)
    return f", about {minutes} minutes left" if minutes > 1 else ", about a minute left"
