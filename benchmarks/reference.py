"""The reference that the product is compared with: CSRNet and its ground truth as the paper
describes them, step by step, in float32, without optimisations."""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from scipy.special import erf
from torch import Tensor, nn

from csrnet_hub.model import CSRNet

BYTES_A_PIXEL = 2 * 64 * 4  # the first layers: input and output maps of 64 channels in float32


class ReferenceCounter:
    """Counts the whole picture at once with torch's plain layers, channels first.

    Args:
        model: the model whose weights are copied.
        device: where it runs.
    """

    def __init__(self, model: CSRNet, device: torch.device) -> None:
        layers = [*model.frontend, *model.backend, model.output_layer]
        plain = [_plain(layer) for layer in layers]
        self.network = nn.Sequential(*plain).float().eval().to(device)
        self.scale, self.device = model.density_scale, device
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (model.mean, model.std))

    def count(self, photo: bytes) -> float:
        """The number of people in a picture, given as the bytes of its file."""
        pixels = np.array(Image.open(io.BytesIO(photo)).convert("RGB"))  # (H, W, 3)
        x = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        x = ((x - self.mean) / self.std)[None].to(self.device)  # (1, 3, H, W)
        with torch.no_grad():
            density: Tensor = self.network(x)
        return float(density.sum()) / self.scale


def _plain(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, nn.Conv2d):
        return layer
    side, padding, dilation = layer.kernel_size[0], int(layer.padding[0]), layer.dilation[0]
    plain = nn.Conv2d(
        layer.in_channels, layer.out_channels, side, padding=padding, dilation=dilation
    )
    plain.load_state_dict({name: value.contiguous() for name, value in layer.state_dict().items()})
    return plain


def reference_density(heads: ArrayLike, height: int, width: int) -> NDArray[np.float32]:
    """A density map made by filtering the whole picture with a Gaussian for each head (equation 1
    and section 3.2 of the paper: beta 0.3, k 3).

    Args:
        heads: (N, 2) x, y in pixels, N at least 4.

    Returns:
        (height, width) heads per pixel.
    """
    points = np.asarray(heads, dtype=np.float64)
    distances, _ = cKDTree(points).query(points, k=4)  # the first is the head itself
    total = np.zeros((height, width), dtype=np.float32)
    for (x, y), near in zip(points, distances):
        single = np.zeros((height, width), dtype=np.float32)
        single[int(y), int(x)] = 1
        total += gaussian_filter(single, 0.3 * near[1:].mean(), mode="constant")
    return total


def direct_density(
    heads: NDArray[np.float64], sigma: NDArray[np.float64], height: int, width: int
) -> NDArray[np.float64]:
    """The product's maps by definition: for each head, its Gaussian's integral over each pixel, by
    the error function in float64, divided by its integral over the frame.

    Args:
        heads, sigma: (N, 2) and (N,) in pixels.

    Returns:
        (height, width) heads per pixel.
    """
    total = np.zeros((height, width))
    for (x, y), width_of in zip(heads, sigma):
        across = np.diff(erf((np.arange(width + 1) - x) / (width_of * np.sqrt(2)))) / 2
        down = np.diff(erf((np.arange(height + 1) - y) / (width_of * np.sqrt(2)))) / 2
        kernel = np.outer(down, across)
        total += kernel / kernel.sum()
    return total
