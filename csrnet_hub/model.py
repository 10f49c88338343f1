"""CSRNet (Li, Zhang, Chen, CVPR 2018, arXiv:1802.10062) as a model of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import winograd
from .intervals import PredictionInterval
from .model_files import (
    SMALLEST,
    ModelError,
    number,
    read_safetensors,
    three_numbers,
    whole_number,
)
from .pretrained import Pretrained

STRIDE = 8  # three poolings: one cell of the density map is 8 x 8 pixels

COUNTING = "csrnet_hub"  # key of these in the metadata of state dicts
COUNTED_WITH = ("mean", "std", "density_scale", "min_side", "working_pixels", "largest_sigma")

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
    """A same-size convolution; in training it uses Winograd's algorithm where that is faster."""

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


class CSRNet(Pretrained):
    """Front end of VGG-16 to conv4_3, dilated back end, 1x1 output layer (section 3.1, table 3).

    Layers are named and indexed as in the reference code (``frontend.0`` ... ``backend.10``,
    ``output_layer``), so existing CSRNet state dicts load. New layers start from N(0, 0.01) with
    zero biases (section 3.2). The constructor never downloads: see :func:`load_vgg16_frontend`.

    Args:
        variant: back end of table 3: A (dilation 1), B (2), C (2 and 4), D (4).
        mean, std: RGB statistics in [0, 1], used to normalise a picture before ``forward``.
        density_scale: ``forward`` gives heads per cell times this factor.
        min_side: pixels; a picture with a shorter side is enlarged for counting, as it was in
            training (0: never).
        working_pixels: a picture with more pixels is shrunk to this size for counting, then counted
            again larger if its crowd is dense (0: never); see `csrnet_hub.scale`.
        largest_sigma: pixels; standard deviation of the widest kernels of the training pictures. A
            picture whose heads are wider than that in the map is counted shrunk (0: never).
        training_record: how the weights were trained; saved in config.json.
        metrics: error figures by data set; saved in config.json.
        interval: fields of a :class:`PredictionInterval`; saved in config.json.

    Raises:
        ModelError: if the variant is unknown, or a mean, std, scale or size is unusable.
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
        self._count_with(mean, std, density_scale, min_side, working_pixels, largest_sigma)
        for name, value in (("training_record", training_record), ("metrics", metrics)):
            if not isinstance(value, (dict, type(None))):
                raise ModelError(f"{name} must be a dictionary, not {value!r:.80}.")
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

    def _count_with(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        density_scale: float,
        min_side: int,
        working_pixels: int,
        largest_sigma: float,
    ) -> None:
        self.mean, self.std = three_numbers(mean, "mean"), three_numbers(std, "std")
        self.density_scale = number(density_scale, "density_scale")
        if min(*self.std, self.density_scale) < SMALLEST:
            raise ModelError(f"std and density_scale must be at least {SMALLEST:g}.")
        self.min_side = whole_number(min_side, "min_side")
        self.working_pixels = whole_number(working_pixels, "working_pixels")
        self.largest_sigma = number(largest_sigma, "largest_sigma")
        if self.largest_sigma != 0 and self.largest_sigma < SMALLEST:
            raise ModelError(f"largest_sigma must be 0, or at least {SMALLEST:g}.")

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # torch.save keeps the metadata: in a plain CSRNet() the weights alone would count wrongly
        about = getattr(destination, "_metadata", {}).get(prefix[:-1], {})
        about[COUNTING] = {name: getattr(self, name) for name in COUNTED_WITH}

    def _load_from_state_dict(
        self, state: Any, prefix: str, about: dict[str, Any], *rest: Any
    ) -> None:
        super()._load_from_state_dict(state, prefix, about, *rest)
        settings = about.get(COUNTING)
        if isinstance(settings, dict) and settings.keys() == set(COUNTED_WITH):
            self._count_with(**settings)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised pictures (B, 3, H, W) to density maps (B, 1, H//8, W//8).

        The maps are in heads per cell of 8x8 pixels, times ``density_scale``.
        """
        x = self.frontend(x)  # (B, 512, H//8, W//8)
        x = self.backend(x)  # (B, 64, H//8, W//8)
        density: Tensor = self.output_layer(x)  # (B, 1, H//8, W//8)
        return density


def load_vgg16_frontend(model: CSRNet, source: str | Path = "torchvision") -> None:
    """Load ImageNet VGG-16 weights into the front end (section 3.1 of the paper).

    Args:
        source: ``"torchvision"`` (which downloads ``VGG16_Weights.IMAGENET1K_V1``) or a safetensors
            file with keys ``features.{index}.{weight,bias}`` as torchvision names them.

    Raises:
        ModelError: if a tensor is missing, has the wrong shape or is not plain, finite numbers.
    """
    if str(source) == "torchvision":
        try:
            from torchvision.models import VGG16_Weights, vgg16

            state = vgg16(weights=VGG16_Weights.IMAGENET1K_V1).state_dict()
        except (ImportError, RuntimeError, OSError) as error:  # missing, for another torch, offline
            raise ModelError(
                f"VGG-16 could not be loaded from torchvision ({error}): give a safetensors file "
                "of its weights (--vgg in train.fit)."
            ) from error
    else:
        if not Path(source).is_file():
            raise ModelError(f"There is no file {source} with VGG-16 weights.")
        state = read_safetensors(Path(source))
    full = model.state_dict()
    for key in (name for name in full if name.startswith("frontend.")):
        found = state.get(key.replace("frontend", "features", 1))
        if found is None or found.shape != full[key].shape:
            raise ModelError(f"{source} is not a VGG-16: it has no usable tensor for {key}.")
        full[key] = found
    model.load_strictly(full)


def receptive_field(model: CSRNet) -> tuple[int, int]:
    """First and last input pixels that affect cell 0 of the density map, along one axis.

    Cell i sees pixels ``8 i + first`` to ``8 i + last`` inclusive; computed from the layers.
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
