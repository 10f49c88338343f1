"""The photos that are annotated: each as its visitor's browser keeps it, and which one is open."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Any

import gradio as gr

from csrnet_hub.images import DEFAULT_MAX_PIXELS, LONGEST

from .files import MAX_SESSIONS
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
class _Visit:
    heard: int = 0  # the latest of what the browser numbers
    opened: float | None = None  # when the sheet was, 0 without a photo


class Opened:
    """The photo that each visitor opened last: an answer for another one comes too late."""

    def __init__(self) -> None:
        self._visits: dict[str, _Visit] = {}  # by session, the newest at the end
        self._lock = threading.Lock()

    def hears(self, request: gr.Request, number: int) -> bool:
        """Note what happened as the `number`-th; False where something later was heard before."""
        with self._lock:
            visit = self._visit(str(request.session_hash))
            heard, visit.heard = visit.heard, max(visit.heard, number)
        return number >= heard

    def note(self, request: gr.Request | None, sheet: Sheet | None) -> None:
        """This is on the surface from now on; None: no photo."""
        if request and request.session_hash:
            with self._lock:
                self._visit(request.session_hash).opened = sheet.opened if sheet else 0.0

    def another(self, request: gr.Request | None, sheet: Sheet) -> bool:
        """Whether this visitor has opened another photo, or none, since."""
        visit = self._visits.get(str(request and request.session_hash), _Visit())
        return visit.opened not in (None, sheet.opened)

    def _visit(self, session: str) -> _Visit:
        visit = self._visits.setdefault(session, _Visit())
        self._visits[session] = self._visits.pop(session)
        while len(self._visits) > MAX_SESSIONS:  # a visitor who is forgotten gets every answer
            del self._visits[next(iter(self._visits))]
        return visit
