"""Photos being annotated: each as kept by its visitor's browser, and which one is open."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from csrnet_hub.images import DEFAULT_MAX_PIXELS, LONGEST

from .files import Recent
from .happened import Heard
from .shared import EXPIRED, SHOWN, VisitorError, plain_name

DIGEST = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Sheet:
    """A photo being annotated: its name, size, the digest of its pixels and when it was opened.

    The browser keeps it and sends it with each request, and keeps the heads, so that hours of work
    depend neither on the server's memory nor on the connection.
    """

    name: str
    width: int
    height: int
    digest: str
    opened: float

    @property
    def shown(self) -> tuple[int, int]:
        """Its size on the page."""
        scale = min(1.0, SHOWN / max(self.width, self.height))
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))

    @classmethod
    def sent(cls, value: Any) -> Sheet | None:
        """Read the sheet that a browser sends back; None if there is no photo.

        Raises:
            VisitorError: it is not a sheet (a program sent it).
        """
        if value is None:
            return None
        try:
            size = int(value["width"]), int(value["height"])
            digest = DIGEST.fullmatch(value["digest"])[0]  # type: ignore[index]
            name = plain_name(str(value["name"]))  # limited: repeated for each of many heads
            sheet = cls(name, *size, digest, float(value["opened"]))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise VisitorError(EXPIRED) from None
        short, long = sorted((sheet.width, sheet.height))
        if short < 1 or long > LONGEST or short * long > DEFAULT_MAX_PIXELS:
            raise VisitorError(EXPIRED)
        return sheet


@dataclass
class Visit(Heard):
    """What the server keeps about a visitor who annotates; if it is lost, every answer is shown.

    Attributes:
        opened: when the current sheet was opened; 0 if there is no photo, None if not known.
        maps, photos: the files shown by the page.
    """

    opened: float | None = None
    maps: Recent = field(default_factory=Recent)
    photos: Recent = field(default_factory=Recent)

    def note(self, sheet: Sheet | None) -> None:
        """Record that this sheet is now on the surface; None if there is no photo."""
        self.opened = sheet.opened if sheet else 0.0

    def another(self, sheet: Sheet) -> bool:
        """Whether this visitor has since opened another photo or removed this one."""
        return self.opened not in (None, sheet.opened)
