""".mat files of every version as plain dictionaries, lists and arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from .files import actual
from .sample import DatasetError

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

    def convert(item: Any) -> Any:
        if isinstance(item, h5py.Group):
            return {name: convert(item[name]) for name in item}
        values = item[()]
        if item.attrs.get("MATLAB_empty"):
            return np.zeros(tuple(int(n) for n in values))  # an empty array holds its shape
        if values.dtype == object or h5py.check_ref_dtype(item.dtype):
            return [convert(item.file[reference]) for reference in values.ravel()]
        return values.T  # MATLAB stores columns first

    with h5py.File(path, "r") as file:
        return {key: convert(file[key])} if key in file else {}
