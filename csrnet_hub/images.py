"""Reads any picture a user may have as RGB bytes, or explains in a sentence why it cannot."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
import warnings
from collections.abc import Callable
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from .devices import out_of_memory
from .imagefiles import ImageError as ImageError
from .imagefiles import check_exif, check_file, check_opened, why_not_a_picture
from .pixels import BLOCK, assembled, from_tiff, of_pil

ImageSource: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | Image.Image
    | np.ndarray
    | torch.Tensor
)
DEFAULT_MAX_PIXELS = 200_000_000
LONGEST = 65_535  # pixels a side, as in a JPEG
SUFFIXES = {
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".mpo",
    ".png",
    ".webp",
    ".gif",
    ".tif",
    ".tiff",
    ".bmp",
    ".avif",
    ".heic",
    ".heif",
}

_LOCK = threading.Lock()  # Pillow's limit is global to the process

_READERS: tuple[tuple[int, bytes | tuple[bytes, ...], type[ImageFile]], ...] = (
    (0, b"\xff\xd8\xff", JpegImageFile),  # also MPO, written by phones: its main picture
    (0, b"\x89PNG\r\n\x1a\n", PngImageFile),
    (0, b"GIF8", GifImageFile),
    (8, b"WEBP", WebPImageFile),
    (0, (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImageFile),
    (0, b"BM", BmpImageFile),
)
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")  # brands of files from phones


def load_image(source: ImageSource, *, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> np.ndarray:
    """Return the picture as (H, W, 3) uint8 RGB, C-contiguous and writable, upright.

    `source` is one of:

    - a path, the bytes or an open binary file of a JPEG, PNG, WebP, GIF, TIFF or BMP file (its
      first frame or page), of an AVIF file if Pillow supports it (11.3 or later), of a HEIC file
      with the extra ``heic``;
    - a PIL image of any mode (its current frame; it is read but not changed);
    - a grey, RGB or RGBA array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): uint8, uint16,
      bool or floats in [0, 1]. A writable, contiguous uint8 (H, W, 3) array is returned as it is,
      not copied;
    - a tensor of one of these shapes, or (1, H, W), (3, H, W) or (4, H, W), on any device.

    EXIF orientation is applied, transparency is put over white, and 16-bit values are divided by
    257 and rounded. 32-bit integer pictures (PIL mode I) are read as 16-bit, float ones (mode F)
    as [0, 1]; values outside are an error, since such a file does not say what white is.

    `max_pixels` bounds H * W and is checked before anything is decoded; None means no limit. Under
    a limit no side may exceed 65,535 pixels: a strip of one row costs as much as eight rows.
    WebP and run-length BMP files have lower limits of their own (`imagefiles.LIMITS`) unless
    `max_pixels` is None.
    Peak memory in bytes per pixel, including the 3 of the result:

    - 7 for JPEG, PNG, TIFF and BMP (colour), 4 for grey ones and GIF; 8 for HEIC;
    - 10 for progressive JPEG with full-resolution colour (12 if CMYK), 12 for 16-bit TIFF and AVIF;
    - 16 for WebP, animated or still.

    Raises ImageError for everything that cannot be read; its message never contains a path. An
    invalid limit raises ValueError.
    """
    check_limit(max_pixels)
    if source is None or (isinstance(source, str) and not source):
        raise ImageError("No picture was given. Choose a photo first.")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_stream(io.BytesIO(bytes(source)), max_pixels)
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(os.fsdecode(source)), max_pixels)
    if isinstance(source, Image.Image):
        return _decode(lambda: source, "picture", max_pixels)
    if isinstance(source, torch.Tensor):
        return _from_array(_as_array(source), max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(np.asarray(source), max_pixels)
    if hasattr(source, "read"):
        return _from_file(source, max_pixels)
    raise ImageError(
        f"A picture cannot be of type {type(source).__name__}. "
        "Give a file path, bytes, an open file, a PIL image, a NumPy array or a tensor."
    )


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    try:
        if tensor.dim() == 3 and tensor.shape[0] in (1, 3, 4):
            tensor = tensor.movedim(0, 2)
        tensor = tensor.detach().cpu().clone()  # never the caller's memory
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except (TypeError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        raise ImageError("This tensor cannot be read. Give a dense one.") from error


def _from_file(file: IO[bytes], max_pixels: int | None) -> np.ndarray:
    try:
        content = file.read()
        ended = not content and file.tell() > 0
    except MemoryError:
        raise
    except Exception as error:  # closed; or its kind's own, as of a damaged member of an archive
        raise ImageError("This file cannot be read. Open it again.") from error
    if isinstance(content, str):
        raise ImageError('This file is open as text. Open it with mode "rb".')
    if not isinstance(content, bytes):
        raise ImageError('This file gives no bytes. Open it with mode "rb".')
    if ended:
        raise ImageError("This file has been read to its end. Go back with seek(0).")
    return _from_stream(io.BytesIO(content), max_pixels)


def check_limit(max_pixels: Any) -> None:
    """Raise ValueError unless a pixel limit is None or a whole number from 1; it is no ImageError
    because the picture is not at fault."""
    whole = isinstance(max_pixels, Integral) and not isinstance(max_pixels, bool)
    if not (max_pixels is None or (whole and max_pixels > 0)):
        raise ValueError(f"max_pixels must be None or a whole number from 1, not {max_pixels!r}")


def missing_reader(path: str | Path) -> str:
    """What to install to read a file that only lacks a decoder, or ""."""
    if not os.path.isfile(path):  # noqa: PTH113  (a pipe would wait for its writer)
        return ""
    with contextlib.suppress(OSError, ValueError), Path(path).open("rb") as file:
        head = file.read(40)
        if head[4:8] == b"ftyp" and _reader_of(head) is None:
            if b"avif" in head:
                return 'AVIF needs Pillow 11.3 or newer: pip install -U "pillow>=11.3"'
            if any(brand in head for brand in _HEIF):
                return "HEIC needs the extra heic: pip install pillow-heif"
    return ""


def hide_library_warnings() -> None:
    """Hide Pillow's warnings on odd metadata and large pictures, and matplotlib's on letters that
    no font has, in the whole process.

    Meant for the entry point of a program whose users cannot act on them. Importing this package
    hides nothing: warnings are up to the program that imports it.
    """
    warnings.filterwarnings("ignore", module=r"PIL\b")
    warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")


def _from_path(path: Path, max_pixels: int | None) -> np.ndarray:
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):  # nothing else is opened: a pipe would block for ever
            with path.open("rb") as stream:
                return _from_stream(stream, max_pixels)
    except ImageError:
        raise
    except PermissionError as error:
        message = "This file cannot be read: permission denied. Change its permissions, or copy it."
        raise ImageError(message) from error
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        message = (
            "There is no such file. Check its name; a picture from the web must be saved first."
        )
        raise ImageError(message) from error
    except OSError as error:
        raise ImageError("This file cannot be read. Check its name, or copy it again.") from error
    what = "a folder" if stat.S_ISDIR(mode) else "not an ordinary file"
    raise ImageError(f"This is {what}. Choose a picture.")


def _from_stream(stream: IO[bytes], max_pixels: int | None) -> np.ndarray:
    head = stream.read(512)
    reader = _reader_of(head)
    if reader is None:
        raise ImageError(why_not_a_picture(head))
    opened = partial(_open, reader, stream, max_pixels)
    return _decode(opened, f"{reader.format} file", max_pixels)


def _reader_of(head: bytes) -> type[ImageFile] | None:
    for start, signature, reader in _READERS:
        if head.startswith(signature, start):
            return reader
    brands = head[8:40] if head[4:8] == b"ftyp" else b""
    # Not every installation has these decoders.
    with contextlib.suppress(ImportError):
        if b"avif" in brands:
            from PIL import features
            from PIL.AvifImagePlugin import AvifImageFile

            return AvifImageFile if features.check("avif") else None
        if any(brand in brands for brand in _HEIF):
            from pillow_heif import HeifImageFile

            found: type[ImageFile] = HeifImageFile
            return found
    return None


def _open(reader: type[ImageFile], stream: IO[bytes], max_pixels: int | None) -> Image.Image:
    check_file(reader.format, stream)
    stream.seek(0)
    # The format's class, not Image.open: it reads only the header, without Pillow's pixel limit.
    image = reader(stream)
    tags: Any = getattr(image, "tag_v2", {})
    # NewSubfileType 1 is a thumbnail, 50706 a DNG version: counting either would mislead.
    if tags.get(254) == 1 or 50706 in tags:
        raise ImageError("This is a camera raw file. Save the picture as JPEG or PNG.")
    _check_size(*image.size, max_pixels)
    if max_pixels is not None:
        check_opened(image)
    return image


def _check_size(width: int, height: int, max_pixels: int | None) -> None:
    if width < 1 or height < 1:
        raise ImageError("The picture has no pixels. Choose another one.")
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            f"The picture has {width:,} x {height:,} = {width * height:,} pixels, more than the "
            f"{max_pixels:,} allowed. Make it smaller and try again."
        )
    if max_pixels is not None and max(width, height) > LONGEST:  # a cell is 8 pixels high
        raise ImageError(
            f"The picture has {width:,} x {height:,} pixels; its longer side may have at most "
            f"{LONGEST:,}. Cut it into parts and try again."
        )


def _decode(opened: Callable[[], Image.Image], name: str, max_pixels: int | None) -> np.ndarray:
    """Run the decoder; whatever Pillow raises (half a dozen types) becomes an ImageError."""
    try:
        with contextlib.suppress(Image.DecompressionBombError):
            return _from_pil(opened(), max_pixels)
        # For TIFF and GIF, Pillow's limit can only be changed through this global: set it to
        # ours under the lock, only for a picture that ran into it, and restore it.
        with _LOCK:
            pillow_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
            try:
                return _from_pil(opened(), max_pixels)
            finally:
                Image.MAX_IMAGE_PIXELS = pillow_limit
    except ImageError:
        raise
    except (MemoryError, Image.DecompressionBombError) as error:
        raise ImageError("The picture is too large to read. Make it smaller.") from error
    except Exception as error:
        raise ImageError(
            f"This {name} is damaged, incomplete or of an unsupported kind. "
            "Download it again, or re-save it as JPEG or PNG."
        ) from error


def _from_pil(image: Image.Image, max_pixels: int | None) -> np.ndarray:
    _check_size(*image.size, max_pixels)
    image.load()
    orientation = _orientation(image)  # after load: a PNG may have it at its end

    def block(top: int, left: int) -> np.ndarray:
        right, bottom = min(left + BLOCK, image.width), min(top + BLOCK, image.height)
        values = of_pil(image.crop((left, top, right, bottom)))
        return from_tiff(values, getattr(image, "tag_v2", {})) if values.ndim == 2 else values

    return assembled(image.height, image.width, block, orientation)


def _orientation(image: Image.Image) -> Any:
    with contextlib.suppress(Exception):  # broken metadata does not make the pixels unusable
        exif = image.info.get("exif")
        if exif is None and "Raw profile type exif" in image.info:  # stored as text in a PNG
            lines = image.info["Raw profile type exif"].split("\n")
            exif = bytes.fromhex("".join(lines[3:]))
        check_exif(exif or b"")
        return image.getexif().get(0x0112)
    return None


def _from_array(array: np.ndarray, max_pixels: int | None) -> np.ndarray:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"The array has shape {array.shape}. Give (height, width) or (height, width, channels) "
            "with 1, 3 or 4 channels, the channels last."
        )
    if array.dtype.kind not in "bf" and array.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise ImageError(
            f"The array holds {array.dtype.name} values. Convert them to uint8 (0 to 255), uint16, "
            "bool, or floats between 0 and 1."
        )
    height, width = array.shape[:2]
    _check_size(width, height, max_pixels)
    if array.dtype == np.uint8 and array.shape[2:] == (3,):
        ready: np.ndarray = np.require(array, requirements=["C", "W"])
        return ready
    return assembled(height, width, lambda y, x: array[y : y + BLOCK, x : x + BLOCK])
