"""Finds a model's files in a folder or on the Hub, and reads them or explains why it cannot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, SupportsFloat

from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from . import jsonkeys
from .hub import explain
from .paths import is_file, is_folder

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
DRAFT = ".saving-"  # prefix of a folder for files that are to be put in place
OLDER = "older"  # inside it: the files that they replace
SMALLEST, LARGEST = 1e-6, 1e6  # bounds on divisors of pictures and maps: no float32 overflows
ENTRIES = (  # of config.json: the constructor's arguments
    "variant",
    "mean",
    "std",
    "density_scale",
    "min_side",
    "working_pixels",
    "largest_sigma",
    "training_record",
    "metrics",
    "interval",
)
BILLION = 10**9  # pixels: more than any picture has
LONGEST = 1000  # characters of a name: a longer one is a mistake, and too long to show


class ModelError(RuntimeError):
    """A model folder, Hub repository or weights file is unusable; the message says why."""


class NewerError(ModelError):
    """A model with entries in its configuration that this version does not know."""


def printable(name: str) -> str:
    """A file name for a record: bytes that are not UTF-8, as Linux allows, are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


IN_THE_WAY = (
    "{0} is a local folder, and local folders have no revisions: omit {1}, or run from another "
    "directory to use the Hub repository."
)


def with_revision(source: str | Path, revision: str | None) -> tuple[str | Path, str | None]:
    """Split off the branch, tag or commit at the end of ``org/name@v1``; for any other source,
    return it with the given revision.

    Raises:
        ModelError: if both are given and differ, or a folder is in the way.
    """
    if is_local(source):
        return source, revision
    if revision and str(source).count("/") == 1 and is_folder(source):
        raise ModelError(IN_THE_WAY.format(source, revision))
    repository, _, named = str(source).partition("@")
    if is_folder(source) or is_file(source) or not named or repository.count("/") != 1:
        return source, revision
    if is_folder(repository):
        raise ModelError(IN_THE_WAY.format(repository, f"@{named}"))
    if revision not in (None, named):
        raise ModelError(f"{source} and revision {revision!r} differ: give only one of the two.")
    return repository, named


def is_local(source: str | Path) -> bool:
    """Whether a source can only be a folder, not a Hub repository, even if it does not exist."""
    return isinstance(source, Path) or Path(source).is_absolute() or source.startswith(".")


def find_file(source: str | Path, name: str, options: dict[str, Any]) -> Path:
    """Find a file in a model's folder, or fetch it from a Hub repository with `options`.

    Raises:
        ModelError: if the folder, file or repository does not exist, or the Hub refuses.
    """
    folder = Path(source)
    if len(str(source)) > LONGEST:
        raise ModelError(f"A model name of {len(str(source)):,} characters is too long.")
    if is_folder(folder):
        if not os.access(folder, os.X_OK):
            raise ModelError(f"The model folder {folder} cannot be read: permission denied.")
        if not is_file(folder / name):
            raise ModelError(f"The model folder {folder} has no {name}.")
        return folder / name
    if is_file(folder) and folder.suffix.lower() == ".xml":
        raise ModelError(
            f"{folder} is a model for OpenVINO, which can count but cannot be exported or trained: "
            "give the model's folder."
        )
    if is_file(folder):
        raise ModelError(
            f"{folder} is a file: give a model folder (csrnet convert makes one from a checkpoint) "
            "or an .xml file of csrnet export."
        )
    # A name without an owner is not on the Hub either, so it need not be asked.
    if is_local(source) or str(source).count("/") != 1 or (os.sep != "/" and os.sep in str(source)):
        name = "org/name, given as a string" if isinstance(source, Path) else "org/name"
        raise ModelError(f"There is no model folder {folder}. A model on the Hub is {name}.")
    try:
        return Path(hf_hub_download(str(source), name, **options))
    except Exception as error:  # the client lets many transport errors through
        local_only = options["local_files_only"]
        reason = explain(error, str(source), name, options["revision"], local_only)
        raise ModelError(reason) from error


