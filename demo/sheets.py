"""The photos that are annotated: each as its visitor's browser keeps it, and which one is open."""

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
    """The photo that is being annotated: its name, size, pixels' digest and when it was opened.

    The browser keeps it and sends it along, and keeps the heads until they are downloaded: hours of
    work hang neither on what is kept here nor on the connection.
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
        """The sheet that a browser sends back, None without a photo.

        Raises:
            VisitorError: it is none (a program sent it).
        """
        if value is None:
            return None
        try:
            size = int(value["width"]), int(value["height"])
            digest = DIGEST.fullmatch(value["digest"])[0]  # type: ignore[index]
            name = plain_name(str(value["name"]))  # it is written beside each of many heads
            sheet = cls(name, *size, digest, float(value["opened"]))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise VisitorError(EXPIRED) from None
        short, long = sorted((sheet.width, sheet.height))
        if short < 1 or long > LONGEST or short * long > DEFAULT_MAX_PIXELS:
            raise VisitorError(EXPIRED)
        return sheet


@dataclass
class Visit(Heard):
    """What the server keeps of a visitor who annotates; if it is lost, every answer is shown.

    Attributes:
        opened: when the sheet was that was opened last, 0 without a photo; None: not known.
        maps, photos: the files that the page shows.
    """

    opened: float | None = None
    maps: Recent = field(default_factory=Recent)
    photos: Recent = field(default_factory=Recent)

    def note(self, sheet: Sheet | None) -> None:
        """This is on the surface from now on; None: no photo."""
        self.opened = sheet.opened if sheet else 0.0

    def another(self, sheet: Sheet) -> bool:
        """Whether this visitor has opened another photo, or none, since."""
        return self.opened not in (None, sheet.opened)
