""".mat files of every version as plain dictionaries, lists and arrays."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import matfile_version

from .files import actual, is_there
from .hdf5 import CELLS, MOST, from_hdf5
from .sample import DatasetError

_MATRIX, _COMPRESSED, _INTEGERS = 14, 15, (5, 6)  # types of elements in MATLAB's MAT-file format
_CELLS, _STRUCTS = 1, (2, 3)  # classes of arrays; the latter's are structs and objects
_HDF5 = (b"MATLAB 7.3", b"\x89HDF")


def load_mat(path: Path, key: str) -> Any:
    """An entry of a .mat file: an array as MATLAB shows it, a struct as a dictionary, a cell array
    or an array of structs as a list in MATLAB's order.

    Raises:
        DatasetError: naming the file and what is wrong with it.
    """
    path = actual(path)
    if not is_there(path):
        raise DatasetError(f"The annotation {path} is missing.")
    try:
        with path.open("rb") as stream:
            hdf5 = stream.read(16).startswith(_HDF5)
        if not hdf5:
            _check_size(path)
        content = from_hdf5(path, key) if hdf5 else loadmat(path, variable_names=[key])
    except DatasetError:
        raise
    except Exception as error:  # scipy and h5py raise many kinds on damaged files
        what = "an HDF5" if path.suffix.lower() in (".h5", ".hdf5") else "a .mat"
        raise DatasetError(f"{path} cannot be read as {what} file: {error}.") from error
    if key not in content:
        raise DatasetError(f"{path} has no entry {key}.")
    return _plain(content[key])


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.names:
        names = value.dtype.names
        records = [{name: _plain(item[name]) for name in names} for item in value.ravel("F")]
        return records[0] if len(records) == 1 else records
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [_plain(item) for item in value.ravel("F")]
    return value


def _check_size(path: Path) -> None:
    """Refuse a file of MATLAB 5 to 7 that holds, or says that it holds, more than a picture needs;
    one of MATLAB 4 holds no more than its bytes."""
    with path.open("rb") as stream:
        if matfile_version(stream)[0] != 1:
            return
        stream.seek(126)
        order = "<" if stream.read(2) == b"IM" else ">"
        left = 8 * MOST
        while len(tag := stream.read(8)) == 8:
            kind, length = struct.unpack(f"{order}II", tag)
            content = stream.read(length)
            if kind == _COMPRESSED:
                content = zlib.decompressobj().decompress(content, left + 1)
            else:
                content = tag + content
            left -= len(content)
            if left < 0:
                raise DatasetError(f"{path} unpacks to more than {8 * MOST:,} bytes.")
            _check_arrays(path, np.frombuffer(content, f"{order}u4", len(content) // 4))


def _check_arrays(path: Path, words: NDArray[np.uint32]) -> None:
    """Refuse too many or too large arrays. Wherever they are nested, each is the words: 14, length,
    2 of a tag, flags, 1 more, then a tag and the sides; all lie at multiples of 4 bytes."""
    starts = np.flatnonzero(words == _MATRIX)
    if len(starts) > CELLS:
        raise DatasetError(f"{path} has more than {CELLS:,} arrays and cells.")
    for start in starts[starts < len(words) - 8]:  # an empty cell may be the tag alone
        kind = int(words[start + 4]) & 255
        if int(words[start + 6]) & 0xFFFF not in _INTEGERS:
            continue  # no array, but a value of 14
        first, length, end = _element(words, start + 6)
        number = math.prod(int(side) for side in words[first : first + min(length // 4, 32)])
        if kind in _STRUCTS:
            _, _, end = _element(words, end)  # the array's name
            if kind == _STRUCTS[1]:
                _, _, end = _element(words, end)  # that of its class
            first, _, end = _element(words, end)
            _, length, _ = _element(words, end)  # the names of the fields, each as long
            number = (
                max(1, number) * max(1, length // max(1, int(words[first])))
                if first < len(words)
                else 1
            )
        if number > (CELLS if kind in (_CELLS, *_STRUCTS) else MOST):
            raise DatasetError(f"{path} holds {number:,} values in one array: too many.")


def _element(words: NDArray[np.uint32], start: int) -> tuple[int, int, int]:
    """Where the content of an element starts, its length in bytes, and where the next one is."""
    if start + 1 >= len(words):
        return start, 0, start
    tag, length = int(words[start]), int(words[start + 1])
    if tag >> 16:  # few bytes stand in the tag itself
        return start + 1, tag >> 16, start + 2
    return start + 2, length, start + 2 + 2 * -(-length // 8)
