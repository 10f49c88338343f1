"""The network on OpenVINO, on the CPU; graphs from models and from files."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .devices import native_bfloat16
from .extras import ExtraError
from .model import STRIDE, CSRNet, ModelError
from .photograph import Photograph
from .tiles import Progress, halo, windows

WHOLE = 2**20  # pixels; what is larger goes through in tiles
TILE = 768  # pixels a side, without the halo: as much memory as WHOLE, 0.7 GB in float32
HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVINOEngine:
    """Pictures to density maps with OpenVINO, on as many threads as torch uses.

    Args:
        model: of torch, which is moved to the CPU and converted, or of :func:`read_openvino`.
        device: ``"auto"`` or ``"cpu"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"auto"``; ``"auto"`` for a file in int8.
        tile: as for CrowdCounter; ``"auto"``: a large picture goes through in tiles with a halo.

    Raises:
        ValueError: for a device or dtype that cannot be.
        ExtraError: if openvino is not installed.
    """

    device = torch.device("cpu")

    def __init__(
        self, model: CSRNet, device: str | torch.device, dtype: str, tile: int | str | None
    ) -> None:
        if str(device).split(":")[0] not in ("auto", "cpu"):
            raise ValueError(
                f"engine openvino computes on the CPU, not on {device}; leave device at auto"
            )
        int8 = isinstance(model, OpenVINOModel) and model.int8
        hint = _precision_hint(dtype, int8)
        graph = model.graph if isinstance(model, OpenVINOModel) else convert(model)
        self.tile = tile
        self.halo = halo(model)
        self.network = import_openvino().compile_model(
            graph,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                "CPU_RUNTIME_CACHE_CAPACITY": 128,  # or memory grows with each new size
                "ENABLE_CPU_PINNING": False,  # several counters would sit on the same cores
            },
        )
        # Where the processor lacks bfloat16, OpenVINO takes float32.
        used = self.network.get_property("INFERENCE_PRECISION_HINT").to_string()
        precisions = {hint: name for name, hint in HINTS.items()}
        self.dtype = "int8" if int8 else precisions.get(used, used)

    def density(
        self, pixels: NDArray[np.uint8], progress: Progress | None
    ) -> tuple[NDArray[np.float32], str, int]:
        """Map in heads per cell of a picture (H, W, 3), type of device, and number of tiles."""
        rows, columns = (-(-side // STRIDE) for side in pixels.shape[:2])
        density = np.empty((rows, columns), dtype=np.float32)
        side, reach = self._side(rows, columns), self.halo // STRIDE
        work = list(windows(rows, columns, side, reach))
        for done, ((top, bottom, left, right), (y0, y1, x0, x1)) in enumerate(work, 1):
            window = pixels[y0 * STRIDE : y1 * STRIDE, x0 * STRIDE : x1 * STRIDE]
            image = window.transpose(2, 0, 1)[None].astype(np.float32)  # (1, 3, H, W)
            # A request of its own, so that several threads may count.
            part = self.network.infer_new_request({"image": image})["density"][0, 0]  # (h, w)
            density[top:bottom, left:right] = part[top - y0 : bottom - y0, left - x0 : right - x0]
            if progress is not None:
                progress(done, len(work))
        return density, "cpu", len(work)

    def _side(self, rows: int, columns: int) -> int:
        small = rows * columns * STRIDE**2 <= WHOLE
        if self.tile is None or (self.tile == "auto" and small):
            return max(rows, columns) * STRIDE
        return TILE if self.tile == "auto" else int(self.tile)


class OpenVINOModel(CSRNet):
    """A CSRNet of a file for OpenVINO: its weights are in ``graph`` alone.

    All but the weights is as in other models: normalisation, interval, training record, metrics.
    """

    graph: Any
    int8: bool


def read_openvino(path: Path) -> OpenVINOModel:
    """The model of a file that ``csrnet export`` wrote, FILE.xml, with FILE.bin beside it.

    Raises:
        ModelError: if one of the two is missing, damaged, or was written by something else.
        ExtraError: if openvino is not installed.
    """
    for file in (path, path.with_suffix(".bin")):
        if not file.is_file():
            raise ModelError(
                f"There is no file {file}; a model for OpenVINO is two files, .xml and .bin."
            )
    openvino = import_openvino()
    try:
        graph = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise ModelError(
            f"{path} and its .bin are damaged or do not belong together; export them again."
        ) from error
    try:
        config = json.loads(graph.get_rt_info(["csrnet", "config"]).astype(str))
        with torch.device("meta"):  # no memory for weights
            model = OpenVINOModel(**config)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path} has no configuration of a CSRNet: it was not written by csrnet export."
        ) from error
    model.graph = graph
    model.int8 = graph.has_rt_info(["csrnet", "int8"])
    return model.eval()


def convert(model: CSRNet) -> Any:
    """A model as an ``openvino.Model``, with the input and the output of :mod:`.photograph`.

    Raises:
        ExtraError: if openvino is not installed.
    """
    openvino = import_openvino()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch about its tracing
        graph = openvino.convert_model(
            Photograph(model).eval().cpu(),
            input=[("image", [-1, 3, -1, -1])],
            example_input=torch.zeros(1, 3, 60, 92),
        )
    graph.output(0).get_tensor().set_names({"density"})
    return graph


def import_openvino() -> Any:
    # Otherwise openvino and nncf report each use to Google Analytics; so they do not.
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
        native = native_bfloat16(torch.device("cpu")) and not int8
        return HINTS["bfloat16" if native else "float32"]
    if dtype not in HINTS:
        names = ", ".join(HINTS)
        raise ValueError(f"dtype must be auto, {names} for engine openvino, not {dtype!r}")
    return HINTS[dtype]
