"""Converts pixels of any kind in a picture to upright RGB bytes, block by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from .imagefiles import ImageError

BLOCK = 512  # pixels a side; keeps every temporary copy under a few MB
ROUNDING = 1e-3  # beyond 0 and 1: what normalising or resampling a float picture may leave


def of_pil(image: Image.Image) -> np.ndarray:
    """Any mode -> (h, w) uint16 or float, (h, w, 3) or (h, w, 4) uint8."""
    if image.mode == "F":
        return np.asarray(image)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if image.mode == "I" and (values.min() < 0 or values.max() > 65535):
            raise ImageError("The picture has 32-bit values. Save it with 8 or 16 bits.")
        # The single transparent value of a 16-bit grey PNG, which Pillow loses.
        return np.where(values == image.info.get("transparency", -1), 65535, values).astype("u2")
    if image.mode in ("La", "RGBa"):  # premultiplied alpha: Pillow's only way out of it
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    could_be_transparent = image.mode in ("1", "L", "P", "RGB", "LA", "PA", "RGBA")
    mode = "RGBA" if could_be_transparent and image.has_transparency_data else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def from_tiff(values: np.ndarray, tags: Any) -> np.ndarray:
    """Finish grey TIFF of more than 8 bits as Pillow does not: 12 to 16 bits, white as zero."""
    deep = values.dtype.itemsize > 1
    if deep and tags.get(258) == (12,):  # BitsPerSample
        values = values * 16
    if deep and tags.get(262) == 0:  # PhotometricInterpretation
        values = (1 if values.dtype.kind == "f" else 65535) - values
    return values


def assembled(
    height: int, width: int, block: Callable[[int, int], np.ndarray], orientation: Any = None
) -> np.ndarray:
    """Put the blocks of a stored (height, width) picture into an upright (H, W, 3) uint8 array."""
    swap = orientation in (5, 6, 7, 8)
    upright = np.empty((width, height, 3) if swap else (height, width, 3), np.uint8)
    # A view of the upright picture in stored order: turning it needs no second copy.
    stored = upright.swapaxes(0, 1) if swap else upright
    stored = stored[:: -1 if orientation in (3, 4, 6, 7) else 1]
    stored = stored[:, :: -1 if orientation in (2, 3, 7, 8) else 1]
    for top in range(0, height, BLOCK):
        for left in range(0, width, BLOCK):
            stored[top : top + BLOCK, left : left + BLOCK] = _to_rgb(block(top, left))
    return upright


def _to_rgb(pixels: np.ndarray) -> np.ndarray:
    """(h, w), (h, w, 1), (h, w, 3) or (h, w, 4) of any accepted type -> broadcasts to RGB uint8."""
    pixels = _to_uint8(pixels if pixels.ndim == 3 else pixels[:, :, None])
    if pixels.shape[2] != 4:
        return pixels
    alpha = pixels[:, :, 3:].astype(np.uint16)
    over_white = (pixels[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return over_white.astype(np.uint8)


def _to_uint8(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "b":
        return (values * 255).astype(np.uint8)
    if values.dtype.itemsize == 2 and values.dtype.kind == "u":
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())  # NaN, if there is one
        if not (np.isfinite(low) and np.isfinite(high)):
            message = "The picture holds NaN or infinite values. Replace them with numbers."
            raise ImageError(message)
        if low < -ROUNDING or high > 1 + ROUNDING:
            raise ImageError(
                f"The picture holds decimal values from {low:g} to {high:g}; they must lie between "
                "0 and 1. Divide values of 0 to 255 by 255."
            )
        within = np.clip(values.astype(np.float32), 0, 1)
        return np.rint(within * 255).astype(np.uint8)
    return values
