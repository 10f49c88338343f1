"""Runs the network with OpenVINO on the CPU; graphs come from models or from files."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import count, groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .devices import fast_bfloat16
from .extras import ExtraError
from .model import STRIDE, CSRNet
from .model_files import ModelError, NewerError, entries
from .photograph import traced
from .tiles import Mapped, Progress, Window, halo, windows

WHOLE = 2**20 + 2**14  # pixels, a megapixel in whole cells; larger pictures are split into tiles
TILE = 960  # pixels per side, without the front end's halo: takes as much memory as WHOLE
WIDEST = 4096  # pixels; wider pictures are split into strips, since features are kept at full width
BACK = 1024  # pixels of width that the back end processes at once, without its halo
HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVINOEngine:
    """Turns pictures into density maps with OpenVINO, on as many threads as torch uses.

    Args:
        model: a torch model, of which a copy is converted, or one of :func:`read_openvino`.
        device: ``"auto"`` or ``"cpu"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"auto"``; ``"auto"`` for a file in int8.
        tile: as for CrowdCounter. Only the front end, whose halo is a third of the network's, is
            tiled; the back end processes each row of tiles whole.

    Raises:
        ValueError: for an invalid device or dtype.
        ExtraError: if openvino is not installed.
    """

    device = torch.device("cpu")

    def __init__(
        self, model: CSRNet, device: str | torch.device, dtype: str, tile: int | str | None
    ) -> None:
        if str(device).split(":")[0] not in ("auto", "cpu"):
            raise ValueError(
                f"engine openvino runs on the CPU, not on {device}: leave device at auto"
            )
        int8 = isinstance(model, OpenVINOModel) and model.int8
        hint = _precision_hint(dtype, int8)
        graph = model.graph if isinstance(model, OpenVINOModel) else convert(model)
        self.tile = tile
        self.halo = halo(model)  # in cells, like the two below
        self.back_halo = sum(
            int(layer.padding[0]) for layer in model.backend if isinstance(layer, nn.Conv2d)
        )
        self.front_halo = self.halo - self.back_halo
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "CPU_RUNTIME_CACHE_CAPACITY": 128,  # otherwise memory grows with each new size
            "ENABLE_CPU_PINNING": False,  # with it, several counters would share the same cores
        }
        self.front_end, self.back_end = (
            import_openvino().compile_model(half, "CPU", settings) for half in split(graph, model)
        )
        self.channels = self.back_end.input(0).get_partial_shape()[1].get_length()
        # OpenVINO uses float32 if the processor lacks bfloat16.
        used = self.front_end.get_property("INFERENCE_PRECISION_HINT").to_string()
        precisions = {hint: name for name, hint in HINTS.items()}
        self.dtype = "int8" if int8 else precisions.get(used, used)

    def density(self, pixels: NDArray[np.uint8], progress: Progress | None) -> Mapped:
        """Return the density map of a picture (H, W, 3)."""
        rows, columns = (-(-side // STRIDE) for side in pixels.shape[:2])
        density = np.empty((rows, columns), dtype=np.float32)
        side = self._side(rows, columns)
        work = []  # full-height strips: the columns of each, with its halo, and its tiles
        for (_, _, *own), (_, _, *seen) in windows(1, columns, max(side, WIDEST), self.halo):
            work.append((own, seen, list(windows(rows, seen[1] - seen[0], side, self.front_halo))))
        total, done = sum(len(tiles) for _, _, tiles in work), count(1)

        def tell() -> None:
            if progress is not None:
                progress(next(done), total)

        for (left, right), (x0, x1), tiles in work:
            strip = self._strip(pixels[:, x0 * STRIDE : x1 * STRIDE], tiles, tell)
            density[:, left:right] = strip[:, left - x0 : right - x0]
        return Mapped(density, "cpu", self.dtype, total)

    def _side(self, rows: int, columns: int) -> int:
        small = rows * columns * STRIDE**2 <= WHOLE
        if self.tile is None or (self.tile == "auto" and small):
            return max(rows, columns) * STRIDE
        return TILE if self.tile == "auto" else int(self.tile)

    def _strip(
        self, pixels: NDArray[np.uint8], tiles: Sequence[Window], tell: Callable[[], None]
    ) -> NDArray[np.float32]:
        """Map (h, w) of a strip, computed after each row of tiles as far as its features allow."""
        rows, columns = tiles[-1][0][1], tiles[-1][0][3]
        density = np.empty((rows, columns), np.float32)
        kept = np.empty((1, self.channels, 0, columns), np.float32)  # the last rows' features
        top = done = 0  # the row where these begin, and the number of finished map rows
        for (above, bottom), row in groupby(tiles, key=lambda tile: tile[0][:2]):
            features = np.empty((1, self.channels, bottom - top, columns), np.float32)
            features[:, :, : above - top] = kept
            for tile in row:
                self._front(pixels, tile, features[0, :, above - top :])
                tell()
            kept = features
            ready = bottom if bottom == rows else bottom - self.back_halo
            if ready > done:
                density[done:ready] = self._back(features)[done - top : ready - top]
                first, done = max(ready - self.back_halo, 0), ready
                kept, top = features[:, :, first - top :].copy(), first
        return density

    def _front(
        self, pixels: NDArray[np.uint8], tile: Window, features: NDArray[np.float32]
    ) -> None:
        """Write a tile's features into those of its row of tiles, (512, h, w)."""
        (top, bottom, left, right), (y0, y1, x0, x1) = tile
        window = pixels[y0 * STRIDE : y1 * STRIDE, x0 * STRIDE : x1 * STRIDE]
        image = window.transpose(2, 0, 1)[None].astype(np.float32)  # (1, 3, H, W)
        # A separate request, so that several threads can count.
        part = self.front_end.infer_new_request({"image": image})["features"][0]  # (512, h, w)
        features[:, :, left:right] = part[:, top - y0 : bottom - y0, left - x0 : right - x0]

    def _back(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map (h, w) of features (1, 512, h, w)."""
        columns = features.shape[3]
        density = np.empty(features.shape[2:], np.float32)
        side = columns * STRIDE if self.tile is None else BACK
        for (_, _, left, right), (_, _, x0, x1) in windows(1, columns, side, self.back_halo):
            seen = np.ascontiguousarray(features[..., x0:x1])
            part = self.back_end.infer_new_request({"features": seen})["density"][0, 0]
            density[:, left:right] = part[:, left - x0 : right - x0]
        return density


class OpenVINOModel(CSRNet):
    """A CSRNet from an OpenVINO file: its weights exist only in ``graph``.

    All else is as in other models: normalisation, interval, training record, metrics.
    """

    graph: Any
    int8: bool

    def save_pretrained(self, *_: Any, **__: Any) -> str | None:  # type: ignore[override]
        """Not supported: raises ModelError before anything is written or published."""
        raise ModelError(
            "A model for OpenVINO is its two files, .xml and .bin: copy those. To save or publish "
            "a folder, use the model that they were exported from."
        )


def read_openvino(path: Path) -> OpenVINOModel:
    """Read a model that ``csrnet export`` wrote as FILE.xml, with FILE.bin beside it.

    Raises:
        ModelError: if one of the two is missing, damaged or written by something else.
        ExtraError: if openvino is not installed.
    """
    for file in (path, path.with_suffix(".bin")):
        if not file.is_file():
            raise ModelError(
                f"There is no file {file}. A model for OpenVINO is two files, .xml and .bin."
            )
        if not os.access(file, os.R_OK):
            raise ModelError(f"{file} cannot be read: permission denied.")
    openvino = import_openvino()
    try:
        graph = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise ModelError(
            f"{path} and its .bin are damaged or do not belong together: export them again."
        ) from error
    try:
        config = graph.get_rt_info(["csrnet", "config"]).astype(str)
        with torch.device("meta"):  # no memory for weights
            model = OpenVINOModel(**entries(config, path.name))
    except NewerError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path} has no CSRNet configuration: it was not written by csrnet export."
        ) from error
    model.graph = graph
    model.int8 = graph.has_rt_info(["csrnet", "int8"])
    return model.eval()


def convert(model: CSRNet) -> Any:
    """Convert a model to an ``openvino.Model`` with the input and output of :mod:`.photograph`.

    Raises:
        ExtraError: if openvino is not installed.
    """
    openvino = import_openvino()
    with warnings.catch_warnings(), traced(model) as (network, image):
        warnings.simplefilter("ignore")  # torch's tracing warnings
        graph = openvino.convert_model(
            network, input=[("image", [-1, 3, -1, -1])], example_input=image
        )
    graph.output(0).get_tensor().set_names({"density"})
    return graph


def split(graph: Any, model: CSRNet) -> tuple[Any, Any]:
    """Split a graph of :func:`convert` or a file in two: image to features to density."""
    openvino = import_openvino()
    graph = graph.clone()
    depth = sum(isinstance(layer, nn.ReLU) for layer in model.frontend)
    activations = [op for op in graph.get_ordered_ops() if op.get_type_name() == "Relu"]
    end = activations[depth - 1].output(0)
    features = openvino.op.Parameter(openvino.Type.f32, end.get_partial_shape())
    features.output(0).get_tensor().set_names({"features"})
    for target in end.get_target_inputs():
        target.replace_source_output(features.output(0))
    front = openvino.Model([end], graph.get_parameters(), "front end")
    front.output(0).get_tensor().set_names({"features"})
    return front, openvino.Model(graph.get_results(), [features], "back end")


def import_openvino() -> Any:
    # Stops openvino and nncf from reporting each use to Google Analytics.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise ExtraError("openvino", error) from error
    return openvino


def _precision_hint(dtype: str, int8: bool) -> str:
    if int8 and dtype != "auto":
        raise ValueError(f"the model is in int8, so dtype must be auto, not {dtype!r}")
    if dtype == "auto":
        native = fast_bfloat16(torch.device("cpu")) and not int8
        return HINTS["bfloat16" if native else "float32"]
    if dtype not in HINTS:
        names = ", ".join(HINTS)
        raise ValueError(f"dtype must be one of auto, {names} for engine openvino, not {dtype!r}")
    return HINTS[dtype]
