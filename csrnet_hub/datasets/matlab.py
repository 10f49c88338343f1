""".mat files of every version as plain dictionaries, lists and arrays."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from .files import actual
from .sample import DatasetError

MOST = 2**24  # values in one array: a mask of 16 megapixels
_COMPRESSED = 15  # type of an element, in MATLAB's MAT-file format
_HDF5 = (b"MATLAB 7.3", b"\x89HDF")


def load_mat(path: Path, key: str) -> Any:
    """An entry of a .mat file: an array as MATLAB shows it, a struct as a dictionary, a cell array
    or an array of structs as a list in MATLAB's order.

    Raises:
        DatasetError: naming the file and what is wrong with it.
    """
    path = actual(path)
    if not path.is_file():
        raise DatasetError(f"The annotation {path} is missing.")
    try:
        with path.open("rb") as stream:
            hdf5 = stream.read(16).startswith(_HDF5)
        if not hdf5:
            _check_size(path)
        content = _from_hdf5(path, key) if hdf5 else loadmat(path, variable_names=[key])
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


def _from_hdf5(path: Path, key: str) -> dict[str, Any]:
    try:
        import h5py
    except ImportError as error:
        raise DatasetError(f"{path} is of MATLAB 7.3: pip install h5py to read it.") from error

    done: dict[int, Any] = {}  # by place in the file: many links to one object are one object

    def member(group: Any, name: str) -> Any:
        # what lies elsewhere may be any file that this process may read, and its bytes a head each
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise DatasetError(f"{path} refers to another place than its own data.")
        return convert(group[name])

    def convert(item: Any) -> Any:
        place = h5py.h5o.get_info(item.id).addr
        if place not in done:
            done[place] = read(item)
        return done[place]

    def read(item: Any) -> Any:
        if isinstance(item, h5py.Group):
            return {name: member(item, name) for name in item}
        if item.external or item.is_virtual:
            raise DatasetError(f"{path} refers to another file.")
        if item.size is not None and item.size > MOST:
            raise DatasetError(f"{path} holds {item.size:,} values in one array: too many.")
        values = item[()]
        if item.attrs.get("MATLAB_empty"):  # an empty array holds its shape
            return np.zeros(tuple(int(n) for n in values) if 0 in values else 0)
        if values.dtype == object or h5py.check_ref_dtype(item.dtype):
            return [convert(item.file[reference]) for reference in values.ravel()]
        return values.T  # MATLAB stores columns first

    with h5py.File(path, "r") as file:
        return {key: member(file, key)} if key in file else {}


def _check_size(path: Path) -> None:
    """Refuse a file of MATLAB 5 to 7 whose compressed parts unpack to more than a picture needs."""
    with path.open("rb") as stream:
        header = stream.read(128)
        order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
        unpacked = 0
        while order and len(tag := stream.read(8)) == 8:
            kind, length = struct.unpack(order + "II", tag)
            if kind != _COMPRESSED:
                stream.seek(length, 1)
                continue
            packed = zlib.decompressobj()
            while length and (piece := stream.read(min(length, 2**16))):
                length -= len(piece)
                while piece:
                    unpacked += len(packed.decompress(piece, 2**20))
                    piece = packed.unconsumed_tail
                    if unpacked > 8 * MOST:
                        raise DatasetError(f"{path} unpacks to more than {8 * MOST:,} bytes.")
