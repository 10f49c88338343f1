"""Pictures of any size to counts."""

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
from .scale import ENLARGED, mapped_at
from .tiles import Mapped, Progress
from .torch_engine import TorchEngine

READ_AHEAD = 4  # pictures; a JPEG file of a megapixel takes some 10 ms, a GPU less for the rest


class Engine(Protocol):
    """The network where it runs, from a picture's pixels to its density map."""

    device: torch.device
    dtype: str

    def density(self, pixels: NDArray[np.uint8], progress: Progress | None) -> Mapped:
        """The map of a picture (H, W, 3)."""
        ...


@dataclass(frozen=True, eq=False)  # a map has no plain equality
class CountResult:
    """What one picture holds.

    Attributes:
        count: number of people, the sum of ``density``.
        density: (ceil(height / 8), ceil(width / 8)) float32, heads per cell of 8x8 pixels.
        width, height: of the picture in pixels, upright.
        seconds: from the picture's bytes to the count.
        model: name of the model, for display.
        device, dtype: where and in what precision the network ran (``int8``: a quantised file).
        tiles: number of pieces in which the picture went through.
        interval: lower and upper end, in heads, of what the number of people lies in with the
            probability ``level``; None for a model without calibration.
        level: of the interval.
        scale: what the picture's sides were multiplied by to be counted.
        notices: sentences on what makes the picture unlike those that the model learnt from; with
            one the interval need not hold.
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
        """``interval`` where it is known to hold; None with notices, or without calibration."""
        return None if self.notices else self.interval


ENGINES: dict[str, Callable[..., Engine]] = {"torch": TorchEngine, "openvino": OpenVINOEngine}


class CrowdCounter:
    """Counts people in pictures with a CSRNet.

    Args:
        model: the network; it is moved to the device and put in eval mode.
        device: ``"auto"`` (CUDA, else Apple's MPS, whichever computes, else the CPU) or a torch
            device.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``: float16 on a GPU
            that is quick in it, bfloat16 on a CPU that is quicker in it, else float32.
        tile: ``"auto"``: a large picture goes through in bands of rows, none computed twice; or
            the side in pixels of square tiles with a halo; or ``None`` for the whole picture at
            once. Counts do not depend on it.
        engine: ``"torch"``, or ``"openvino"``: for files of `csrnet export`, of which those in int8
            are the fastest on a CPU; else slower. It takes some seconds to start and needs the
            extra of that name; there large pictures go through in tiles.
        scale: what a picture's sides are multiplied by to be counted, up to 2; or ``"auto"``: as
            the model's ``min_side``, ``working_pixels`` and ``largest_sigma`` ask. Without these,
            as it is.
        name: of the model, for display.
        max_pixels: larger pictures raise ImageError; ``None`` for no limit.

    Raises:
        ValueError: for a device, dtype, tile, engine, scale or max_pixels that cannot be.
        TypeError: if the model is the name of one, which ``from_pretrained`` takes.
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
        if isinstance(model, (str, os.PathLike)):
            raise TypeError("model must be a CSRNet; CrowdCounter.from_pretrained takes its name")
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

        Or with that of a file FILE.xml, which ``csrnet export`` wrote: it runs on OpenVINO. Or,
        without a name, with the model that this package brings.

        Raises:
            ModelError: as ``CSRNet.from_pretrained``, and if the package brings none.
            ValueError, ExtraError: as for the class, and for options of the Hub with an .xml file.
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
        """Count the people in a picture: a path, bytes, a PIL image or an array.

        Args:
            progress: called with (tiles done, tiles in all) after each tile; from the first tile on
                again, where a picture is counted at other sizes too.

        Raises:
            ImageError: if the picture cannot be used, with a sentence for the person who gave it.
            ModelError: if the model's map of it holds values that are not finite.
        """
        pixels, seconds = self._read(image)
        return self._count(pixels, seconds, progress)

    def count_many(
        self, images: Iterable[ImageSource], ahead: int | None = None
    ) -> Iterator[CountResult | ImageError]:
        """Count picture after picture: of each its result, or an ImageError that says why there is
        none: what `count` raises, damaged weights and lack of memory included.

        Args:
            ahead: so many of the next pictures are read while one is in the network; None: as many
                as keep a GPU busy, none on a CPU, where reading is a hundredth of the time. Images
                and arrays are read as they are taken, so that a buffer may be filled anew, or an
                image sought on; a file stays as it is until its result is there.

        Raises:
            TypeError: for a single picture, whose letters, bytes or rows are none.
            ValueError: if ``ahead`` is less than 0.
        """
        if ahead is not None and ahead < 0:
            raise ValueError(f"ahead must be None or a number of pictures from 0, not {ahead}")
        single = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
        shape: tuple[int, ...] = images.shape if isinstance(images, np.ndarray) else ()
        one = len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3, 4))
        if isinstance(images, single) or one:
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
                found = ImageError(str(error))  # whose traceback holds no pixels
            except (MemoryError, RuntimeError) as error:  # torch has no error type of its own
                found = not_counted(error)
            del reading  # its pixels, before the next are read
            yield found

    def _read(self, image: ImageSource) -> tuple[NDArray[np.uint8], float]:
        start = time.perf_counter()
        pixels = load_image(image, max_pixels=self.max_pixels)  # (H, W, 3) uint8
        return pixels, time.perf_counter() - start

    def _read_own(self, image: ImageSource) -> tuple[NDArray[np.uint8], float]:
        """The same, in memory of its own: whose array it is may fill it with the next picture."""
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
            notices=notices(pixels, count, self.model.training_record),
        )


def _may_change(image: ImageSource) -> bool:
    return not isinstance(image, (str, os.PathLike, bytes))


def not_counted(error: MemoryError | RuntimeError) -> ImageError:
    """What stands in the place of a picture's count where the device or the model failed."""
    return ImageError(NO_MEMORY if out_of_memory(error) else f"It could not be counted: {error}")
