"""Converts other CSRNet code's state dicts to a folder for `CSRNet.from_pretrained`."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from .model import CSRNet
from .model_files import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    ModelError,
    NewerError,
    printable,
    read_config,
    read_safetensors,
)

LARGEST = 2**30  # bytes of an archive's arrays; the network's are 130 MB in double precision

FIRST = "frontend.0.weight"  # name of a tensor of the network


class _Ignored:
    """A NumPy number beside the weights, such as an epoch's error: it is ignored, since a file may
    lie about its type and bytes."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def _ignored(module: str, name: str) -> type[_Ignored]:
    return type(name, (_Ignored,), {"__module__": module, "__qualname__": name})


# By their names in a file; NumPy 2 renamed the module of the function that restores a number.
_NUMBERS: list[Any] = [
    _ignored("numpy", "dtype"),
    _ignored("numpy.core.multiarray", "scalar"),
    _ignored("numpy._core.multiarray", "scalar"),
]
_ONE_AT_A_TIME = Lock()  # torch's list of what a file may contain is global to the program


def convert(
    old: str | Path, new_folder: str | Path, variant: str = "B", density_scale: float | None = None
) -> None:
    """Turn a .pth.tar, .pth, .pt, .npz or .safetensors state dict into a model folder.

    Args:
        variant: of the network that wrote it; the file does not tell, since all four have tensors
            of the same shapes.
        density_scale: factor by which its output exceeds heads per cell (100 in some code); None:
            what the file says, as one saved from a `CSRNet` does, or else 1.

    Raises:
        ModelError: if the file cannot be read safely, does not contain a CSRNet or belongs to a
            model folder, or the new folder already has a model, a configuration or a card, or
            cannot be written.
    """
    folder = Path(new_folder)
    home = Path(old).parent
    if Path(old).name == WEIGHTS_NAME and _is_model(home):
        # converting it would lose its scale, which would multiply its counts
        raise ModelError(f"{old} needs no conversion: its folder {home} is already a model.")
    for name in (WEIGHTS_NAME, CONFIG_NAME, "README.md"):
        if (folder / name).exists():
            raise ModelError(f"{folder} already holds a {name}; give a new folder.")
    model = CSRNet(variant, density_scale=1.0 if density_scale is None else density_scale)
    asked = model.density_scale
    model.load_strictly(read_state_dict(Path(old)))
    if density_scale is not None:
        model.density_scale = asked
    model.training_record = {"converted_from": printable(Path(old).name)}
    try:
        model.save_pretrained(folder)
    except (OSError, SafetensorError) as error:  # for example, a full disk
        raise ModelError(f"{folder} could not be written: {error}") from error


def _is_model(folder: Path) -> bool:
    try:
        return bool(read_config(folder / CONFIG_NAME))
    except NewerError:
        return True
    except ModelError:  # there is none, or other code wrote it
        return False


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, without wrappers around them (such as ``state_dict``) and
    prefixes of their names (such as ``module.``).

    Raises:
        ModelError: if the file is missing, damaged, a checkpoint of train.fit, or would run code
            when loaded.
    """
    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    readers = {".safetensors": read_safetensors, ".npz": _read_npz}
    content = readers.get(path.suffix.lower(), _read_torch)(path)
    if isinstance(content, dict) and {"recipe", "average", "optimiser"} <= content.keys():
        # its weights alone would lose the scale, which would multiply its counts
        raise ModelError(
            f"{path} is a train.fit checkpoint, used only by --resume. The model is in the folder "
            "best beside it (refit after --refit), written at the first validation."
        )
    state = _unwrapped(content)
    if state is None:
        raise ModelError(
            f"{path.name} holds no state dict (names with tensors), or several: save only the "
            "network's."
        )
    first = next((key for key in state if f".{key}".endswith(f".{FIRST}")), FIRST)
    prefix = first.removesuffix(FIRST)  # for example, module. from nn.DataParallel
    named = OrderedDict((key.removeprefix(prefix), value) for key, value in state.items())
    about = getattr(state, "_metadata", None)  # of torch.save(model.state_dict()), with the scale
    of_model = about.get(prefix[:-1]) if isinstance(about, dict) else None
    if isinstance(of_model, dict):
        named._metadata = {"": of_model}  # type: ignore[attr-defined]
    return named


def _unwrapped(content: Any) -> Any:
    """A state dict, or the one nested in another dict under its usual name or as the only one."""
    if _is_state(content):
        return content
    if not isinstance(content, dict):
        return None
    found = {key: value for key, value in content.items() if _is_state(value) and value}
    for key in ("state_dict", "model", "net"):
        if key in found:
            return found[key]
    return next(iter(found.values())) if len(found) == 1 else None


def _is_state(content: Any) -> bool:
    return isinstance(content, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )


def _read_npz(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(file.file_size for file in archive.infolist())
        if size > LARGEST:
            raise ValueError(f"its arrays have {size:,} bytes, more than {LARGEST:,}")
        with np.load(path, allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    except Exception as error:  # a damaged archive raises a dozen kinds
        raise ModelError(f"{path.name} cannot be read as .npz without pickles: {error}.") from error


def _read_torch(path: Path) -> Any:
    try:
        with _ONE_AT_A_TIME, torch.serialization.safe_globals(_NUMBERS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path.name} holds more than tensors, or is not a torch checkpoint. It was not "
            "loaded, since that could run code from the file. If it is a model, save only its "
            "weights with the code that wrote it: torch.save(model.state_dict(), FILE)."
        ) from error
    except Exception as error:  # a damaged archive raises a dozen kinds
        raise ModelError(f"{path.name} cannot be read as a torch checkpoint.") from error
