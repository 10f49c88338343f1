"""Saves a network to a folder or Hub repository and loads it again unchanged."""

from __future__ import annotations

import copy
import json
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch
from huggingface_hub import HfApi, ModelCard, PyTorchModelHubMixin
from safetensors.torch import save
from torch import Tensor, nn

from .card import (
    CARD_NAME,
    OTHER_FIGURES,
    OTHER_MODEL,
    card_of,
    has_other_figures,
    may_be_replaced,
    read_card,
)
from .intervals import PredictionInterval
from .model_files import (
    CONFIG_NAME,
    DRAFT,
    ENTRIES,
    WEIGHTS_NAME,
    ModelError,
    NewerError,
    find_file,
    put_in_place,
    read_config,
    read_safetensors,
    with_revision,
)
from .paths import is_folder
from .publish import MESSAGE, publish

MEASURED = ("metrics", "interval")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

Model = TypeVar("Model", bound="Pretrained")


class Pretrained(nn.Module, PyTorchModelHubMixin):
    """Saving, publishing and loading for a network whose constructor takes the entries of
    config.json (``ENTRIES``) and keeps each as an attribute of the same name."""

    _loaded: Any = None  # what was measured with the weights, and their checksum

    def config(self) -> dict[str, Any]:
        """The content of config.json: the constructor's arguments, with NumPy numbers as Python's.

        NaN and infinities, such as an error that overflowed, become None: JSON cannot express them.

        Raises:
            ModelError: if the training record or the metrics contain what JSON cannot express.
        """
        content = {name: getattr(self, name) for name in ENTRIES}
        try:
            text = json.dumps(content, default=_plain)
            plain: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
        except (TypeError, ValueError) as error:
            raise ModelError(f"{CONFIG_NAME} cannot hold this model's record: {error}.") from error
        return plain

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        *,
        push_to_hub: bool = False,
        **options: Any,
    ) -> str | None:
        """Write a folder that ``from_pretrained`` reads: config.json, model.safetensors, README.md.

        Once all are written, they replace any older ones together. An edited card (README.md) is
        kept, with a warning if it gives error figures that are not this model's or if config.json
        has changed. If the weights have changed since they were loaded, the errors and the interval
        that were loaded with them are dropped, with a warning. The other options are passed to
        :meth:`push_to_hub`, which is called if requested; without a ``repo_id`` the repository is
        named after the folder.

        Raises:
            TypeError: for such options without ``push_to_hub=True``.
            ModelError: if config.json cannot hold the model's record.
            OSError: if the folder cannot be written, for example on a full disk. After a ModelError
                or OSError the folder is as it was before.
        """
        if options and not push_to_hub:
            raise TypeError(f"{', '.join(options)} can only be given with push_to_hub=True")
        self._drop_errors_of_others()
        self.config()  # before creating a folder for what cannot be saved
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=DRAFT, dir=folder) as draft:
            super().save_pretrained(draft)
            if not may_be_replaced(folder / CARD_NAME):
                if stale := _stale(folder, Path(draft)):
                    warnings.warn(stale.format(folder / CARD_NAME), stacklevel=2)
                (Path(draft) / CARD_NAME).unlink()
            put_in_place(Path(draft), folder)
        if not push_to_hub:
            return None
        return self.push_to_hub(options.pop("repo_id", None) or folder.name, **options)

    def _drop_errors_of_others(self) -> None:
        loaded = self._loaded
        if not loaded or loaded["weights"] == _checksum(self):
            return
        stale = [name for name in MEASURED if loaded[name] and loaded[name] == getattr(self, name)]
        for name in stale:
            setattr(self, name, None)
        if stale:
            warnings.warn(
                "The weights have changed, so what was measured with the loaded ones was dropped "
                f"({', '.join(stale)}): measure anew, as train.evaluate does.",
                stacklevel=3,
            )

    def _save_pretrained(self, save_directory: Path) -> None:
        text = json.dumps(self.config(), indent=2) + "\n"
        state = {key: value.contiguous().cpu() for key, value in self.state_dict().items()}
        # not save_file, whose files only their owner can read
        (save_directory / WEIGHTS_NAME).write_bytes(save(state, metadata={"format": "pt"}))
        (save_directory / CONFIG_NAME).write_text(text, encoding="utf-8")

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        commit_message: str = MESSAGE,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Publish the model on the Hub in one commit and return the commit's address.

        A missing repository or branch is created. A card that was edited there is kept, with a
        warning, and concurrent commits by others are not overwritten.
        ``python -m train.push`` publishes a folder and loads it back to compare.

        Raises:
            ModelError: if ``private`` is requested, but the repository exists and is public.
            huggingface_hub.errors.HfHubHTTPError: if the Hub refuses.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        published = publish(
            HfApi(token=token, library_name="csrnet-hub"),
            files,
            repo_id,
            private=private,
            branch=branch,
            message=commit_message,
            create_pr=create_pr,
        )
        if published.remark:
            warnings.warn(published.remark, stacklevel=2)
        return published.address

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card that ``save_pretrained`` and ``push_to_hub`` write: model_card.md, filled in."""
        return ModelCard(card_of(self.config()))

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls: type[Model],
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Model:
        """Load a model from a folder or a Hub repository, in float32, on the CPU, in eval mode.

        Strict: config.json and model.safetensors must exist, with exactly the expected tensors,
        each of the right shape. A branch, tag or commit of a repository is given as `revision` or
        with the name, as in ``org/name@v1``; a folder has no revisions.

        Raises:
            ModelError: if any of that does not hold, or the Hub cannot be reached or refuses.
        """
        source, revision = with_revision(pretrained_model_name_or_path, revision)
        options = {
            "revision": revision,
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
            "token": token,
        }
        config_file = find_file(source, CONFIG_NAME, options)
        if is_folder(source):
            return cls._from_files(config_file, find_file(source, WEIGHTS_NAME, options))
        # Take weights of the same commit despite concurrent pushes: the cache folder is named so.
        options["revision"] = config_file.parent.name
        weights_file = find_file(source, WEIGHTS_NAME, options)
        try:
            return cls._from_files(config_file, weights_file)
        except ModelError as error:
            trouble = f"The Hub repository {source} holds no usable CSRNet: {error}"
            if isinstance(error, NewerError):
                raise NewerError(trouble) from error
            raise ModelError(
                f"{trouble} Delete {config_file.parents[2]} and load it again. If that does not "
                "help, its owner has to publish it again."
            ) from error

    @classmethod
    def _from_files(cls: type[Model], config_file: Path, weights_file: Path) -> Model:
        config = read_config(config_file)
        try:
            # "meta" draws no random numbers; what is made in inference mode could not be trained
            with torch.device("meta"), torch.inference_mode(False):
                model = cls(**config).float()  # whatever the program's default dtype is
        except (TypeError, ValueError, ModelError) as error:
            reason = str(error).rstrip(".")
            raise ModelError(f"{CONFIG_NAME} has an invalid entry: {reason}.") from error
        # whatever the program's default device is
        with torch.device("cpu"), torch.inference_mode(False):
            model = model.to_empty(device="cpu")
            model.load_strictly(read_safetensors(weights_file))
        measured = {name: getattr(model, name) for name in MEASURED}
        if any(measured.values()):
            model._loaded = {**copy.deepcopy(measured), "weights": _checksum(model)}
        return model.eval()

    def load_strictly(self, state: Mapping[str, Tensor]) -> None:
        """Copy in a state dict of any floating type that all of torch's operations support.

        Raises:
            ModelError: naming tensors that are missing, extra, wrongly shaped, of another type, or
                not finite in the model's own type.
        """
        own = self.state_dict()
        trouble = [f"{key} is missing" for key in own if key not in state]
        trouble += [f"{key} does not belong to CSRNet" for key in state if key not in own]
        trouble += [
            f"{key} has shape {tuple(state[key].shape)} in place of {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ]
        kinds = {key: _kind(state[key]) for key in own if key in state}
        trouble += [f"{key} holds {kind} values" for key, kind in kinds.items() if kind]
        trouble += [
            f"{key} holds values that are not finite"
            for key, kind in kinds.items()
            if not kind and not torch.isfinite(state[key].to(own[key].dtype)).all()
        ]
        if trouble:
            more = f", and {len(trouble) - 4} more" if len(trouble) > 4 else ""
            raise ModelError(f"The weights do not fit CSRNet: {'; '.join(trouble[:4])}{more}.")
        self.load_state_dict(state)


def _checksum(model: nn.Module) -> int:
    found = 0
    for value in model.state_dict().values():
        found = zlib.crc32(value.cpu().float().contiguous().numpy(), found)
    return found


def _stale(folder: Path, draft: Path) -> str:
    """A remark on a folder's card that is kept beside a draft's new files, if one is needed."""
    if has_other_figures(read_card(folder / CARD_NAME), read_card(draft / CARD_NAME)):
        return OTHER_FIGURES
    before, now = folder / CONFIG_NAME, draft / CONFIG_NAME
    return OTHER_MODEL if before.is_file() and before.read_bytes() != now.read_bytes() else ""


def _plain(value: Any) -> Any:
    """Convert the interval and NumPy numbers to JSON types."""
    if isinstance(value, PredictionInterval):
        return asdict(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{value!r:.80} of type {type(value).__name__} cannot be written as JSON")


def _kind(tensor: Tensor) -> str:
    """The kind of a tensor's content, unless it is plain floating-point numbers."""
    if tensor.layout is not torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    return "" if tensor.dtype in FLOATS else str(tensor.dtype).removeprefix("torch.")
