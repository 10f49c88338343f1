"""Runs the network in torch: in bands of rows, smaller ones if memory runs out."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .bands import density_bands
from .devices import fast_bfloat16, out_of_memory, pick_device, pick_dtype
from .memory import keep_memory, trim_memory
from .model import STRIDE, CSRNet
from .tiles import Mapped, Progress, halo, plan_tiles

WIDEST = 16384  # pixels; wider pictures are split into columns of tiles
CPU_WIDEST = 6144  # on a CPU: above it, rows waiting for Winograd's tiles take a gigabyte more
CPU_BAND = 2**17  # pixels; the first layers' maps: 32 MB each in float32, 16 MB in bfloat16
CPU_WHOLE = 2**20 + 2**14  # pixels, a megapixel in whole cells: one band; 0.5 GB in float32
GPU_BAND = 2**21  # pixels; three maps of 0.5 GB each in float32
SMALLEST_BAND = 2**16
TRIM_EVERY = 8  # pictures on a CPU: rare enough to cost nothing


class TorchEngine:
    """Turns pictures into density maps with torch.

    Args:
        model: the network; it is moved to the device and put in eval mode.
        device, dtype, tile: as for CrowdCounter.

    Raises:
        ValueError: for an invalid device or dtype.
    """

    def __init__(
        self, model: CSRNet, device: str | torch.device, dtype: str, tile: int | str | None
    ) -> None:
        if any(own.is_meta for own in model.parameters()):
            raise ValueError(
                'this model of an .xml file has no weights for torch: it needs engine="openvino"'
            )
        self.device = pick_device(device)
        self.kind = pick_dtype(dtype, self.device)
        self.dtype = name_of(self.kind)
        quick = self.kind is torch.float32 or (
            self.kind is torch.bfloat16 and fast_bfloat16(self.device)
        )
        if self.device.type == "cpu" and not quick:
            warnings.warn(
                f"this CPU is slower in {self.dtype} than in float32: use float32 or auto",
                stacklevel=3,
            )
        self.tile = tile
        with torch.inference_mode(False):  # the caller's model can then still be trained
            self.model = model.eval().to(self.device)
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.halo = halo(model)  # in cells
        self.counted = 0

    def density(self, pixels: NDArray[np.uint8], progress: Progress | None) -> Mapped:
        """Return the density map of a picture (H, W, 3)."""
        kind = self.kind  # for this picture: another thread may change it meanwhile
        found = self._on_device(pixels, kind, progress)
        if kind is torch.float16 and not np.isfinite(found.density).all():
            warnings.warn("this network overflows in float16: continuing in float32", stacklevel=3)
            self.kind, self.dtype = torch.float32, "float32"
            found = self._on_device(pixels, self.kind, progress)
        return found

    def _on_device(
        self, pixels: NDArray[np.uint8], kind: torch.dtype, progress: Progress | None
    ) -> Mapped:
        # If a GPU runs out of memory: smaller and smaller bands, finally the CPU.
        size = math.prod(-(-side // STRIDE) * STRIDE for side in pixels.shape[:2])
        band = min(GPU_BAND, size)
        if self.device.type == "cpu":
            keep_memory()  # here, as another process may have been given this engine
            band = size if size <= CPU_WHOLE else CPU_BAND
        while True:
            try:
                found = self._in_tiles(pixels, band, self.model, self.device, kind, progress)
                self.counted += 1
                if self.device.type == "cpu" and self.counted % TRIM_EVERY == 0:
                    trim_memory()
                return found
            except RuntimeError as error:
                if self.device.type == "cpu" or not out_of_memory(error):
                    raise
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            band //= 4
            if band < SMALLEST_BAND or self.tile != "auto":
                break
            warnings.warn(
                f"out of GPU memory: trying again in bands of {band:,} pixels", stacklevel=4
            )
        warnings.warn("out of GPU memory: counting this picture on the CPU", stacklevel=4)
        # A copy, made without GPU memory: other threads still use the model where it is.
        weights = {id(own): nn.Parameter(own.detach().cpu()) for own in self.model.parameters()}
        model = copy.deepcopy(self.model, weights)
        cpu = torch.device("cpu")
        if kind is not torch.float32:
            kind = pick_dtype("auto", cpu)  # the GPU's float16 would be emulated
        return self._in_tiles(pixels, CPU_BAND, model, cpu, kind, progress)

    def _in_tiles(
        self,
        pixels: NDArray[np.uint8],
        band: int,
        model: CSRNet,
        device: torch.device,
        kind: torch.dtype,
        progress: Progress | None,
    ) -> Mapped:
        rows, columns = (-(-side // STRIDE) for side in pixels.shape[:2])
        density = np.empty((rows, columns), dtype=np.float32)
        work = []  # tiles and the bands of each with its halo, in cells
        for tile in self._plan(rows, columns, device):
            top, bottom, left, right = tile
            y0, y1 = max(top - self.halo, 0), min(bottom + self.halo, rows)
            x0, x1 = max(left - self.halo, 0), min(right + self.halo, columns)
            high = y1 - y0
            if self.tile == "auto":
                high = max(band // ((x1 - x0) * STRIDE**2), 1)
            pieces = -(-(y1 - y0) // high)
            cuts = [y0 + (y1 - y0) * i // pieces for i in range(pieces + 1)]
            work.append((tile, (y0, x0, x1), cuts))
        total, done = sum(len(cuts) - 1 for _, _, cuts in work), 0
        for (top, bottom, left, right), (y0, x0, x1), cuts in work:
            parts = []
            bands = self._bands(pixels[:, x0 * STRIDE : x1 * STRIDE], cuts, x1 - x0, device)
            # a program's own autocast would override `kind` and return types unknown to numpy
            with torch.inference_mode(), torch.autocast(device.type, enabled=False):
                for part in density_bands(model, bands, kind):
                    parts.append(part)
                    done += 1
                    if progress is not None:
                        progress(done, total)
                whole = torch.cat(parts, dim=2)[0, 0] / model.density_scale  # (y1 - y0, w)
            inside = whole[top - y0 : bottom - y0, left - x0 : right - x0]
            density[top:bottom, left:right] = inside.cpu().numpy()
        return Mapped(density, device.type, name_of(kind), total)

    def _plan(
        self, rows: int, columns: int, device: torch.device
    ) -> list[tuple[int, int, int, int]]:
        if self.tile is None:
            return [(0, rows, 0, columns)]
        if self.tile != "auto":
            return list(plan_tiles(rows, columns, int(self.tile)))
        strips = plan_tiles(1, columns, CPU_WIDEST if device.type == "cpu" else WIDEST)
        return [(0, rows, left, right) for _, _, left, right in strips]

    def _bands(
        self, pixels: NDArray[np.uint8], cuts: list[int], columns: int, device: torch.device
    ) -> Iterator[tuple[Tensor, bool]]:
        for top, bottom in pairwise(cuts):
            window = pixels[top * STRIDE : bottom * STRIDE]
            x = to_input(window, self.model, device)  # (1, 3, H, W)
            missing = ((bottom - top) * STRIDE - x.shape[2], columns * STRIDE - x.shape[3])
            x = torch.nn.functional.pad(x, (0, missing[1], 0, missing[0]))  # (1, 3, 8 h, 8 w)
            yield x.contiguous(memory_format=torch.channels_last), bottom == cuts[-1]


def name_of(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def to_input(pixels: NDArray[np.uint8], model: CSRNet, device: torch.device) -> Tensor:
    """Convert (H, W, 3) uint8 RGB to the network's normalised input (1, 3, H, W), float32."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(2, 0, 1)[None]
    mean = torch.tensor(model.mean, dtype=torch.float32, device=device).view(1, 3, 1, 1) * 255
    std = torch.tensor(model.std, dtype=torch.float32, device=device).view(1, 3, 1, 1) * 255
    return (x.float() - mean) / std
