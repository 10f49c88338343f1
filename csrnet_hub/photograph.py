"""The network for other runtimes: one graph from a photograph to its density map.

A graph includes the normalisation and the density scale, so that neither can go wrong. Its input
``image`` is (B, 3, H, W) float32 RGB from 0 to 255, of any size; its output ``density`` is
(B, 1, ceil(H / 8), ceil(W / 8)) float32 in heads per cell, whose sum is the count.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .model import STRIDE, CSRNet


class Photograph(nn.Module):
    """A copy of the network, with ``CrowdCounter``'s steps before and after it, as one graph."""

    mean: Tensor  # (1, 3, 1, 1), of values from 0 to 255
    std: Tensor

    def __init__(self, model: CSRNet) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).float()
        for name, values in (("mean", model.mean), ("std", model.std)):
            row = torch.tensor(values, dtype=torch.float32, device="cpu")
            self.register_buffer(name, 255 * row.view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        x = (image - self.mean) / self.std
        # Pad to whole cells at the right and at the bottom.
        x = nn.functional.pad(x, (0, -image.shape[3] % STRIDE, 0, -image.shape[2] % STRIDE))
        density: Tensor = self.model(x) / self.model.density_scale  # (B, 1, h, w)
        return density


@contextmanager
def traced(model: CSRNet, batch: int = 1) -> Iterator[tuple[Photograph, Tensor]]:
    """The network to trace a graph from, and zeros in place of photographs; without gradients,
    and ignoring any default device and precision that a program may have set."""
    with torch.no_grad(), torch.device("cpu"), torch.autocast("cpu", enabled=False):
        yield Photograph(model).eval().cpu(), torch.zeros(batch, 3, 60, 92, dtype=torch.float32)
