"""Events on a page, numbered by the browser since requests and answers may arrive out of order."""

from __future__ import annotations

from dataclasses import dataclass, field

HAPPENED = "window.happened = (window.happened || 0) + 1"


def numbering(number: str) -> str:
    """JavaScript that replaces the second input with the value of the expression `number`."""
    return f"(kept, number, ...sent) => [kept, {number}, ...sent]"


@dataclass
class Heard:
    """Which of a tab's events have reached the server.

    Attributes:
        heard: the number of the latest request, upload or removal.
    """

    heard: int = field(default=0, kw_only=True)

    def hears(self, number: int) -> bool:
        """Record event `number`; False if a later event has already been recorded."""
        last = number >= self.heard
        self.heard = max(self.heard, number)
        return last
