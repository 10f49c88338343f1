"""Reads the boxes of a HEIF file (HEIC, from phones; ISO/IEC 14496-12 and 23008-12)."""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import IO

MOST_ITEMS = 1000  # 768 tiles make 200 megapixels; newer versions of libheif read no more
MOST_PARTS = 100_000


class TooManyError(ValueError):
    """The file has more parts than any picture."""


def bytes_held(data: memoryview) -> Iterator[int]:
    """Bytes that each part of a HEIF file takes on opening, when pillow_heif copies the metadata
    and the ICC profile of every picture, wherever they lie.

    Raises:
        TooManyError: if the file has more parts than any picture.
        ValueError: if it is damaged.
    """
    (meta,) = _named(b"meta", data)
    (iinf,), (iloc,), (iprp,) = (_named(kind, meta[4:]) for kind in (b"iinf", b"iloc", b"iprp"))
    (ipco,) = _named(b"ipco", iprp)
    if sum(1 for _ in _boxes(iinf[8 if any(iinf[:1]) else 6 :])) > MOST_ITEMS:
        raise TooManyError
    properties = [0, *(len(content) for _, content in _boxes(ipco))]
    items: Counter[int] = Counter()
    described = (_properties(ipma, properties) for ipma in _named(b"ipma", iprp))
    for item, size in chain(_extents(iloc), *described):
        items[item] += size
        yield size
    for iref in _named(b"iref", meta[4:]):
        for kind, content in _boxes(iref[4:]):
            reference, wide = io.BytesIO(content), 4 if any(iref[:1]) else 2
            size = items[_number(reference, wide)]
            yield size * _number(reference, 2) if kind == b"cdsc" else 0


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The kinds and contents of the ISO boxes in a file or in another box."""
    place = 0
    for _ in range(MOST_PARTS):
        if place + 8 > len(data):
            return
        size, kind = struct.unpack_from(">I4s", data, place)
        head = 8
        if size == 1:  # 64-bit size
            head, size = 16, int.from_bytes(data[place + 8 : place + 16], "big")
        end = place + size if size else len(data)
        if end < place + head:  # something else follows the picture: libheif reads no further
            return
        yield kind, data[place + head : end]
        place = end
    raise TooManyError


def _named(kind: bytes, data: memoryview) -> list[memoryview]:
    return [content for found, content in _boxes(data) if found == kind]


def _number(stream: IO[bytes], size: int) -> int:
    data = stream.read(size)
    if len(data) < size:
        raise ValueError("a box is cut off")
    return int.from_bytes(data, "big")


def _extents(iloc: memoryview) -> Iterator[tuple[int, int]]:
    """A HEIF file's items and the bytes of their parts; each item also occurs once with 0."""
    stream = io.BytesIO(iloc)
    version, _, sizes = _number(stream, 1), _number(stream, 3), _number(stream, 2)
    offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 2 if version < 2 else 4
    for _ in range(_number(stream, wide)):
        item = _number(stream, wide)
        yield item, 0
        _number(stream, (4 if version else 2) + base)
        for _ in range(_number(stream, 2)):
            _number(stream, (index if version else 0) + offset)
            yield item, _number(stream, length)


def _properties(ipma: memoryview, sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Like `_extents`, for the properties of items, with the given sizes; numbered from 1."""
    stream = io.BytesIO(ipma)
    version, flags = _number(stream, 1), _number(stream, 3)
    wide, most = (2, 0x7FFF) if flags & 1 else (1, 0x7F)  # the bit above is a flag
    for _ in range(_number(stream, 4)):
        item = _number(stream, 4 if version else 2)
        yield item, 0
        for _ in range(_number(stream, 1)):
            number = _number(stream, wide) & most
            yield item, sizes[number] if number < len(sizes) else 0
