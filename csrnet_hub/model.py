"""CSRNet (Li, Zhang, Chen, CVPR 2018, arXiv:1802.10062) as a model of the Hugging Face Hub."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from huggingface_hub import HfApi, ModelCard, PyTorchModelHubMixin
from safetensors.torch import save
from torch import Tensor, nn

from . import winograd
from .card import (
    CARD_NAME,
    OTHER_FIGURES,
    has_other_figures,
    may_be_replaced,
    model_card,
    read_card,
)
from .intervals import PredictionInterval
from .model_files import (
    CONFIG_NAME,
    ENTRIES,
    SMALLEST,
    WEIGHTS_NAME,
    ModelError,
    NewerError,
    find_file,
    is_folder,
    number,
    put_in_place,
    read_config,
    read_safetensors,
    three_numbers,
    whole_number,
    with_revision,
)
from .publish import MESSAGE, publish

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
STRIDE = 8  # three poolings: one cell of the density map is 8 x 8 pixels

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Table 3 of the paper: the first ten layers of VGG-16 ("M": 2x2 max pooling), then the back end.
FRONTEND = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512)
BACKEND = (512, 512, 512, 256, 128, 64)
DILATIONS: dict[str, tuple[int, ...]] = {
    "A": (1, 1, 1, 1, 1, 1),
    "B": (2, 2, 2, 2, 2, 2),
    "C": (2, 2, 2, 4, 4, 4),
    "D": (4, 4, 4, 4, 4, 4),
}


class Conv3x3(nn.Conv2d):
    """A convolution that keeps the size; in training, Winograd's algorithm where that is faster."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        learning = self.training and torch.is_grad_enabled()
        if learning and self.bias is not None and winograd.pays(x, self.weight):
            return winograd.conv2d(x, self.weight, self.bias, int(self.dilation[0]))
        return super().forward(x)


