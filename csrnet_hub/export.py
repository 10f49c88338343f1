"""Models for other runtimes: ONNX and OpenVINO files from a photograph to its density map.

A file carries the normalisation and the density scale, so that neither can be got wrong. Its input
``image`` is (B, 3, H, W) float32 RGB from 0 to 255, of any size; its output ``density`` is
(B, 1, ceil(H / 8), ceil(W / 8)) float32 in heads per cell, whose sum is the count.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .counting import CrowdCounter
from .model import STRIDE, CSRNet

TOLERANCE = 1e-3  # of the count, between the file and torch

Pixels = NDArray[np.float32]


class ExportError(ValueError):
    """A file that cannot be written, or does not count as torch does; says what to do."""


class Photograph(nn.Module):
    """The network with what ``CrowdCounter`` does before and after it, as one graph."""

    mean: Tensor  # (1, 3, 1, 1), of values from 0 to 255
    std: Tensor

    def __init__(self, model: CSRNet) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", 255 * torch.tensor(model.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(model.std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        x = (image - self.mean) / self.std
        # Whole cells at the right and at the bottom.
        x = nn.functional.pad(x, (0, -image.shape[3] % STRIDE, 0, -image.shape[2] % STRIDE))
        density: Tensor = self.model(x) / self.model.density_scale  # (B, 1, h, w)
        return density


def export(model: CSRNet, out: Path) -> tuple[float, float]:
    """Write a model as OUT.onnx, or for OpenVINO as OUT.xml and OUT.bin, and check it.

    Returns:
        The count of a drawn picture by the file and by torch.

    Raises:
        ExportError: if the extra is not installed, the name has another ending or is taken, or the
            file's count of that picture differs from torch's by more than 0.1 %.
    """
    if out.suffix not in (".onnx", ".xml"):
        raise ExportError(f"{out} must end in .onnx, or in .xml for OpenVINO.")
    files = [out] if out.suffix == ".onnx" else [out, out.with_suffix(".bin")]
    if taken := next((file for file in files if file.exists()), None):
        raise ExportError(f"{taken} is there already; give another name.")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Whole and checked before the files take their names.
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        draft = Path(folder) / out.name
        run = _write_onnx(model, draft) if out.suffix == ".onnx" else _write_openvino(model, draft)
        counts = _compare(model, run)
        for file in files:
            (Path(folder) / file.name).rename(file)
    return counts


def _write_onnx(model: CSRNet, out: Path) -> Callable[[Pixels], Pixels]:
    try:
        import onnxruntime
    except ImportError as error:
        raise _needs("onnx", error) from error
    _trace(model, out)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])

    def run(image: Pixels) -> Pixels:
        density: Pixels = session.run(["density"], {"image": image})[0]
        return density

    return run


def _write_openvino(model: CSRNet, out: Path) -> Callable[[Pixels], Pixels]:
    try:
        import openvino
    except ImportError as error:
        raise _needs("openvino", error) from error
    onnx_file = out.with_suffix(".onnx")
    _trace(model, onnx_file)
    converted = openvino.convert_model(onnx_file)
    for key, value in _metadata(model).items():
        converted.set_rt_info(value, ["csrnet", key])
    openvino.save_model(converted, out, compress_to_fp16=False)
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # a mapped file cannot be renamed on Windows
    # Float32 also where the runtime would choose bfloat16 of its own accord.
    compiled = core.compile_model(out, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(image: Pixels) -> Pixels:
        density: Pixels = compiled({"image": image})["density"]
        return density

    return run


def _trace(model: CSRNet, out: Path) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter imports it)
    except ImportError as error:
        raise _needs("onnx", error) from error
    sizes = {0: "batch", 2: "height", 3: "width"}
    with torch.no_grad():  # also keeps the training's own convolutions out of the graph
        torch.onnx.export(
            Photograph(model).eval().cpu(),
            (torch.zeros(2, 3, 60, 92),),
            str(out),
            input_names=["image"],
            output_names=["density"],
            dynamo=True,
            dynamic_shapes={"image": dict.fromkeys(sizes, torch.export.Dim.DYNAMIC)},
            external_data=False,
            verbose=False,
        )
    graph = onnx.load(out)
    onnx.helper.set_model_props(graph, _metadata(model))
    for axis, name in sizes.items():
        graph.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(graph, out)


def _metadata(model: CSRNet) -> dict[str, str]:
    """For people: the graph needs none of it."""
    return {
        "input": "image: (B, 3, H, W) float32 RGB, 0 to 255; normalised inside",
        "output": "density: (B, 1, ceil(H/8), ceil(W/8)) float32 heads per cell; sum: the count",
        "config": json.dumps(model.config()),
    }


def _needs(extra: str, error: ImportError) -> ExportError:
    return ExportError(
        f"{error.name or error} is not installed: pip install 'csrnet-hub[{extra}]', or in a clone "
        f"pip install -e '.[{extra}]'."
    )


def _compare(model: CSRNet, run: Callable[[Pixels], Pixels]) -> tuple[float, float]:
    # Of another size than the traced one, its sides not divisible by 8.
    noise = np.random.default_rng(0).integers(0, 256, (1, 3, 101, 147), dtype=np.uint8)
    theirs = float(run(noise.astype(np.float32)).sum(dtype=np.float64))
    ours = CrowdCounter(model, "cpu", "float32", None).count(noise[0].transpose(1, 2, 0)).count
    if not abs(theirs - ours) <= TOLERANCE * max(abs(ours), 1.0):
        raise ExportError(
            f"The exported model counts {theirs:.3f} where torch counts {ours:.3f}, so it was not "
            "kept: update the exporter (onnxscript) and the runtime."
        )
    return theirs, ours
