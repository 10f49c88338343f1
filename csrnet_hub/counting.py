"""Counting people in pictures of any size."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from .ahead import read_ahead
from .devices import NO_MEMORY, out_of_memory
from .images import DEFAULT_MAX_PIXELS, ImageError, ImageSource, check_limit, load_image
from .model import STRIDE, CSRNet
from .model_files import ModelError
from .notices import notices
from .openvino_engine import OpenVINOEngine, read_openvino
from .paths import is_folder
from .resources import DEFAULT_MODEL, resource
from .scale import ENLARGED, first_scale, mapped_at
from .tiles import Mapped, Progress
from .torch_engine import TorchEngine

READ_AHEAD = 4  # pictures; reading a megapixel JPEG takes some 10 ms, the rest less on a GPU


class Engine(Protocol):
    """The network on its device: turns a picture's pixels into its density map."""

    device: torch.device
    dtype: str

    def density(self, pixels: NDArray[np.uint8], progress: Progress | None) -> Mapped:
        """Return the density map of a picture (H, W, 3)."""
        ...


@dataclass(frozen=True, eq=False)  # arrays do not compare to a single bool
class CountResult:
    """The count of one picture.

    Attributes:
        count: number of people, the sum of ``density``.
        density: (ceil(height / 8), ceil(width / 8)) float32, heads per cell of 8x8 pixels.
        width, height: of the upright picture, in pixels.
        seconds: time from reading the picture's bytes to the count.
        model: name of the model, for display.
        device, dtype: where and in what precision the network ran (``int8``: a quantised file).
        tiles: number of pieces in which the picture was processed.
        interval: lower and upper bound in heads that contain the number of people with
            probability ``level``; None for a model without calibration.
        level: probability of the interval.
        scale: factor by which the picture's sides were multiplied for counting.
        notices: sentences on how the picture differs from the training pictures; if there are any,
            the interval may not hold.
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
    scale: float = 1.0
    notices: tuple[str, ...] = ()

    @property
    def known_interval(self) -> tuple[float, float] | None:
        """``interval``, or None if there are notices or the model has no calibration."""
        return None if self.notices else self.interval


ENGINES: dict[str, Callable[..., Engine]] = {"torch": TorchEngine, "openvino": OpenVINOEngine}


class CrowdCounter:
    """Counts people in pictures with a CSRNet.

    Args:
        model: the network; it is moved to the device, made channels-last and put in eval mode.
        device: ``"auto"`` (the first that works of CUDA, Apple's MPS, the CPU) or a torch
            device.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``: float16 on a GPU
            that is fast in it, bfloat16 on a CPU that is faster in it, else float32.
        tile: ``"auto"``: large pictures are processed in bands of rows, none computed twice; or
            the side in pixels of square tiles with a halo; or ``None`` for the whole picture at
            once. Counts do not depend on it.
        engine: ``"torch"``, or ``"openvino"``: for files written by `csrnet export`. Its int8 files
            are the fastest on a CPU; it is seldom faster otherwise. It takes some seconds to start,
            needs the ``openvino`` extra and processes large pictures in tiles.
        scale: factor for the picture's sides before counting, up to 2; or ``"auto"``: as the
            model's ``min_side``, ``working_pixels`` and ``largest_sigma`` require, or unchanged
            without these.
        name: name of the model, for display.
        max_pixels: larger pictures raise ImageError; ``None`` for no limit.

    Raises:
        ValueError: for an invalid device, dtype, tile, engine, scale or max_pixels.
        TypeError: if the model is a name (see ``from_pretrained``) or has its own ``forward``.
        ExtraError: if the engine's extra is not installed.
    """

    def __init__(
        self,
        model: CSRNet,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        tile: int | str | None = "auto",
        *,
        engine: str = "torch",
        scale: float | str = "auto",
        name: str = "CSRNet",
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
    ) -> None:
        sized = isinstance(tile, Integral) and not isinstance(tile, bool) and tile >= STRIDE
        if not (tile is None or tile == "auto" or sized):
            raise ValueError(f"tile must be 'auto', None or at least {STRIDE} pixels, not {tile!r}")
        if engine not in ENGINES:
            raise ValueError(f"engine must be {' or '.join(ENGINES)}, not {engine!r}")
        number = isinstance(scale, Real) and not isinstance(scale, bool)
        if scale != "auto" and not (number and 0 < float(scale) <= ENLARGED):
            raise ValueError(
                f"scale must be 'auto' or a number above 0 and at most {ENLARGED:g}, not {scale!r}"
            )
        check_limit(max_pixels)
        self.scale = scale
        self.name = name
        self.max_pixels = max_pixels
        if getattr(type(model), "forward", None) is not CSRNet.forward:  # which is never called
            raise TypeError(
                "model must be a plain CSRNet; CrowdCounter.from_pretrained takes its name"
            )
        self.model = model
        self.engine: Engine = ENGINES[engine](model, device, dtype, tile)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        tile: int | str | None = "auto",
        *,
        engine: str = "torch",
        scale: float | str = "auto",
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
        **options: Any,
    ) -> CrowdCounter:
        """A counter with the model of a folder or Hub repository; options as for CSRNet's.

        ``source`` may also be a FILE.xml written by ``csrnet export``, which runs on OpenVINO. If
        it is None, the model that comes with this package is used.

        Raises:
            ModelError: as for ``CSRNet.from_pretrained``, and if the package comes without a model.
            ValueError, ExtraError: as for the class, and for Hub options with an .xml file.
        """
        if source is None and (source := resource(DEFAULT_MODEL)) is None:
            raise ModelError("No model came with this installation: give one by name.")
        local = is_folder(source)
        model: CSRNet
        if Path(source).suffix.lower() == ".xml" and not local:
            if given := [name for name, value in options.items() if value]:
                raise ValueError(f"{given[0]} applies to Hub models only, not to the file {source}")
            model, engine, local = read_openvino(Path(source)), "openvino", True
        else:
            model = CSRNet.from_pretrained(source, **options)
        name = Path(source).resolve().name if local else str(source)
        if not local and options.get("revision") and "@" not in name:
            name += f"@{options['revision']}"
        return cls(
            model, device, dtype, tile, engine=engine, scale=scale, name=name, max_pixels=max_pixels
        )

    def count(self, image: ImageSource, progress: Progress | None = None) -> CountResult:
        """Count the people in a picture of any kind that `load_image` reads.

        Args:
            progress: called with (tiles done, total tiles) after each tile; starts again for each
                further size at which the picture is counted.

        Raises:
            ImageError: if the picture cannot be used, with a sentence for the person who gave it.
            ModelError: if the density map contains values that are not finite.
        """
        pixels, seconds = self._read(image)
        return self._count(pixels, seconds, progress)

    def count_many(
        self, images: Iterable[ImageSource], ahead: int | None = None
    ) -> Iterator[CountResult | ImageError]:
        """Count pictures one after another, yielding for each its result or an ImageError that
        replaces whatever `count` raises, including damaged weights and lack of memory.

        Args:
            ahead: number of pictures to read ahead while one is in the network. None: enough to
                keep a GPU busy; none on a CPU, where reading takes a hundredth of the time. Images
                and arrays are read as they are taken, so a buffer may be refilled or an image
                moved to another frame; a file must not change until its result is there.

        Raises:
            TypeError: for a single picture instead of several.
            ValueError: if ``ahead`` is less than 0.
        """
        if ahead is not None and ahead < 0:
            raise ValueError(f"ahead must be None or a number of pictures from 0, not {ahead}")
        single = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
        array = isinstance(images, (np.ndarray, torch.Tensor))
        shape: tuple[int, ...] = tuple(images.shape) if array else ()  # type: ignore[attr-defined]
        colours = shape[-1:] + (shape[:1] if isinstance(images, torch.Tensor) else ())
        one = len(shape) == 2 or (len(shape) == 3 and not {1, 3, 4}.isdisjoint(colours))
        if isinstance(images, single) or hasattr(images, "read") or one:
            raise TypeError("count_many takes a list of pictures; count takes one")
        return self._count_each(images, ahead)

    def _count_each(
        self, images: Iterable[ImageSource], ahead: int | None
    ) -> Iterator[CountResult | ImageError]:
        if ahead is None:
            ahead = 0 if self.engine.device.type == "cpu" else READ_AHEAD
        read = self._read if ahead == 0 else self._read_own
        for reading in read_ahead(read, images, ahead, _may_change):
            try:
                found: CountResult | ImageError = self._count(*reading.result())
            except ImageError as error:
                found = ImageError(str(error))  # a new error, whose traceback keeps no pixels alive
            except (MemoryError, RuntimeError) as error:  # torch has no error type of its own
                found = not_counted(error)
            del reading  # frees its pixels before the next are read
            yield found

    def _read(self, image: ImageSource) -> tuple[NDArray[np.uint8], float]:
        start = time.perf_counter()
        pixels = load_image(image, max_pixels=self.max_pixels)  # (H, W, 3) uint8
        return pixels, time.perf_counter() - start

    def _read_own(self, image: ImageSource) -> tuple[NDArray[np.uint8], float]:
        """Like `_read`, but never shares memory with an array that the caller may overwrite."""
        pixels, seconds = self._read(image)
        shared = isinstance(image, np.ndarray) and np.may_share_memory(image, pixels)
        return pixels.copy() if shared else pixels, seconds

    def _count(
        self, pixels: NDArray[np.uint8], seconds: float, progress: Progress | None = None
    ) -> CountResult:
        start = time.perf_counter() - seconds
        height, width = pixels.shape[:2]
        density = partial(self.engine.density, progress=progress)
        asked = None if self.scale == "auto" else float(self.scale)
        found, scale = mapped_at(asked, self.model, density, pixels)
        count = float(found.density.sum(dtype=np.float64))
        if not math.isfinite(count):
            raise ModelError(
                f"the density map of {self.name} is not finite: its weights are damaged"
            )
        margin = self.model.interval
        told = notices(pixels, count, self.model.training_record)
        if asked and not 0.8 <= asked / (usual := first_scale(self.model, height, width)) <= 1.25:
            told += (
                f"It was counted at {asked:.2g} times its size; automatic counting starts at "
                f"{usual:.2g} times, so the interval may not hold.",
            )
        return CountResult(
            count=count,
            density=found.density,
            width=width,
            height=height,
            seconds=time.perf_counter() - start,
            model=self.name,
            device=found.device,
            dtype=found.dtype,
            tiles=found.tiles,
            interval=margin.around(count) if margin else None,
            level=margin.level if margin else None,
            scale=scale,
            notices=told,
        )


def _may_change(image: ImageSource) -> bool:
    return not isinstance(image, (str, os.PathLike, bytes))


def not_counted(error: MemoryError | RuntimeError) -> ImageError:
    """The error that replaces a picture's count when the device or the model failed."""
    return ImageError(NO_MEMORY if out_of_memory(error) else f"It could not be counted: {error}")
