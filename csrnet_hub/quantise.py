"""Post-training int8 quantisation of graphs by NNCF, calibrated on photographs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .extras import ExtraError
from .images import ImageError, load_image
from .model import CSRNet
from .named import is_picture
from .openvino_engine import import_openvino
from .scale import first_scale, resized

CROPS = 64
SIDE = 256  # pixels

Item = TypeVar("Item")
Crop = NDArray[np.uint8]  # (1, 3, H, W) RGB


class CalibrationError(ValueError):
    """Photographs are unusable for calibration; the message says which and why."""


def quantise(graph: Any, crops: Sequence[Crop]) -> Any:
    """Quantise all but the first and the last two convolutions of an ``openvino.Model`` to int8.

    Its total count over the crops equals that of the given graph.

    Raises:
        ExtraError: if openvino or nncf is not installed.
    """
    import_openvino()  # first: it also stops nncf from reporting its use
    try:
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet
    except ImportError as error:
        raise ExtraError("int8", error) from error
    nncf.set_log_level(logging.ERROR)
    # The mean of the crops' maxima, nncf's default, would clip the maps of dense crowds.
    ranges = RangeEstimatorParametersSet.MINMAX
    operations = graph.get_ordered_ops()
    layers = [op.get_friendly_name() for op in operations if op.get_type_name() == "Convolution"]
    small = nncf.quantize(
        graph,
        nncf.Dataset(crops, lambda crop: crop.astype(np.float32)),
        subset_size=len(crops),
        # With the last but one in int8, counts would be a third too high where people are few.
        ignored_scope=nncf.IgnoredScope(names=[layers[0], *layers[-2:]]),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=ranges
        ),
    )
    return _scaled(small, _heads(graph, crops), _heads(small, crops))


def _heads(graph: Any, crops: Sequence[Crop]) -> float:
    network = import_openvino().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    maps = (network({"image": crop.astype(np.float32)})[0] for crop in crops)
    return sum(float(density.sum(dtype=np.float64)) for density in maps)


def _scaled(graph: Any, wanted: float, found: float) -> Any:
    """Remove the roughly constant factor that rounding the weights puts on all counts."""
    if not abs(found - wanted) < 0.1 * wanted:
        return graph  # not a factor: comparing the counts will reveal it
    openvino = import_openvino()
    end = graph.get_results()[0].input_value(0)
    end.get_tensor().set_names(set())
    density = openvino.opset13.multiply(end, np.float32(wanted / found))
    density.output(0).get_tensor().set_names({"density"})
    return openvino.Model([density], graph.get_parameters())


def calibration_crops(source: Path, model: CSRNet) -> list[Crop]:
    """64 crops of at most 256x256 pixels, always the same, from evenly chosen photographs.

    Args:
        model: photographs are resized to the size at which it first counts them.
        source: a folder of photographs, or a train.prepare file.

    Raises:
        CalibrationError: if there are none, or one cannot be read.
        ExtraError: if h5py, which prepared files need, is not installed.
    """
    photographs = _from_folder(source) if source.is_dir() else _from_prepared(source)
    rng = np.random.default_rng(0)
    sized = (resized(one, first_scale(model, *one.shape[:2])) for one in photographs)
    return [_crop(pixels, rng) for pixels in sized]


def _from_folder(folder: Path) -> Iterator[NDArray[np.uint8]]:
    files = sorted(file for file in folder.iterdir() if is_picture(file))
    for file in _evenly(files, folder):
        try:
            yield load_image(file)
        except ImageError as error:
            raise CalibrationError(f"{file}: {error}") from error


def _from_prepared(path: Path) -> Iterator[NDArray[np.uint8]]:
    if not path.is_file():
        raise CalibrationError(f"{path} is neither a folder of photographs nor a prepared file.")
    try:
        import h5py
    except ImportError as error:
        raise ExtraError("train", error) from error
    try:
        with h5py.File(path, "r") as file:
            for name in _evenly(sorted(file["images"]), path):
                yield file[f"images/{name}"][()]
    except (OSError, KeyError) as error:
        raise CalibrationError(
            f"{path} is neither a folder of photographs nor a file of train.prepare: {error}."
        ) from error


def _evenly(items: Sequence[Item], source: Path) -> list[Item]:
    if not items:
        raise CalibrationError(f"{source} holds no photograph to calibrate on.")
    return [items[i] for i in np.linspace(0, len(items) - 1, CROPS).astype(int)]


def _crop(pixels: NDArray[np.uint8], rng: np.random.Generator) -> Crop:
    top, left = (int(rng.integers(max(side - SIDE, 0) + 1)) for side in pixels.shape[:2])
    part = pixels[top : top + SIDE, left : left + SIDE]
    crop: Crop = part.transpose(2, 0, 1)[None].copy()  # (1, 3, H, W)
    return crop
