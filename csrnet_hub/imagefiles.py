"""Detects files that are not pictures, and limits what a picture file may ask of its decoder.

A small file must not take minutes or gigabytes. The checks read what Pillow will read, before it
does; each limit is far above what files from cameras and programs need.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import IO, Any

from PIL import Image

from .heif import TooManyError, bytes_held

MOST_PIECES = 100_000  # segments, chunks, blocks, strips: Pillow takes some 10 us for each
COMMENT_COSTS = 100  # pieces: Pillow copies a GIF's whole comment again for each of its blocks
MOST_EXIF_SEGMENTS = 100  # of 64 kB: Pillow joins them one by one
MOST_DIRECTORIES = 10  # of EXIF data: normally four at most
MOST_PREFIXES = 2  # of EXIF data; normally there is at most one
MOST_AVIF_TAGS = 10  # starts of EXIF data in an AVIF file: normally one
HEIF_BYTES = 50_000_000  # that a HEIF file may take beyond its size: one ICC profile for all tiles
LEAST_SCANS = 20  # allowed for a JPEG of any size; encoders make 1 to about 15
SCANNED_PIXELS = 4_000_000_000  # pixels times scans: about ten seconds
LIMITS = {"WEBP": 100_000_000, "RLE": 10_000_000}  # pixels, for formats that cost more than others
LARGEST_TILE = 4096 * 4096  # pixels of a TIFF tile, unless the picture is that large

_EXIF = b"Exif\0\0"
_CHUNK = 16_384  # bytes read at a time
_MOST_JUNK = 16_384  # bytes between the segments of a JPEG: Pillow skips them one by one
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # neither padding nor within coded pixels
_TAGS = re.compile(rb"II\*\0|MM\0\*")
_WITHOUT_LENGTH = {0xC8, 0xD8, *range(0xF0, 0xFE)}  # libjpeg fails on these, Pillow continues
_UNITS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_BELOW = (34665, 34853, 40965)  # tags of directories below: of EXIF, GPS and interoperability
_INTEGERS = {3: "H", 4: "L", 8: "H", 9: "L", 13: "L", 16: "Q"}  # types of their places
_UNREADABLE = (
    (4, b"ftypavi", "an AVIF picture"),
    (4, (b"ftyphe", b"ftypmif1", b"ftypmsf1"), "a HEIC picture"),
    (4, b"ftyp", "a video"),
    (0, b"%PDF", "a PDF document"),
)


class ImageError(ValueError):
    """A picture cannot be used; the message tells the user what is wrong and what to do."""


def why_not_a_picture(head: bytes) -> str:
    """The sentence for a file that begins with the bytes `head` and has no readable format."""
    if not head:
        return "The file is empty (0 bytes). Save or upload the picture again."
    names = [name for start, signature, name in _UNREADABLE if head.startswith(signature, start)]
    if b"<svg" in head.lower():
        names = ["an SVG drawing"]
    if names:
        return f"This is {names[0]}, which cannot be read here. Save the picture as JPEG or PNG."
    if all(byte >= 32 or byte in b"\t\n\r" for byte in head):
        return "This is a text file, not a picture. Choose a JPEG or PNG photo."
    return "This is not a picture that can be read here. Use JPEG, PNG, WebP, GIF, TIFF or BMP."


def check_file(form: str | None, stream: IO[bytes]) -> None:
    """Scan a file of Pillow's format `form` before Pillow opens it.

    Raises:
        ImageError: if it would take far more time or memory than its pixels need.
        ValueError: if it is damaged.
    """
    checks = {
        "JPEG": _check_jpeg,
        "PNG": _check_png,
        "GIF": _check_gif,
        "TIFF": check_tags,
        "AVIF": _check_avif,
        "HEIF": _check_heif,
    }
    if form in checks:
        stream.seek(0)
        checks[form](stream)


def check_opened(image: Image.Image) -> None:
    """Check the header of a file that is opened but not yet decoded; raises ImageError."""
    pixels = image.width * image.height
    kind = "RLE" if image.format == "BMP" and image.info.get("compression") in (1, 2) else None
    limit = LIMITS.get(kind or image.format or "")
    if limit is not None and pixels > limit:
        raise ImageError(
            f"The picture has {image.width:,} x {image.height:,} = {pixels:,} pixels, more than "
            f"the {limit:,} allowed in a {image.format} file of this kind. Make it smaller, or "
            "save it as JPEG or PNG."
        )
    tags: Any = getattr(image, "tag_v2", {})
    width, height = tags.get(322, 0), tags.get(323, 0)
    numbers = isinstance(width, int) and isinstance(height, int)
    if numbers and width * height > max(LARGEST_TILE, 2 * pixels):
        raise ImageError(
            f"The TIFF file has tiles of {width:,} x {height:,} pixels, far larger than the "
            "picture. Re-save it as JPEG or PNG."
        )


def check_tags(stream: IO[bytes]) -> None:
    """Check the directories that Pillow reads in a TIFF file, or in EXIF data: the first, and those
    of EXIF and GPS data below it.

    Pillow reads all values of a directory, and thousands may share the same place.

    Raises:
        ImageError: if together they are larger than the file, or one has too many numbers.
        ValueError: if there is no directory, or it is cut off.
    """
    length = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(16)
    if len(head) < 16:
        raise ValueError("no directory")
    order = "<" if head.startswith(b"II") else ">"
    big = head[2] == 43
    inline, start = (8, "Q") if big else (4, "L")
    places = list(struct.unpack_from(order + start, head, inline))
    held = 0
    for place in places:  # grows meanwhile
        if len(places) > MOST_DIRECTORIES:
            raise _too_many_pieces()
        stream.seek(min(place, length))
        try:
            for tag, kind, number, value in _entries(order, big, stream):
                unit = _UNITS.get(kind, 0)
                if tag in _BELOW and kind in _INTEGERS and number == 1:
                    (below,) = struct.unpack_from(order + _INTEGERS[kind], value)
                    places += [below] if below not in places else []
                if unit * number <= inline:
                    continue
                if unit > 1 and number > MOST_PIECES:
                    raise _too_many_pieces()
                (offset,) = struct.unpack(order + start, value)
                if offset + unit * number > length:  # Pillow stops reading here
                    break
                held += unit * number
                if held > 2 * length:  # a few values may share their place
                    raise ImageError(
                        "The parts of the file's metadata overlap. Re-save the picture as JPEG or "
                        "PNG."
                    )
        except EOFError as error:  # Pillow keeps what came before
            if place == places[0]:
                raise ValueError("the directory is cut off") from error


def _entries(order: str, big: bool, stream: IO[bytes]) -> Iterator[tuple[Any, ...]]:
    """The tag, type, number of values, and value or place, of each entry of a directory."""
    (count,) = _unpack(order + ("Q" if big else "H"), stream)
    if count > MOST_PIECES:
        raise _too_many_pieces()
    for _ in range(count):
        yield _unpack(order + ("HHQ8s" if big else "HHL4s"), stream)


def _unpack(form: str, stream: IO[bytes]) -> tuple[Any, ...]:
    try:
        return struct.unpack(form, stream.read(struct.calcsize(form)))
    except struct.error as error:
        raise EOFError from error


def _too_many_pieces() -> ImageError:
    return ImageError(
        "The file has too many pieces to be read. Re-save the picture as JPEG or PNG."
    )


def _check_jpeg(stream: IO[bytes]) -> None:
    scans = pixels = 0
    exif: list[bytes] = []
    for pieces, (marker, data) in enumerate(_segments(stream), 1):
        if marker == 0xDA:
            scans += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (
            0xC4,
            0xCC,
        ):  # the frame: bits, height, width
            height, width = struct.unpack_from(">xHH", data.ljust(5, b"\0"))
            pixels = height * width
        elif marker == 0xE1 and data.startswith(_EXIF):
            exif.append(data[6:])
        if pieces > MOST_PIECES or len(exif) > MOST_EXIF_SEGMENTS:
            raise _too_many_pieces()
    if scans > LEAST_SCANS and scans * pixels > SCANNED_PIXELS:
        raise ImageError(
            f"The JPEG file builds up its picture in {scans:,} steps, too many to be read. "
            "Re-save it as JPEG or PNG."
        )
    check_exif(b"".join(exif))


def check_exif(exif: bytes) -> None:
    """`check_tags` for EXIF data; data without a directory passes, since nothing is read from it.

    Raises:
        ImageError: as for `check_tags`.
    """
    for _ in range(MOST_PREFIXES):
        exif = exif.removeprefix(_EXIF)
    if exif.startswith(_EXIF):  # Pillow copies all the rest for each
        raise _too_many_pieces()
    try:
        check_tags(io.BytesIO(exif))
    except ImageError:
        raise
    except ValueError:
        pass


def _segments(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """The markers of a JPEG up to its picture's end, with the content of each segment."""
    place, junk, scanned = 2, 0, False
    while True:
        stream.seek(place)
        chunk = stream.read(_CHUNK)
        found = _MARKER.search(chunk)
        skipped = found.start() if found else len(chunk)
        junk += 0 if scanned else skipped
        if junk >= _MOST_JUNK:
            raise ValueError("no marker found")
        if found is None:
            if len(chunk) < _CHUNK:
                return
            place += _CHUNK - 1  # the last byte may begin a marker
            continue
        marker = chunk[found.end() - 1]
        if marker in _WITHOUT_LENGTH or (marker == 0xD9 and not scanned):
            raise ValueError("a marker out of place")
        if marker == 0xD9:
            return
        stream.seek(place + found.end())
        length = max(2, int.from_bytes(stream.read(2), "big"))
        yield marker, stream.read(length - 2)
        place += found.end() + length
        scanned = scanned or marker == 0xDA


