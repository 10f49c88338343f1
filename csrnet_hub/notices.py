"""What makes a picture unlike those that a model learnt from, and its count doubtful."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

TINY = 160  # pixels, of the shorter side
FLAT = 6.0  # of 255: standard deviation of a picture with hardly anything in it
DARK = 24.0  # of 255: the mean of a picture in which nothing is seen
DENSE = 0.009  # people a pixel: more than in any photo of ShanghaiTech part A
FEW = 10  # people, where the model does not tell with how many it was trained
BY_EYE = 20  # people, whom one counts oneself as fast
LOOKED_AT = 512  # pixels a side that light is judged by


def notices(
    pixels: NDArray[np.uint8], count: float, record: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Sentences for whoever gave the picture, none for a picture like those of the training.

    Args:
        pixels: (H, W, 3), RGB.
        count: of the people in it, as predicted.
        record: the model's training record, whose ``heads`` are the least and the most in a
            photograph that it learnt from.
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
    """The least and the most heads of a training photograph; None where they are not told."""
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
