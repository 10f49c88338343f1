"""What csrnet export promises; each runtime's tests skip where it is not installed."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from csrnet_hub import CrowdCounter, CSRNet
from csrnet_hub.cli import main
from csrnet_hub.export import ExportError, _compare, _noise, export
from csrnet_hub.extras import ExtraError
from csrnet_hub.photograph import Photograph

Run = Callable[[np.ndarray], np.ndarray]


def run_onnx(file: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})[0]


def run_openvino(file: Path) -> Run:
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(file, "CPU", exact)
    return lambda image: compiled({"image": image})[0]


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def exported(
    request: pytest.FixtureRequest, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Run]:
    """The small scene's model as a file that the command line wrote, and what runs it."""
    ending, run = {"onnx": (".onnx", run_onnx), "openvino": (".xml", run_openvino)}[request.param]
    for package in {"onnx": ["onnxscript", "onnxruntime"]}.get(request.param, [request.param]):
        pytest.importorskip(package)
    file = tmp_path_factory.mktemp("exported") / f"model{ending}"
    assert main(["export", str(model_folder), str(file)]) == 0
    return file, run(file)


def as_input(pixels: np.ndarray) -> np.ndarray:
    """A photograph (H, W, 3) as the file takes it: nothing but its RGB values."""
    return pixels.transpose(2, 0, 1)[None].astype(np.float32)


@pytest.mark.parametrize("size", [(90, 130), (64, 64), (8, 33), (1, 1)])
def test_a_photograph_of_any_size_counts_as_in_torch(
    exported: tuple[Path, Run], model: CSRNet, scene: np.ndarray, size: tuple[int, int]
) -> None:
    photo = scene[: size[0], : size[1]]
    ours = CrowdCounter(model, "cpu", "float32").count(photo)
    density = exported[1](as_input(photo))
    assert density.shape == (1, 1, *ours.density.shape)
    assert density.sum() == pytest.approx(ours.count, rel=1e-3)
    np.testing.assert_allclose(density[0, 0], ours.density, rtol=1e-3, atol=1e-4)


def test_several_photographs_of_a_size_go_through_at_once(
    exported: tuple[Path, Run], scene: np.ndarray
) -> None:
    run = exported[1]
    one, two = as_input(scene[:40, :56]), as_input(scene[40:80, :56])
    together = run(np.concatenate([one, two, one]))
    np.testing.assert_allclose(together[:2], np.concatenate([run(one), run(two)]), rtol=1e-4)


def test_the_onnx_graph_has_plain_convolutions_named_sizes_and_the_models_configuration(
    exported: tuple[Path, Run], model: CSRNet
) -> None:
    onnx = pytest.importorskip("onnx")
    if exported[0].suffix != ".onnx":
        pytest.skip("of the ONNX file")
    loaded = onnx.load(exported[0])
    operators = [node.op_type for node in loaded.graph.node]
    assert operators.count("Conv") == 17
    assert "MatMul" not in operators
    sizes = [axis.dim_param for axis in loaded.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", "", "height", "width"]
    about = {entry.key: entry.value for entry in loaded.metadata_props}
    assert json.loads(about["config"]) == json.loads(json.dumps(model.config()))
    assert "heads per cell" in about["output"]


@pytest.mark.parametrize("name", ["model.onnx", "model.xml", "model.bin"])
def test_a_file_that_is_there_is_not_overwritten(model: CSRNet, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    out = (tmp_path / name).with_suffix(".xml" if name.endswith("bin") else Path(name).suffix)
    with pytest.raises(ExportError, match="already exists"):
        export(model, out)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("held", ["m.xml", "m.bin"])
def test_half_a_model_is_not_left(
    model: CSRNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    def write(model: CSRNet, out: Path, crops: object) -> None:
        out.touch()
        out.with_suffix(".bin").touch()

    def rename(path: Path, to: Path) -> None:
        if to.name == held:
            raise PermissionError(13, "held by a virus scanner")
        path.replace(to)

    monkeypatch.setattr("csrnet_hub.export._write_openvino", write)
    monkeypatch.setattr("csrnet_hub.export._compare", lambda *_: (1.0, 1.0))
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(PermissionError):
        export(model, tmp_path / "m.xml")
    assert not list(tmp_path.iterdir())


def test_another_ending_is_a_sentence(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(model_folder), str(tmp_path / "model.tflite")]) == 2
    assert "must end in .onnx, or in .xml for OpenVINO" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "missing", "extra"),
    [("m.onnx", "onnxruntime", "onnx"), ("m.xml", "openvino", "openvino")],
)
def test_without_the_extra_the_command_to_install_it_is_told(
    model: CSRNet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    missing: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ExtraError, match=rf"{missing}.*pip install .*\[{extra}\]"):
        export(model, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("times", "kept"), [(1.0, True), (1.1, False), (0.75, False)])
def test_a_file_that_counts_otherwise_than_torch_is_not_kept_even_where_hardly_anybody_is_seen(
    model: CSRNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: float, kept: bool
) -> None:
    faint = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in faint.output_layer.parameters():
            parameter.mul_(1e-3)
    noise = _noise()
    density = CrowdCounter(faint, "cpu", "float32").count(noise[0].transpose(1, 2, 0)).density
    assert 1e-6 < np.abs(density).max() < 1e-2

    def scaled(model: CSRNet, out: Path) -> Run:
        out.write_bytes(b"a graph")
        return lambda image: density[None, None] * times

    monkeypatch.setattr("csrnet_hub.export._write_onnx", scaled)
    if kept:
        export(faint, tmp_path / "m.onnx")
    else:
        with pytest.raises(ExportError, match="where torch counts"):
            export(faint, tmp_path / "m.onnx")
    assert len(list(tmp_path.iterdir())) == kept


def test_a_file_is_compared_with_torch_at_one_size(thin_model: CSRNet) -> None:
    """Though torch enlarges small pictures, and the file does not."""
    model = copy.deepcopy(thin_model)
    model.min_side = 200
    graph = Photograph(model).eval()

    def run(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return graph(torch.from_numpy(image)).numpy()

    theirs, ours = _compare(model, run, [_noise()], int8=False)
    assert theirs == pytest.approx(ours, rel=1e-4)
