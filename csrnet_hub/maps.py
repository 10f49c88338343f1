"""Saves maps to a folder, as a picture and an .npy file each, and recognises them in later runs."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .counting import CountResult

MADE_BY = ("Software", "csrnet-hub")  # metadata in the pictures of maps
PHOTO = "Photograph"  # with a digest of its path, since the path itself is private
START = 1024  # bytes of a picture, within which both entries lie
LONGEST = 200  # bytes of a map's name without its extensions; file systems allow 255 with them


def save_map(stem: Path, photo: Path, result: CountResult) -> None:
    """Write STEM.npy (float32, heads per cell) and STEM.png (the jet map beside the photo).

    Raises:
        ImageError: if the photo cannot be read (any more).
        OSError: if a file cannot be written, giving its name; no partial file is left.
    """
    import numpy as np
    from PIL.PngImagePlugin import PngInfo

    from .images import load_image
    from .render import density_figure

    picture = density_figure(result.density, load_image(photo), photo.name, scale=result.scale)
    density, drawn = io.BytesIO(), io.BytesIO()
    np.save(density, result.density)
    information = PngInfo()
    information.add_text(*MADE_BY)
    information.add_text(PHOTO, _digest(photo))
    picture.save(drawn, "PNG", pnginfo=information)
    for ending, content in ((".png", drawn), (".npy", density)):
        _write(stem.with_name(stem.name + ending), content.getvalue())


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)  # a link of that name is not followed
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names none
    finally:
        partial.unlink(missing_ok=True)


def unused(folder: Path, photo: Path, names: set[str]) -> Path:
    """The path in a folder, without extension, for a photo's map: the photo's name, numbered if it
    would otherwise replace another photo's map or any other file.

    Args:
        names: names already given in this run; the new one is added.
    """
    stem = photo.stem
    if len(os.fsencode(stem)) > LONGEST:
        stem = os.fsencode(stem)[:LONGEST].decode("utf-8", "ignore")
    name, number = stem, 2
    # nor both A.jpg and a.png, where file names ignore case
    while name.casefold() in names or _is_others(folder / name, photo):
        name, number = f"{stem}-{number}", number + 1
    names.add(name.casefold())
    return folder / name


def _is_others(stem: Path, photo: Path) -> bool:
    picture, density = (stem.with_name(stem.name + ending) for ending in (".png", ".npy"))
    if not (picture.exists() or density.exists()):
        return False
    return not (is_map(picture) and _text(PHOTO, _digest(photo)) in _start(picture))


def is_map(path: Path) -> bool:
    """Whether a file is a map's picture written by `save_map`."""
    return path.suffix.lower() == ".png" and _text(*MADE_BY) in _start(path)


def _text(key: str, text: str) -> bytes:
    return f"{key}\0{text}".encode()  # the form that PNG uses


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(START)
    except OSError:
        return b""


def _digest(photo: Path) -> str:
    return hashlib.sha256(os.fsencode(os.path.realpath(photo))).hexdigest()[:16]
