"""Check what a .mat file of MATLAB 5 to 7 claims to hold before SciPy reads it.

SciPy's reader trusts sizes, depth and kinds: a few hundred bytes can take gigabytes, or crash the
process. The wanted variable is therefore traversed here first, without reading its values. The
layout is described in MathWorks' "MAT-File Format".
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from .sample import DatasetError

MOST = 2**24  # values in a variable: a mask of 16 megapixels
CELLS = 2**16  # arrays, cells and fields in a variable: Mall's 2,000 frames have some 6,000
DEEPEST = 16  # levels of nested arrays
FIELDS = 256  # in a struct
VARIABLES = 1000  # in a file

_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED, _UTF8 = 1, 5, 6, 14, 15, 16  # types of elements
_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
_CELL, _STRUCT, _CHAR, _NUMBERS, _OPAQUE = 1, 2, 4, range(6, 16), 17  # classes of arrays
_COMPLEX = 1 << 11  # in an array's flags
_HEADER = 4096  # bytes that hold a variable's name


class Element(NamedTuple):
    """Byte positions of an element's content and of the next element."""

    kind: int
    start: int
    length: int
    after: int


class Header(NamedTuple):
    """The start of an array."""

    kind: int
    is_complex: bool
    size: int  # product of the sides
    name: bytes
    after: int


def check_mat5(path: Path, key: str) -> None:
    """Traverse the variable `key` of a file.

    Raises:
        DatasetError: if it is damaged, of an unsupported kind, or holds too much.
    """
    with path.open("rb") as stream:
        stream.seek(126)
        order = "<" if stream.read(2) == b"IM" else ">"  # as SciPy does
        for number in range(VARIABLES + 1):
            tag = stream.read(8)
            if len(tag) < 8:
                return
            if number == VARIABLES:
                raise DatasetError(f"{path} has more than {VARIABLES:,} variables.")
            kind, length = struct.unpack(f"{order}II", tag)
            content = stream.read(length)
            if len(content) < length or kind not in (_MATRIX, _COMPRESSED):
                raise _DamagedError(path)
            if kind == _MATRIX:
                content = tag + content
            elif _named(path, zlib.decompressobj().decompress(content, _HEADER), order, key):
                content = _unpacked(path, content)
            else:
                continue
            if _named(path, content, order, key):
                _Variable(path, content, order).check()


class _DamagedError(DatasetError):
    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} cannot be read as a .mat file: its sizes are inconsistent.")


def _unpacked(path: Path, content: bytes) -> bytes:
    unpacked = zlib.decompressobj().decompress(content, 8 * MOST + 1)
    if len(unpacked) > 8 * MOST:
        raise DatasetError(f"{path} unpacks to more than {8 * MOST:,} bytes.")
    return unpacked


def _named(path: Path, content: bytes, order: str, key: str) -> bool:
    return _Variable(path, content, order).header(8).name == key.encode("latin-1")


class _Variable:
    """A variable's element, of which only tags and sizes are read."""

    def __init__(self, path: Path, content: bytes, order: str) -> None:
        self.path, self.content, self.order = path, content, order
        self.values, self.cells = MOST, CELLS  # still allowed

    def check(self) -> None:
        if self.matrix(0, len(self.content), 0) != len(self.content):
            raise _DamagedError(self.path)

    def words(self, start: int, number: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(f"{self.order}{number}I", self.content, start)
        except struct.error as error:
            raise _DamagedError(self.path) from error

    def element(self, at: int) -> Element:
        """The element whose tag is at a position; it must lie wholly in the file."""
        (tag,) = self.words(at, 1)
        if tag >> 16:  # up to four bytes are in the tag itself
            found = Element(tag & 0xFFFF, at + 4, tag >> 16, at + 8)
            fits = found.length <= 4
        else:
            _, length = self.words(at, 2)
            found = Element(tag, at + 8, length, at + 8 + -(-length // 8) * 8)
            fits = True
        if not fits or found.after > len(self.content) or found.kind not in _BYTES:
            raise _DamagedError(self.path)
        return found

    def header(self, at: int) -> Header:
        """The flags, sides and name of an array whose content is at a position."""
        tag, length, flags, _ = self.words(at, 4)
        kind = flags & 0xFF
        if (tag, length) != (_UINT32, 8):
            raise _DamagedError(self.path)
        if kind == _OPAQUE:  # it has neither sides nor, for SciPy, a name
            return Header(kind, False, 0, b"", at)
        sides = self.element(at + 16)
        numbers = struct.unpack_from(f"{self.order}{sides.length // 4}i", self.content, sides.start)
        if sides.kind not in (_INT32, _UINT32) or not 2 <= len(numbers) <= 32 or min(numbers) < 0:
            raise _DamagedError(self.path)
        name = self.element(sides.after)
        size = math.prod(numbers)
        return Header(kind, bool(flags & _COMPLEX), size, self.text(name), name.after)

    def text(self, element: Element) -> bytes:
        return self.content[element.start : element.start + element.length]

    def matrix(self, at: int, end: int, depth: int) -> int:
        """Check the array whose tag is at a position; returns its end, which is at most `end`."""
        tag, length = self.words(at, 2)
        if tag != _MATRIX or at + 8 + length > end:
            raise _DamagedError(self.path)
        self.take(cells=1)
        if length == 0:  # an empty array
            return at + 8
        if depth == DEEPEST:
            raise DatasetError(f"{self.path} has arrays nested more than {DEEPEST} deep.")
        header, last = self.header(at + 8), at + 8 + length
        if header.kind in (_CELL, _STRUCT):
            place, number = header.after, header.size
            if header.kind == _STRUCT:
                place, fields = self.fields(place)
                number *= fields
            self.take(cells=number)
            for _ in range(number):
                place = self.matrix(place, last, depth + 1)
        elif header.kind == _CHAR or header.kind in _NUMBERS:
            place = self.data(header)
        else:
            raise DatasetError(f"{self.path} holds an array of a kind that is not read here.")
        if place != last:
            raise _DamagedError(self.path)
        return last

    def fields(self, at: int) -> tuple[int, int]:
        """The position of a struct's first field, and the number of fields per element."""
        width = self.element(at)
        names = self.element(width.after)
        if width.kind not in (_INT32, _UINT32) or width.length != 4:
            raise _DamagedError(self.path)
        (long,) = self.words(width.start, 1)
        if names.kind not in (_INT8, _UTF8) or not 0 < long <= 256 or names.length % long:
            raise _DamagedError(self.path)
        if names.length // long > FIELDS:
            raise DatasetError(f"{self.path} has more than {FIELDS} fields in a struct.")
        return names.after, names.length // long

    def data(self, header: Header) -> int:
        """The end of an array's values, whose number must match its sides."""
        self.take(values=header.size * (1 + header.is_complex))
        place = header.after
        for _ in range(1 + header.is_complex):
            found = self.element(place)
            held = found.length if header.kind == _CHAR else found.length // _BYTES[found.kind]
            if held < header.size or (header.kind != _CHAR and held != header.size):
                raise _DamagedError(self.path)
            place = found.after
        return place

    def take(self, values: int = 0, cells: int = 0) -> None:
        self.values -= values
        self.cells -= cells
        if self.values < 0:
            raise DatasetError(f"{self.path} holds more than {MOST:,} values.")
        if self.cells < 0:
            raise DatasetError(f"{self.path} has more than {CELLS:,} arrays and cells.")
