"""Read MATLAB 7.3 files, which are HDF5, without ever opening anything outside the file itself."""

from __future__ import annotations

import math
import zlib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from .sample import DatasetError

MOST = 2**24  # values in a file: a mask of 16 megapixels
CELLS = 2**16  # arrays, cells and structs in a file: Mall's 2,000 frames have some 6,000
CHUNKS = 4096  # per array: each is searched for among all
DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3  # numbers of HDF5's filters


def from_hdf5(path: Path, key: str) -> dict[str, Any]:
    """A file's entry as dictionaries, lists and arrays; empty if there is no such entry.

    Raises:
        DatasetError: if h5py is missing, or the file links elsewhere or holds too much.
    """
    try:
        import h5py
    except ImportError as error:
        raise DatasetError(f"{path} is from MATLAB 7.3: pip install h5py to read it.") from error
    with h5py.File(path, "r") as file:
        if not file.id.links.exists(key.encode()):
            return {}
        return {key: _Reader(path, h5py).member(file, key)[0]}


class _Reader:
    """Reads one file's items, each with its number of values when expanded."""

    def __init__(self, path: Path, h5py: Any) -> None:
        self.path, self.h5py = path, h5py
        self.done: dict[Any, tuple[Any, int]] = {}  # by place
        self.steps = self.held = 0

    def member(self, group: Any, name: str) -> tuple[Any, int]:
        # asked of the link alone: its target may be any file that this process can read
        hard = self.h5py.h5l.TYPE_HARD
        if "/" in name or group.id.links.get_info(name.encode()).type != hard:
            raise DatasetError(f"{self.path} refers to data outside its own.")
        return self.convert(group[name])

    def convert(self, item: Any) -> tuple[Any, int]:
        self.steps += 1
        if self.steps > CELLS:
            raise DatasetError(f"{self.path} has more than {CELLS:,} arrays and cells.")
        about = self.h5py.h5o.get_info(item.id)
        place = about.fileno, about.addr
        if place not in self.done:
            read = self.group if isinstance(item, self.h5py.Group) else self.array
            self.done[place] = read(item)
        # a few cells that contain one another expand to many
        if self.done[place][1] > MOST + CELLS:
            raise DatasetError(f"{self.path} holds more than {MOST:,} values.")
        return self.done[place]

    def group(self, group: Any) -> tuple[Any, int]:
        names: list[str] = []  # a damaged group may yield any number of them

        def enough(name: bytes) -> bool | None:
            names.append(name.decode())
            return len(names) > CELLS or None

        group.id.links.iterate(enough)
        members = {name: self.member(group, name) for name in names}
        values = {name: value for name, (value, _) in members.items()}
        return values, sum(size for _, size in members.values()) + 1

    def array(self, item: Any) -> tuple[Any, int]:
        if item.external or item.is_virtual:
            raise DatasetError(f"{self.path} refers to another file.")
        references = self.h5py.check_ref_dtype(item.dtype) is self.h5py.Reference
        if item.dtype.hasobject and not references:
            raise DatasetError(f"{self.path} holds values of a kind that MATLAB does not write.")
        size = item.size or 0
        self.held += size * item.dtype.itemsize
        if self.held > 8 * MOST or (references and size > CELLS):
            raise DatasetError(f"{self.path} holds {size:,} values in one array: too many.")
        self.held += _check_chunks(self.path, item)
        values = item[()]
        if _is_empty(item):  # an empty array holds its shape
            if 0 not in values:
                raise DatasetError(f"{self.path} has an empty array whose shape is not empty.")
            return np.zeros(tuple(int(n) for n in values)), 1
        if references:  # to objects in the same file
            cells = [self.convert(item.file[reference]) for reference in values.ravel()]
            return [value for value, _ in cells], sum(number for _, number in cells) + 1
        return values.T, size + 1  # MATLAB stores columns first


def _is_empty(item: Any) -> bool:
    if "MATLAB_empty" not in item.attrs:
        return False
    stored = item.attrs.get_id("MATLAB_empty")
    return stored.shape == () and stored.dtype.kind in "biu" and bool(item.attrs["MATLAB_empty"])


def _check_chunks(path: Path, item: Any) -> int:
    """The unpacked bytes of an array's chunks, each of which must be exactly as long as it states:
    HDF5 fills what is missing from its own memory, and allocates memory for any excess."""
    if item.chunks is None:
        return 0
    long = math.prod(item.chunks) * int(item.dtype.itemsize)
    number = math.prod(-(-side // part) for side, part in zip(item.shape, item.chunks))
    if number > CHUNKS or long * number > 8 * MOST:
        raise DatasetError(f"{path} holds an array whose chunks are too large or too many.")
    plan = item.id.get_create_plist()
    filters = [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]
    if set(filters) - {DEFLATE, SHUFFLE, FLETCHER32} or len(set(filters)) < len(filters):
        raise DatasetError(f"{path} is compressed in a way that MATLAB does not use.")
    starts = (range(0, side, part) for side, part in zip(item.shape, item.chunks))
    for place in product(*starts):
        if item.id.get_chunk_info_by_coord(place).size:
            mask, packed = item.id.read_direct_chunk(place)
            if mask or _unpacked(packed, filters, long) != long:
                raise DatasetError(f"{path} unpacks to a size that does not match its arrays.")
    return int(long * number)


def _unpacked(packed: bytes, filters: list[int], limit: int) -> int:
    """The bytes of a chunk without its checksum, wherever that stands among the filters."""
    checksum = 4 if FLETCHER32 in filters else 0
    if DEFLATE not in filters:
        return len(packed) - checksum
    if checksum and filters.index(FLETCHER32) > filters.index(DEFLATE):
        checksum = 0  # it follows the packed data
    return len(zlib.decompressobj().decompress(packed, limit + checksum + 1)) - checksum
