"""What happens on a page, as the browser numbers it: requests and answers may come in another
order."""

from __future__ import annotations

from dataclasses import dataclass, field

HAPPENED = "window.happened = (window.happened || 0) + 1"


def numbering(number: str) -> str:
    """JavaScript that sends inputs with the value of an expression in the place of the second."""
    return f"(kept, number, ...sent) => [kept, {number}, ...sent]"


@dataclass
class Heard:
    """What the server has heard of in a tab.

    Attributes:
        heard: the latest request, upload or removal.
    """

    heard: int = field(default=0, kw_only=True)

    def hears(self, number: int) -> bool:
        """Note what happened as the `number`-th; False where something later was heard before."""
        last = number >= self.heard
        self.heard = max(self.heard, number)
        return last