def _layers(
    in_channels: int, widths: Sequence[int | str], dilations: Sequence[int]
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, dilation in zip(widths, dilations):
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
            continue
        layers.append(Conv3x3(in_channels, width, dilation))
        layers.append(nn.ReLU(inplace=True))
        in_channels = width
    return nn.Sequential(*layers)


class CSRNet(nn.Module, PyTorchModelHubMixin):
    """Front end of VGG-16 to conv4_3, dilated back end, 1x1 output layer (section 3.1, table 3).

    Layers are named and indexed as in the reference code (``frontend.0`` ... ``backend.10``,
    ``output_layer``), so state dicts in circulation load. New layers start from N(0, 0.01) with
    zero biases (section 3.2); the constructor never downloads: see :func:`load_vgg16_frontend`.

    Args:
        variant: back end of table 3: A (dilation 1), B (2), C (2 and 4), D (4).
        mean, std: of RGB in [0, 1]; a picture is normalised with them before ``forward``.
        density_scale: ``forward`` gives heads per cell times this factor.
        min_side: pixels; a picture with a shorter side is counted enlarged (0: as it is), since
            training enlarged such pictures too.
        working_pixels: a picture of more is counted shrunk to so many, then once more, larger, if
            its crowd is dense (0: as it is); see `csrnet_hub.scale`.
        largest_sigma: pixels; standard deviation of the widest kernels of the training pictures. A
            picture whose heads turn out wider in the map is counted shrunk (0: as it is).
        training_record: how the weights came to be; travels in config.json.
        metrics: error figures by data set; travels in config.json.
        interval: entries of a :class:`PredictionInterval`; travels in config.json.

    Raises:
        ModelError: for an unknown variant, or a mean, std, scale or size that is not usable.
    """

    def __init__(
        self,
        variant: str = "B",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        density_scale: float = 1.0,
        min_side: int = 0,
        working_pixels: int = 0,
        largest_sigma: float = 0.0,
        training_record: dict[str, Any] | None = None,
        metrics: dict[str, Any] | None = None,
        interval: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(variant, str) or variant not in DILATIONS:
            raise ModelError(f"There is no variant {variant!r}; choose one of A, B, C, D.")
        self.variant = variant
        self.mean, self.std = three_numbers(mean, "mean"), three_numbers(std, "std")
        self.density_scale = number(density_scale, "density_scale")
        if min(*self.std, self.density_scale) < SMALLEST:
            raise ModelError(f"std and density_scale must be at least {SMALLEST:g}.")
        self.min_side = whole_number(min_side, "min_side")
        self.working_pixels = whole_number(working_pixels, "working_pixels")
        self.largest_sigma = number(largest_sigma, "largest_sigma")
        if self.largest_sigma != 0 and self.largest_sigma < SMALLEST:
            raise ModelError(f"largest_sigma must be 0, or at least {SMALLEST:g}.")
        for name, value in (("training_record", training_record), ("metrics", metrics)):
            if not isinstance(value, (dict, type(None))):
                raise ModelError(f"{name} must hold names with values, not {value!r:.80}.")
        self.training_record = training_record
        self.metrics = metrics
        try:
            self.interval = PredictionInterval(**interval) if interval else None
        except (TypeError, ValueError) as error:
            raise ModelError(f"interval is not usable: {error}.") from error
        self.frontend = _layers(3, FRONTEND, [1] * len(FRONTEND))
        self.backend = _layers(int(FRONTEND[-1]), BACKEND, DILATIONS[variant])
        self.output_layer = nn.Conv2d(BACKEND[-1], 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures (B, 3, H, W) to density maps (B, 1, H//8, W//8).

        The maps are in heads per cell of 8x8 pixels, times ``density_scale``.
        """
        x = self.frontend(x)  # (B, 512, H//8, W//8)
        x = self.backend(x)  # (B, 64, H//8, W//8)
        density: Tensor = self.output_layer(x)  # (B, 1, H//8, W//8)
        return density

    def config(self) -> dict[str, Any]:
        """The content of config.json: the constructor's arguments, NumPy's numbers as Python's.

        What is no number, such as an error that overflowed, is None: JSON has no form for it.

        Raises:
            ModelError: if the training record or the metrics hold what JSON has no form for.
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
        repo_id: str | None = None,
        commit_message: str = MESSAGE,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str | None:
        """Write a folder that ``from_pretrained`` reads: config.json, model.safetensors, README.md.

        They take the places of older ones together, once all are written; a card (README.md) that
        somebody edited is kept, with a warning if it gives error figures that are not this model's.
        The other options are for :meth:`push_to_hub`, which is called if asked for, with the
        folder's name as the repository's where ``repo_id`` gives none.

        Raises:
            ModelError: if config.json cannot hold the model's record.
            OSError: if the folder cannot be written, such as on a full disk. After either error the
                folder holds what it held.
        """
        self.config()  # before a folder is made for what cannot be saved
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".saving-", dir=folder) as draft:
            super().save_pretrained(draft)
            names, card = [WEIGHTS_NAME, CONFIG_NAME], folder / CARD_NAME
            if may_be_replaced(card):
                names.append(CARD_NAME)
            elif has_other_figures(read_card(card), read_card(Path(draft) / CARD_NAME)):
                warnings.warn(OTHER_FIGURES.format(card), stacklevel=2)
            put_in_place(Path(draft), folder, names)
        if not push_to_hub:
            return None
        return self.push_to_hub(
            repo_id or folder.name,
            commit_message=commit_message,
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        text = json.dumps(self.config(), indent=2) + "\n"
        state = {key: value.contiguous().cpu() for key, value in self.state_dict().items()}
        # not save_file, whose files nobody but their owner may read
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
        """Publish the model on the Hub in one commit; the commit's address.

        The repository and the branch are made where there are none. A card that somebody edited
        there stays as it is, with a warning; what somebody commits meanwhile is not written over.
        ``python -m train.push`` publishes a folder, and then loads it back to compare.

        Raises:
            ModelError: if ``private`` is asked for, but the repository is there and public.
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
        return model_card(self)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> CSRNet:
        """Load a model from a folder or a Hub repository, in float32, on the CPU, in eval mode.

        Strict: config.json and model.safetensors must be there, and every tensor must be there,
        none besides, each of the right shape. A branch, tag or commit of a repository is given as
        `revision`, or with the name: ``org/name@v1``.

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
        # Weights of the same commit, whatever is pushed meanwhile: the cache's folder has its name.
        options["revision"] = config_file.parent.name
        weights_file = find_file(source, WEIGHTS_NAME, options)
        try:
            return cls._from_files(config_file, weights_file)
        except ModelError as error:
            trouble = f"The Hub repository {source} gave no usable CSRNet: {error}"
            if isinstance(error, NewerError):
                raise NewerError(trouble) from error
            raise ModelError(
                f"{trouble} Delete {config_file.parents[2]} and load it again; if that does not "
                "help, its owner has to publish it again."
            ) from error

    @classmethod
    def _from_files(cls, config_file: Path, weights_file: Path) -> CSRNet:
        config = read_config(config_file)
        try:
            with torch.device("meta"):  # no random numbers are drawn only to be written over
                model = cls(**config).float()  # whatever the program's default type is
        except (TypeError, ValueError, ModelError) as error:
            reason = str(error).rstrip(".")
            raise ModelError(f"{CONFIG_NAME} has an entry of no use: {reason}.") from error
        with torch.device("cpu"):  # whatever the program's default is
            model = model.to_empty(device="cpu")
            model.load_strictly(read_safetensors(weights_file))
        return model.eval()

    def load_strictly(self, state: Mapping[str, Tensor]) -> None:
        """Copy a state dict in, of any floating type that all of torch's operations know.

        Raises:
            ModelError: naming tensors that are missing, extra, wrongly shaped, of another type, or
                hold values that are not finite in the model's own.
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
        self.load_state_dict(dict(state))


def _plain(value: Any) -> Any:
    """The interval and NumPy's numbers as JSON has them."""
    if isinstance(value, PredictionInterval):
        return asdict(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{value!r:.80} of type {type(value).__name__} has no form in JSON")


def _kind(tensor: Tensor) -> str:
    """What a tensor holds, if it is anything but plain floating-point numbers."""
    if tensor.layout is not torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    return "" if tensor.dtype in FLOATS else str(tensor.dtype).removeprefix("torch.")


def load_vgg16_frontend(model: CSRNet, source: str | Path = "torchvision") -> None:
    """Fill the front end with ImageNet's VGG-16 (section 3.1 of the paper).

    Args:
        source: ``"torchvision"`` (which downloads ``VGG16_Weights.IMAGENET1K_V1``) or a safetensors
            file with keys ``features.{index}.{weight,bias}`` as torchvision names them.

    Raises:
        ModelError: if a tensor is missing or has the wrong shape.
    """
    if str(source) == "torchvision":
        try:
            from torchvision.models import VGG16_Weights, vgg16

            state = vgg16(weights=VGG16_Weights.IMAGENET1K_V1).state_dict()
        except (ImportError, RuntimeError, OSError) as error:  # absent, for another torch, offline
            raise ModelError(
                f"VGG-16 cannot be had from torchvision ({error}); give a safetensors file of it "
                "(--vgg in train.fit)."
            ) from error
    else:
        if not Path(source).is_file():
            raise ModelError(f"There is no file {source} with VGG-16 weights.")
        state = read_safetensors(Path(source))
    full = model.state_dict()
    for key in (name for name in full if name.startswith("frontend.")):
        found = state.get(key.replace("frontend", "features", 1))
        if found is None or found.shape != full[key].shape:
            raise ModelError(f"{source} is not a VGG-16: no usable tensor for {key}.")
        full[key] = found
    model.load_state_dict(full)


def receptive_field(model: CSRNet) -> tuple[int, int]:
    """First and last input pixel that reach the density map's cell 0, on one axis (pixels).

    Cell i sees pixels ``8 i + first`` to ``8 i + last``, both included; computed from the layers.
    """
    first = last = 0
    for layer in reversed([*model.frontend, *model.backend, model.output_layer]):
        if not isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
            continue
        kernel, stride, padding, dilation = (
            int(value[0] if isinstance(value, tuple) else value)
            for value in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        )
        first = first * stride - padding
        last = last * stride - padding + (kernel - 1) * dilation
    return first, last
