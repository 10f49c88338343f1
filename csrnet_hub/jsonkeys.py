"""JSON without duplicate keys in objects: one of the two values would be lost silently."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any


def loads(text: str) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError, RecursionError: if it is not JSON, is nested too deeply, or has a duplicate key,
            which is then named.
    """
    return json.loads(text, object_pairs_hook=_without_repeats)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key[:80]!r} is there twice")
    return content
