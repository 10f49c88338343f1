"""Exports models as ONNX and OpenVINO files that turn a photograph into its density map."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from .counting import CrowdCounter
from .extras import ExtraError
from .hub import one_line
from .model import CSRNet
from .openvino_engine import convert, import_openvino
from .photograph import traced
from .quantise import CROPS, Crop, calibration_crops, quantise

TOLERANCE = 1e-3  # difference between file and torch, relative to a map's largest cell
LEAST = 1e-3  # heads in a cell; rounding shows below a thousandth of it
INT8_TOLERANCE = 0.05  # of the count
COMPARED = 8  # crops of the calibration

Pixels = NDArray[np.float32]


class ExportError(ValueError):
    """A file that cannot be written, or does not count as torch does; says what to do."""


def export(model: CSRNet, out: Path, int8: Path | None = None) -> tuple[float, float]:
    """Write a model as OUT.onnx, or for OpenVINO as OUT.xml and OUT.bin, and check it.

    Args:
        int8: photographs to calibrate on, as a folder or a train.prepare file; OUT.xml is then in
            int8. They should be like those to be counted, and not be used to measure
            errors.

    Returns:
        The counts by the file and by torch, of a drawn picture or of eight crops of those
        photographs.

    Raises:
        ExtraError: if the extra is not installed.
        CalibrationError: if those photographs cannot be read.
        ExportError: if the name has another ending or is taken, it cannot be written, or a cell of
            the two maps differs by more than 0.1 % of the map's largest (or by 1e-6 heads, if
            that is more); in int8, if the counts of the crops differ by more than 5 %, counting
            those too large and those too small together.
    """
    if out.suffix not in (".onnx", ".xml"):
        raise ExportError(f"{out} must end in .onnx, or in .xml for OpenVINO.")
    if int8 is not None and out.suffix != ".xml":
        raise ExportError(f"int8 is for OpenVINO only: {out} must end in .xml.")
    files = [out] if out.suffix == ".onnx" else [out, out.with_suffix(".bin")]
    if taken := next((file for file in files if file.exists()), None):
        raise ExportError(f"{taken} already exists; give another name.")
    model = copy.deepcopy(model).float()  # leaves the caller's on its device and in its type
    crops = [] if int8 is None else calibration_crops(int8, model)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Complete and checked before the files get their names.
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        draft = Path(folder) / out.name
        write = _write_onnx if out.suffix == ".onnx" else partial(_write_openvino, crops=crops)
        pictures = crops[:: CROPS // COMPARED] or [_noise()]  # not all of the first photographs
        counts = _compare(model, write(model, draft), pictures, int8 is not None)
        try:
            for file in files:
                (Path(folder) / file.name).rename(file)
        except BaseException:
            for file in files:
                if not (Path(folder) / file.name).exists():  # half a model
                    file.unlink()
            raise
    return counts


def _write_onnx(model: CSRNet, out: Path) -> Callable[[Pixels], Pixels]:
    try:
        import onnxruntime
    except ImportError as error:
        raise ExtraError("onnx", error) from error
    _trace(model, out)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])

    def run(image: Pixels) -> Pixels:
        density: Pixels = session.run(["density"], {"image": image})[0]
        return density

    return run


def _write_openvino(model: CSRNet, out: Path, crops: Sequence[Crop]) -> Callable[[Pixels], Pixels]:
    openvino = import_openvino()
    graph = convert(model)
    if crops:
        graph = quantise(graph, crops)
        graph.set_rt_info("all but the first and the last two convolutions", ["csrnet", "int8"])
    for key, value in _metadata(model).items():
        graph.set_rt_info(value, ["csrnet", key])
    try:
        openvino.save_model(graph, out, compress_to_fp16=False)
    except RuntimeError as error:  # for example, a full disk
        raise ExportError(f"{out.name} could not be written: {one_line(error)}") from error
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # a mapped file cannot be renamed on Windows
    # Float32 even where the runtime would choose bfloat16 by itself.
    compiled = core.compile_model(out, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(image: Pixels) -> Pixels:
        density: Pixels = compiled({"image": image})["density"]
        return density

    return run


def _trace(model: CSRNet, out: Path) -> None:
    sizes = {0: "batch", 2: "height", 3: "width"}
    try:
        import onnx

        # without gradients, to keep the convolutions for training out of the graph
        with traced(model, batch=2) as (network, images):
            torch.onnx.export(
                network,
                (images,),
                str(out),
                input_names=["image"],
                output_names=["density"],
                dynamo=True,
                dynamic_shapes={"image": dict.fromkeys(sizes, torch.export.Dim.DYNAMIC)},
                external_data=False,
                verbose=False,
            )
    except ImportError as error:  # of onnxscript too, or of parts that an older one lacks
        raise ExtraError("onnx", error) from error
    graph = onnx.load(out)
    onnx.helper.set_model_props(graph, _metadata(model))
    for axis, name in sizes.items():
        graph.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(graph, out)


def _metadata(model: CSRNet) -> dict[str, str]:
    """Metadata for people: the graph needs none of it."""
    return {
        "input": "image: (B, 3, H, W) float32 RGB, 0 to 255; normalised inside, not resized",
        "output": "density: (B, 1, ceil(H/8), ceil(W/8)) float32 heads per cell; sum: the count",
        "config": json.dumps(model.config()),
    }


def _noise() -> Crop:
    # Differs in size from the traced one; its sides are not divisible by 8.
    return np.random.default_rng(0).integers(0, 256, (1, 3, 101, 147), dtype=np.uint8)


def _compare(
    model: CSRNet, run: Callable[[Pixels], Pixels], pictures: Sequence[Crop], int8: bool
) -> tuple[float, float]:
    counter = CrowdCounter(model, "cpu", "float32", None, scale=1.0)
    theirs = ours = apart = 0.0
    alike = True
    for picture in pictures:
        density = run(picture.astype(np.float32))[0, 0]
        result = counter.count(picture[0].transpose(1, 2, 0))
        count = float(density.sum(dtype=np.float64))
        theirs, ours = theirs + count, ours + result.count
        apart += abs(count - result.count)
        # cell by cell: even a picture with hardly any people reveals a wrong scale
        most = max(float(np.abs(result.density).max()), LEAST)
        alike &= bool(np.abs(density - result.density).max() <= TOLERANCE * most)
    if int8:
        alike = apart <= INT8_TOLERANCE * max(abs(ours), 1.0)
    if not alike:
        raise ExportError(
            f"The exported model counts {theirs:.5f} where torch counts {ours:.5f} (picture by "
            f"picture, the differences add up to {apart:.5f}), so it was not kept: update the "
            "exporter (onnxscript, nncf) and the runtime; for int8, give photographs like those to "
            "be counted."
        )
    return theirs, ours