def _check_avif(stream: IO[bytes]) -> None:
    data = stream.read()
    # wherever the EXIF data are: Pillow reads them on opening
    for number, found in enumerate(_TAGS.finditer(data)):
        if number == MOST_AVIF_TAGS:
            raise _too_many_pieces()
        check_exif(data[found.start() :])


def _check_heif(stream: IO[bytes]) -> None:
    data = memoryview(stream.read())
    held = 0
    try:
        for pieces, size in enumerate(bytes_held(data)):
            held += size
            if pieces > MOST_PIECES:
                raise TooManyError
            if held > 2 * len(data) + HEIF_BYTES:
                raise ImageError(
                    "The parts of the HEIC file overlap. Re-save the picture as JPEG or PNG."
                )
    except TooManyError as error:
        raise _too_many_pieces() from error


def _check_png(stream: IO[bytes]) -> None:
    place = 8
    for _ in range(MOST_PIECES):
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        place += 12 + int.from_bytes(head[:4], "big")
    raise _too_many_pieces()


def _check_gif(stream: IO[bytes]) -> None:
    """Follow the blocks before the first frame just as Pillow does, oddities included."""
    head = stream.read(13).ljust(13, b"\0")
    if head[10] & 128:  # a palette
        stream.seek(13 + (6 << (head[10] & 7)))
    pieces = 0

    def block(cost: int = 1) -> bytes:
        nonlocal pieces
        pieces += cost
        if pieces > MOST_PIECES:
            raise _too_many_pieces()
        return stream.read((stream.read(1) or b"\0")[0])

    while (sign := stream.read(1)) not in (b"", b";", b","):
        pieces += 1
        if sign != b"!":
            continue
        label = stream.read(1)
        data = block()
        if label == b"\xfe":
            while data:
                data = block(COMMENT_COSTS)
            continue
        if label == b"\xff" and data.startswith(b"NETSCAPE2.0"):
            block()
        while block():
            pass
