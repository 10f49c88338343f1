"""Which photographs a model has seen, by the digests in its training record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from csrnet_hub import CSRNet
from csrnet_hub.density import heads_in_frame
from csrnet_hub.scale import scaled, shrinking


def digest(height: int, width: int, heads: ArrayLike, name: str) -> str:
    """Eight letters and digits that identify a photograph, whatever its name: from its size and
    heads (N, 2) in pixels; without heads, from its name in its folder."""
    told = np.round(np.asarray(heads, np.float64), 1).tolist() or name
    return hashlib.sha256(f"{(height, width, 3)} {told}".encode()).hexdigest()[:8]


class Seen:
    """The photographs that a model was trained on, by their digests, and its ``working_pixels``."""

    def __init__(self, known: Iterable[str], working_pixels: int) -> None:
        self.known = set(known)
        self.working_pixels = working_pixels

    def __bool__(self) -> bool:
        return bool(self.known)

    def has(self, height: int, width: int, heads: ArrayLike, name: str) -> bool:
        """Whether a photograph is one of them, as it is or as `train.prepare` shrank it.

        Args:
            heads: (N, 2) in pixels, all annotated heads that count.
            name: its name in its folder, without a part's prefix.
        """
        inside, _ = heads_in_frame(heads, height, width)
        found = {digest(height, width, inside, name)}
        if self.working_pixels:
            small = scaled(height, width, shrinking(height, width, self.working_pixels))
            moved = inside * (np.array(small[::-1]) / (width, height))
            moved = heads_in_frame(moved, *small)[0].astype(np.float32)  # as they are stored
            found.add(digest(*small, moved, name))
        return not found.isdisjoint(self.known)


def seen_by(model: CSRNet) -> Seen:
    """The photographs that a model's record says it was trained on; none if it names none."""
    record = model.training_record or {}
    return Seen(str(record.get("photographs", "")).split(), model.working_pixels)
