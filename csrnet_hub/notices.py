"""Notices on pictures that differ from the training pictures, so that the count is doubtful."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

TINY = 160  # pixels, of the shorter side
FLAT = 6.0  # of 255: standard deviation of a nearly featureless picture
DARK = 24.0  # of 255: mean of a picture too dark to show anything
DENSE = 0.009  # people per pixel: more than in any photo of ShanghaiTech part A
FEW = 10  # people; used if the model does not record its training range
BY_EYE = 20  # people, who are counted as fast by eye
LOOKED_AT = 512  # pixels per side, for judging brightness


def notices(
    pixels: NDArray[np.uint8], count: float, record: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Sentences for whoever gave the picture; none if it is like the training pictures.

    Args:
        pixels: (H, W, 3), RGB.
        count: predicted number of people.
        record: the model's training record, whose ``heads`` are the fewest and the most in a
            training photograph.
    """
    height, width = pixels.shape[:2]
    found = []
    if min(width, height) < TINY:
        found.append(
            f"The picture is small ({width} × {height} pixels): heads of a pixel or two are hard "
            "to tell apart. The original photo will be counted more accurately."
        )
    if count > DENSE * width * height:
        found.append(
            f"There are more people than {width} × {height} pixels can show one by one. A larger "
            "copy of the photo will be counted more accurately."
        )
    step = max(1, max(height, width) // LOOKED_AT)
    grey = pixels[::step, ::step].mean(axis=2)  # (h, w)
    if float(grey.mean()) < DARK:
        found.append(
            "The picture is almost black. A brighter copy will be counted more accurately."
        )
    elif float(grey.std()) < FLAT:
        found.append("The picture is almost all one colour, so there is hardly anything to count.")
    elif unlike := _unlike(count, _heads(record)):
        found.append(unlike)
    return tuple(found)


def _heads(record: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """The fewest and the most heads in a training photograph; None if not recorded."""
    told = (record or {}).get("heads")
    if not isinstance(told, (list, tuple)) or [type(number) for number in told] != [int, int]:
        return None
    least, most = told
    return (least, most) if 0 <= least <= most else None


def _unlike(count: float, heads: tuple[int, int] | None) -> str:
    number = max(0, round(count))
    looks = f"This looks like {number:,} {'person' if number == 1 else 'people'}"
    least, most = heads or (FEW, number)
    if number > most:
        return f"{looks}, more than in any photo the model learnt from (at most {most:,})."
    if number >= least:
        return ""
    if number >= BY_EYE:
        return f"{looks}, fewer than in any photo the model learnt from (at least {least:,})."
    learnt = f"; the model learnt from photos of {least:,} to {most:,}" if heads else ""
    return f"{looks}{learnt}. With so few people, counting by eye is better."
