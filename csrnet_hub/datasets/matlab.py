""".mat files of MATLAB 5 to 7.3 as plain dictionaries, lists and arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import matfile_version

from ..paths import is_file
from .files import actual
from .hdf5 import from_hdf5
from .matlab5 import check_mat5
from .sample import DatasetError

_HDF5 = (b"MATLAB 7.3", b"\x89HDF")


def load_mat(path: Path, key: str) -> Any:
    """An entry of a .mat file: an array as MATLAB shows it, a struct as a dictionary, a cell array
    or an array of structs as a list in MATLAB's order.

    Raises:
        DatasetError: naming the file and what is wrong with it.
    """
    path = actual(path)
    if not is_file(path):
        raise DatasetError(f"The annotation {path} is missing.")
    try:
        content = from_hdf5(path, key) if is_hdf5(path) else _from_mat5(path, key)
    except DatasetError:
        raise
    except Exception as error:  # scipy and h5py raise many kinds on damaged files
        what = "an HDF5" if path.suffix.lower() in (".h5", ".hdf5") else "a .mat"
        raise DatasetError(f"{path} cannot be read as {what} file: {error}.") from error
    if key not in content:
        raise DatasetError(f"{path} has no entry {key}.")
    return _plain(content[key])


def is_hdf5(path: Path) -> bool:
    """Whether a file is in MATLAB 7.3's format."""
    with path.open("rb") as stream:
        return stream.read(16).startswith(_HDF5)


def _from_mat5(path: Path, key: str) -> dict[str, Any]:
    with path.open("rb") as stream:
        if matfile_version(stream)[0] != 1:  # MATLAB 4, whose sizes SciPy trusts
            raise DatasetError(f"{path} is in an old version that is not read: save it with -v7.")
    check_mat5(path, key)
    content: dict[str, Any] = loadmat(path, variable_names=[key])
    return content


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.names:
        names = value.dtype.names
        records = [{name: _plain(item[name]) for name in names} for item in value.ravel("F")]
        return records[0] if len(records) == 1 else records
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [_plain(item) for item in value.ravel("F")]
    return value
