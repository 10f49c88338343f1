"""Pictures of any size to counts: normalisation, tiles with a halo, devices."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .bands import density_bands
from .images import DEFAULT_MAX_PIXELS, ImageSource, load_image
from .model import STRIDE, CSRNet, receptive_field

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WIDEST = 16384  # pixels; what is wider goes through in columns of tiles
CPU_BAND = 2**17  # pixels; the first layers' maps: 32 MB each in float32, 16 MB in bfloat16
CPU_WHOLE = 2**20  # pixels; up to that a picture is one band: less copying, 0.5 GB in float32
GPU_BAND = 2**21  # three maps of 0.5 GB each in float32
SMALLEST_BAND = 2**16

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CountResult:
    """What one picture holds.

    Attributes:
        count: number of people, the sum of ``density``.
        density: (ceil(height / 8), ceil(width / 8)) float32, heads per cell of 8x8 pixels.
        width, height: of the picture in pixels, upright.
        seconds: from the picture's bytes to the count.
        model: name of the model, for display.
        device, dtype: where and in what precision the network ran.
        tiles: number of pieces in which the picture went through.
        interval: lower and upper end, in heads, of what the number of people lies in with the
            probability ``level``; None for a model without calibration.
        level: of the interval.
    """

    count: float
    density: NDArray[np.float32]
    width: int
    height: int
    seconds: float
    model: str
    device: str
    dtype: str
    tiles: int
    interval: tuple[float, float] | None = None
    level: float | None = None


class CrowdCounter:
    """Counts people in pictures with a CSRNet.

    Args:
        model: the network; it is moved to the device and put in eval mode.
        device: ``"auto"`` (CUDA, else Apple's MPS, else the CPU) or a torch device.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``: bfloat16 where the
            device computes in it natively, float32 elsewhere.
        tile: ``"auto"``: a large picture goes through in bands of rows, none computed twice; or
            the side in pixels of square tiles with a halo; or ``None`` for the whole picture at
            once. Counts do not depend on it.
        name: of the model, for display.
        max_pixels: larger pictures raise ImageError; ``None`` for no limit.

    Raises:
        ValueError: for a device, dtype or tile that cannot be.
    """

    def __init__(
        self,
        model: CSRNet,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        tile: int | str | None = "auto",
        *,
        name: str = "CSRNet",
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
    ) -> None:
        self.device = pick_device(device)
        self.dtype = pick_dtype(dtype, self.device)
        sized = isinstance(tile, int) and not isinstance(tile, bool) and tile >= STRIDE
        if not (tile is None or tile == "auto" or sized):
            raise ValueError(f"tile must be 'auto', None or at least {STRIDE} pixels, not {tile!r}")
        self.tile = tile
        self.name = name
        self.max_pixels = max_pixels
        self.model = model.eval().to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        first, last = receptive_field(model)
        reach = max(-first, last - (STRIDE - 1))
        self.halo = -(-reach // STRIDE) * STRIDE  # pixels, whole cells

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        tile: int | str | None = "auto",
        *,
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
        **options: Any,
    ) -> CrowdCounter:
        """A counter with the model of a folder or Hub repository; options as for CSRNet's."""
        model = CSRNet.from_pretrained(source, **options)
        name = Path(source).resolve().name if Path(source).is_dir() else str(source)
        return cls(model, device, dtype, tile, name=name, max_pixels=max_pixels)

    def count(self, image: ImageSource, progress: Progress | None = None) -> CountResult:
        """Count the people in a picture: a path, bytes, a PIL image or an array.

        Args:
            progress: called with (tiles done, tiles in all) after each tile.

        Raises:
            ImageError: if the picture cannot be used, with a sentence for the person who gave it.
        """
        start = time.perf_counter()
        pixels = load_image(image, max_pixels=self.max_pixels)  # (H, W, 3) uint8
        height, width = pixels.shape[:2]
        density, device, tiles = self._density(pixels, progress)
        count = float(density.sum(dtype=np.float64))
        margin = self.model.interval
        return CountResult(
            count=count,
            density=density,
            width=width,
            height=height,
            seconds=time.perf_counter() - start,
            model=self.name,
            device=device.type,
            dtype=str(self.dtype).removeprefix("torch."),
            tiles=tiles,
            interval=margin.around(count) if margin else None,
            level=margin.level if margin else None,
        )

    def _density(
        self, pixels: NDArray[np.uint8], progress: Progress | None
    ) -> tuple[NDArray[np.float32], torch.device, int]:
        # Out of memory on a GPU: smaller and smaller bands, at last the CPU.
        size = math.prod(-(-side // STRIDE) * STRIDE for side in pixels.shape[:2])
        band = min(GPU_BAND, size)
        if self.device.type == "cpu":
            band = size if size <= CPU_WHOLE else CPU_BAND
        while True:
            try:
                return self._in_tiles(pixels, band, self.device, progress)
            except RuntimeError as error:
                if self.device.type == "cpu" or not _out_of_memory(error):
                    raise
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            band //= 4
            if band < SMALLEST_BAND or self.tile != "auto":
                break
            warnings.warn(
                f"out of GPU memory: trying again in bands of {band:,} pixels", stacklevel=3
            )
        warnings.warn("out of GPU memory: counting this picture on the CPU", stacklevel=3)
        cpu = torch.device("cpu")
        try:
            self.model.to(cpu)
            return self._in_tiles(pixels, CPU_BAND, cpu, progress)
        finally:
            self.model.to(self.device)

    def _in_tiles(
        self,
        pixels: NDArray[np.uint8],
        band: int,
        device: torch.device,
        progress: Progress | None,
    ) -> tuple[NDArray[np.float32], torch.device, int]:
        rows, columns = (-(-side // STRIDE) for side in pixels.shape[:2])
        density = np.empty((rows, columns), dtype=np.float32)
        reach = self.halo // STRIDE
        work = []  # tiles, and the bands of each with its halo, in cells
        for tile in self._plan(rows, columns):
            top, bottom, left, right = tile
            y0, y1 = max(top - reach, 0), min(bottom + reach, rows)
            x0, x1 = max(left - reach, 0), min(right + reach, columns)
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
            with torch.inference_mode():
                for part in density_bands(self.model, bands, self.dtype):
                    parts.append(part)
                    done += 1
                    if progress is not None:
                        progress(done, total)
                whole = torch.cat(parts, dim=2)[0, 0] / self.model.density_scale  # (y1 - y0, w)
            inside = whole[top - y0 : bottom - y0, left - x0 : right - x0]
            density[top:bottom, left:right] = inside.cpu().numpy()
        return density, device, total

    def _plan(self, rows: int, columns: int) -> list[tuple[int, int, int, int]]:
        if self.tile is None:
            return [(0, rows, 0, columns)]
        if self.tile != "auto":
            return list(plan_tiles(rows, columns, int(self.tile)))
        strips = plan_tiles(1, columns, WIDEST)
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


def to_input(pixels: NDArray[np.uint8], model: CSRNet, device: torch.device) -> Tensor:
    """(H, W, 3) uint8 RGB to the network's normalised input (1, 3, H, W), float32."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(2, 0, 1)[None]
    mean = torch.tensor(model.mean, device=device).view(1, 3, 1, 1) * 255
    std = torch.tensor(model.std, device=device).view(1, 3, 1, 1) * 255
    return (x.float() - mean) / std


def plan_tiles(rows: int, columns: int, tile: int) -> Iterator[tuple[int, int, int, int]]:
    """Cells (top, bottom, left, right) of tiles of like size, at most ``tile`` pixels a side."""
    limit = tile // STRIDE
    down, across = -(-rows // limit), -(-columns // limit)
    for i in range(down):
        for j in range(across):
            yield (
                rows * i // down,
                rows * (i + 1) // down,
                columns * j // across,
                columns * (j + 1) // across,
            )


def _out_of_memory(error: RuntimeError) -> bool:
    # MPS and cuDNN have no error type of their own for it.
    words = ("out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def pick_device(device: str | torch.device) -> torch.device:
    if device != "auto":
        try:
            picked = torch.device(device)
        except RuntimeError as error:
            raise ValueError(
                f"there is no device {device!r}; use auto, cpu, cuda or mps"
            ) from error
        if picked.type == "cuda" and not torch.cuda.is_available():
            raise ValueError("device cuda was asked for, but torch sees no CUDA GPU; use auto")
        if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"there is no device {device}; torch sees {torch.cuda.device_count()}")
        if picked.type == "mps" and not torch.backends.mps.is_available():
            raise ValueError("device mps was asked for, but torch sees none; use auto")
        return picked
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def native_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself; emulated, it is many times slower."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, probe, bool)() for probe in probes)


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        return torch.bfloat16 if native_bfloat16(device) else torch.float32
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be auto, {', '.join(DTYPES)}, not {dtype!r}")
    return DTYPES[dtype]