def read_config(path: Path) -> dict[str, Any]:
    """The entries of a config.json, the constructor's arguments.

    Raises:
        ModelError: if it cannot be read, or as for :func:`entries`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors add a byte-order mark
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ModelError(f"{path.name} is not valid JSON: {error}.") from error
    return entries(text, path.name)


def entries(text: str, name: str) -> dict[str, Any]:
    """Parse the entries of a JSON configuration from the file `name`.

    Raises:
        NewerError: if it has entries that this version does not know.
        ModelError: if it is not JSON, or not a CSRNet's.
    """
    try:
        config = jsonkeys.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name} is not valid JSON: {error}.") from error
    if not isinstance(config, dict) or "variant" not in config:
        raise ModelError(f"{name} is not a CSRNet configuration: it has no variant.")
    if unknown := sorted(config.keys() - set(ENTRIES)):
        raise NewerError(
            f"{name} has entries that this version does not know ({', '.join(unknown)}), written "
            "by a newer csrnet-hub or other code: update csrnet-hub."
        )
    return config


def number(value: Any, name: str) -> float:
    """Convert a number to float; ModelError if it is none, or so large that counts overflow."""
    if isinstance(value, (str, bool)) or not isinstance(value, SupportsFloat):
        raise ModelError(f"{name} must be a number, not {value!r:.80}.")
    large: Any = value  # an int may be too large for a float
    if not -LARGEST <= large <= LARGEST:
        raise ModelError(f"{name} must be from -{LARGEST:g} to {LARGEST:g}, not {value!r:.80}.")
    return float(value)


def whole_number(value: Any, name: str) -> int:
    """Check a whole number from 0 to a billion; ModelError if it is none."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not 0 <= value <= BILLION:
        raise ModelError(f"{name} must be a whole number from 0 to a billion, not {value!r:.80}.")
    return int(value)


def three_numbers(values: Any, name: str) -> tuple[float, ...]:
    """Numbers for red, green and blue; ModelError if there are not three."""
    if isinstance(values, (str, Mapping)) or not isinstance(values, Iterable):
        raise ModelError(f"{name} must be three numbers, not {values!r:.80}.")
    found = tuple(number(value, name) for value in values)
    if len(found) != 3:
        raise ModelError(f"{name} must be three numbers, not {len(found)}.")
    return found


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file's tensors by name.

    Raises:
        ModelError: if it is damaged, or of a kind that this torch does not support.
    """
    try:
        path.open("rb").close()  # safetensors would report an unreadable file as missing
        return load_file(path)
    except (SafetensorError, OSError, ValueError, LookupError, AttributeError) as error:
        raise ModelError(f"{path.name} cannot be read as safetensors: {error}.") from error


def put_in_place(draft: Path, folder: Path) -> None:
    """Move the files of a draft, a `DRAFT` folder inside a folder, into that folder in place of
    older ones, all or none. After a power cut or a hard kill `end_unfinished` repairs it.

    Raises:
        OSError: if a file cannot be moved or replaced; the folder is as it was before.
    """
    # the weights first: a new folder without a configuration is not a model yet
    names = sorted((path.name for path in draft.iterdir()), reverse=True)
    for name in names:
        with (draft / name).open("rb+") as file:  # a power cut must not leave empty files
            os.fsync(file.fileno())
    older = draft / OLDER
    older.mkdir()
    try:
        for name in names:
            if os.path.lexists(folder / name):
                _keep_too(folder / name, older / name)
            (draft / name).replace(folder / name)  # atomic: nobody sees the folder without it
    except BaseException:  # Ctrl+C too
        for name in names:
            if os.path.lexists(draft / name):  # it has not been moved yet
                continue
            if os.path.lexists(older / name):
                (older / name).replace(folder / name)
            else:  # there was none before
                (folder / name).unlink()
        raise


def end_unfinished(folder: Path) -> None:
    """Put back what a killed `put_in_place` had replaced before it finished, and remove its drafts.
    Nobody else may be saving to the folder.

    Raises:
        OSError: if a file cannot be put back.
    """
    for draft in folder.glob(f"{DRAFT}*"):
        if any(path.name != OLDER for path in draft.iterdir()):
            for path in (draft / OLDER).glob("*"):
                if not os.path.lexists(draft / path.name):  # its successor has already replaced it
                    path.replace(folder / path.name)
        shutil.rmtree(draft, ignore_errors=True)


def _keep_too(path: Path, other: Path) -> None:
    try:
        os.link(path, other, follow_symlinks=False)
    except (OSError, NotImplementedError):  # a file system without hard links
        shutil.copy2(path, other, follow_symlinks=False)
