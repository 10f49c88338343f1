"""JSON in which no object has a key twice: of two values one would be lost without a word."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any


class RepeatedKeyError(ValueError):
    """An object has a key twice; names the key."""


def loads(text: str) -> Any:
    """The content of a JSON text.

    Raises:
        RepeatedKeyError: if an object has a key twice.
        ValueError, RecursionError: if it is not JSON, or nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_without_repeats)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise RepeatedKeyError(f"{key[:80]!r} is there twice.")
    return content
