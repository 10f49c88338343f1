"""What engine="openvino" and files in int8 promise; tests skip where the extras are missing."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from csrnet_hub import CountResult, CrowdCounter, CSRNet
from csrnet_hub.cli import main
from csrnet_hub.export import ExportError, export
from csrnet_hub.extras import ExtraError
from csrnet_hub.model_files import ModelError
from csrnet_hub.quantise import CalibrationError, calibration_crops

from .test_counting import noise
from .thin import narrow

INTERVAL = {"level": 0.9, "quantile": 2.0, "images": 60}


@pytest.fixture(scope="module")
def calibrated(thin_model: CSRNet) -> CSRNet:
    """The thin model with a prediction interval and a training record."""
    net = CSRNet(training_record={"name": "thin"}, interval=INTERVAL, density_scale=10.0)
    for name in ("frontend", "backend", "output_layer"):
        setattr(net, name, getattr(thin_model, name))
    return net.eval()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five photographs (noise) and a text file."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "notes.txt").write_text("hello")
    for i in range(5):
        Image.fromarray(noise(150 + i, 300)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def plain_file(calibrated: CSRNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("openvino")
    file = tmp_path_factory.mktemp("plain") / "thin.xml"
    export(calibrated, file)
    return file


@pytest.fixture(scope="module")
def int8_file(calibrated: CSRNet, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("nncf")
    folder = tmp_path_factory.mktemp("int8")
    with pytest.MonkeyPatch.context() as patch:
        narrow(patch)
        calibrated.save_pretrained(folder / "thin")
        arguments = [str(folder / "thin"), str(folder / "thin.xml"), "--int8", str(photos)]
        assert main(["export", *arguments]) == 0
    return folder / "thin.xml"


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(
    "own",
    [
        lambda: default_dtype(torch.float64),
        lambda: default_dtype(torch.bfloat16),
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: torch.device("meta"),
        torch.inference_mode,
    ],
)
def test_what_a_program_has_set_for_torch_changes_no_count(
    calibrated: CSRNet, own: Callable[[], AbstractContextManager[None]]
) -> None:
    pytest.importorskip("openvino")
    expected = CrowdCounter(calibrated, "cpu", "float32").count(noise(40, 60)).count
    with own():
        counter = CrowdCounter(calibrated, "cpu", "float32", engine="openvino")
        assert counter.count(noise(40, 60)).count == pytest.approx(expected, rel=1e-4)


def on_openvino(model: CSRNet, dtype: str = "float32", tile: int | str | None = "auto"):  # type: ignore[no-untyped-def]
    pytest.importorskip("openvino")
    return CrowdCounter(model, "auto", dtype, tile, engine="openvino")


def test_openvino_gives_the_map_of_torch_for_any_size(thin_model: CSRNet) -> None:
    counter, torchs = on_openvino(thin_model), CrowdCounter(thin_model, "cpu", "float32")
    for size in [(1, 1), (8, 33), (90, 131)]:
        ours, theirs = counter.count(noise(*size)), torchs.count(noise(*size))
        assert (ours.device, ours.dtype, ours.tiles) == ("cpu", "float32", 1)
        assert ours.density.shape == theirs.density.shape
        assert ours.count == pytest.approx(theirs.count, rel=1e-4)
        assert np.abs(ours.density - theirs.density).max() < 1e-4 * np.abs(theirs.density).max()


@pytest.mark.parametrize("lacking", [{}, {"INFERENCE_PRECISION_HINT": "f32"}])
def test_bfloat16_counts_within_one_per_cent_and_float32_is_said_where_there_is_none(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch, lacking: dict
) -> None:
    openvino = pytest.importorskip("openvino")
    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    make = openvino.compile_model
    monkeypatch.setattr(
        openvino, "compile_model", lambda half, on, own: make(half, on, own | lacking)
    )
    exact = CrowdCounter(thin_model, "cpu", "float32").count(noise(64, 64))
    rough = on_openvino(thin_model, "bfloat16").count(noise(64, 64))
    assert rough.dtype == ("float32" if lacking or "BF16" not in able else "bfloat16")
    assert rough.count == pytest.approx(exact.count, rel=0.01)


def test_a_large_picture_goes_through_in_tiles_with_the_same_map(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = noise(317, 397)
    whole = on_openvino(thin_model, tile=None).count(picture)
    monkeypatch.setattr("csrnet_hub.openvino_engine.WHOLE", 317 * 397)  # less than whole cells
    monkeypatch.setattr("csrnet_hub.openvino_engine.TILE", 160)
    told: list[tuple[int, int]] = []
    tiles = on_openvino(thin_model).count(picture, lambda done, total: told.append((done, total)))
    assert (whole.tiles, tiles.tiles) == (1, 6)
    assert told == [(i, 6) for i in range(1, 7)]
    same_maps(tiles, whole)


@pytest.mark.parametrize(
    ("tile", "widest", "pieces"), [(320, 4096, 2), (48, 2048, 63), (80, 160, 60)]
)
def test_neither_small_tiles_nor_strips_change_the_map(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch, tile: int, widest: int, pieces: int
) -> None:
    picture = noise(317, 397)
    whole = on_openvino(thin_model, tile=None).count(picture)
    monkeypatch.setattr("csrnet_hub.openvino_engine.WIDEST", widest)
    monkeypatch.setattr("csrnet_hub.openvino_engine.BACK", 120)
    tiles = on_openvino(thin_model, tile=tile).count(picture)
    same_maps(tiles, whole)
    assert tiles.tiles == pieces


def same_maps(ours: CountResult, theirs: CountResult) -> None:
    assert ours.count == pytest.approx(theirs.count, rel=1e-4)
    assert np.abs(ours.density - theirs.density).max() < 1e-4 * np.abs(theirs.density).max()


def test_openvino_takes_as_many_threads_as_torch(thin_model: CSRNet) -> None:
    threads = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            engine = on_openvino(thin_model).engine
            for half in (engine.front_end, engine.back_end):
                assert half.get_property("INFERENCE_NUM_THREADS") == number
    finally:
        torch.set_num_threads(threads)


def test_several_threads_may_count_at_once(thin_model: CSRNet) -> None:
    counter = on_openvino(thin_model)
    pictures = [noise(40 + i, 60) for i in range(8)]
    alone = [counter.count(picture).count for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = [result.count for result in pool.map(counter.count, pictures)]
    assert together == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "cuda"}, "on the CPU, not on cuda"),
        ({"device": torch.device("meta")}, "on the CPU, not on meta"),
        ({"dtype": "float16"}, "auto, float32, bfloat16 for engine openvino, not 'float16'"),
    ],
)
def test_what_openvino_cannot_do_is_a_sentence(
    thin_model: CSRNet, options: dict, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        CrowdCounter(thin_model, engine="openvino", **options)


def test_without_openvino_the_command_to_install_it_is_told(
    thin_model: CSRNet, photo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ExtraError, match=r"openvino.*pip install .*\[openvino\]"):
        CrowdCounter(thin_model, engine="openvino")
    (tmp_path / "m.xml").touch()
    (tmp_path / "m.bin").touch()
    with pytest.raises(ExtraError, match="openvino is not installed"):
        CrowdCounter.from_pretrained(tmp_path / "m.xml")


def test_an_extra_that_is_installed_but_does_not_load_is_told_as_that() -> None:
    broken = ImportError("DLL load failed while importing _core: not found", name="openvino._core")
    told = str(ExtraError("openvino", broken))
    assert "installed but fail to load (DLL load failed" in told
    assert "is not installed" not in told


def test_without_nncf_the_command_to_install_it_is_told(
    calibrated: CSRNet, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ExtraError, match=r"nncf.*pip install .*\[int8\]"):
        export(calibrated, tmp_path / "m.xml", photos)
    assert list(tmp_path.iterdir()) == []


def test_no_use_is_reported_to_anybody(photo: Path, plain_file: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    script = (
        "import sys\n"
        "sys.addaudithook(lambda event, _: event.startswith('socket.') and sys.exit(event))\n"
        "from csrnet_hub.cli import main\n"
        f"code = main(['count', {str(photo)!r}, '--json', '--model', {str(plain_file)!r}])\n"
        "sys.exit(code or 'openvino_telemetry.main' in sys.modules)\n"
    )
    command = [sys.executable, "-c", script]
    places = {name: str(home) for name in ("HOME", "USERPROFILE", "LOCALAPPDATA")}
    done = subprocess.run(
        command, env={**os.environ, **places}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(home.glob("*ntel*")) == []  # where a client's number would be kept


def test_the_command_line_counts_on_openvino(
    photo: Path, thin_model: CSRNet, plain_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["count", str(photo), "--model", str(plain_file), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    expected = CrowdCounter(thin_model, "cpu", "float32").count(photo).count
    assert row["model"] == "thin.xml"
    assert row["count"] == pytest.approx(expected, rel=0.01)
    assert row["interval"] is not None
    options = ["--engine", "openvino", "--device", "cuda", "--model", str(plain_file)]
    assert main(["count", str(photo), *options]) == 2
    assert "on the CPU, not on cuda" in capsys.readouterr().err


def test_a_file_counts_with_its_models_configuration(
    plain_file: Path, calibrated: CSRNet, scene: np.ndarray
) -> None:
    counter = CrowdCounter.from_pretrained(plain_file, dtype="float32")
    ours, theirs = counter.count(scene), CrowdCounter(calibrated, "cpu", "float32").count(scene)
    assert counter.model.config() == calibrated.config()
    assert (counter.name, ours.dtype, ours.level) == ("thin.xml", "float32", 0.9)
    assert ours.count == pytest.approx(theirs.count, rel=1e-4)
    assert ours.interval == pytest.approx(theirs.interval, rel=1e-3)


def test_a_file_needs_its_engine_and_takes_no_options_of_the_hub(
    plain_file: Path, scene: np.ndarray
) -> None:
    counter = CrowdCounter.from_pretrained(plain_file, dtype="float32")
    with pytest.raises(ValueError, match='needs engine="openvino"'):
        CrowdCounter(counter.model)
    again = CrowdCounter(counter.model, dtype="float32", engine="openvino")
    assert again.count(scene).count == counter.count(scene).count
    with pytest.raises(ValueError, match="revision applies to Hub models only, not to the file"):
        CrowdCounter.from_pretrained(plain_file, revision="v1", cache_dir=None)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("m.xml", None, "There is no file .*m.xml"),
        ("m.bin", None, "There is no file .*m.bin"),
        ("m.xml", half, "damaged"),
        ("m.bin", half, "damaged"),
        ("m.xml", lambda _: b"hello", "damaged"),
        ("m.xml", lambda _: b"", "damaged"),
        ("m.xml", lambda text: text.replace(b"csrnet>", b"other>"), "not written by csrnet"),
        ("m.xml", lambda text: text.replace(b"variant", b"flavour"), "not written by csrnet"),
        ("m.xml", lambda text: text.replace(b"min_side", b"least"), r"\(least\).* update csrnet-"),
    ],
)
def test_a_file_that_is_not_whole_or_foreign_is_a_sentence(  # type: ignore[no-untyped-def]
    plain_file: Path, tmp_path: Path, name: str, change, words: str
) -> None:
    for suffix in (".xml", ".bin"):
        content = plain_file.with_suffix(suffix).read_bytes()
        if name == f"m{suffix}" and change is None:
            continue
        (tmp_path / f"m{suffix}").write_bytes(change(content) if name == f"m{suffix}" else content)
    with pytest.raises(ModelError, match=words):
        CrowdCounter.from_pretrained(str(tmp_path / "m.xml"))


def test_an_int8_file_has_float_ends_and_counts_like_torch(
    int8_file: Path, plain_file: Path, calibrated: CSRNet
) -> None:
    counter = CrowdCounter.from_pretrained(int8_file)
    picture = noise(200, 260)
    ours, theirs = counter.count(picture), CrowdCounter(calibrated, "cpu", "float32").count(picture)
    assert ours.dtype == "int8"
    assert ours.count != theirs.count
    assert ours.count == pytest.approx(theirs.count, rel=0.05)
    assert ours.interval is not None
    sizes = [file.with_suffix(".bin").stat().st_size for file in (int8_file, plain_file)]
    assert sizes[0] < 0.5 * sizes[1]
    operations = counter.model.graph.get_ordered_ops()
    layers = [op for op in operations if op.get_type_name() == "Convolution"]
    weights = [layer.input_value(1).get_node().get_type_name() for layer in layers]
    assert [kind == "Constant" for kind in weights] == [True, *[False] * 14, True, True]


def test_a_share_that_rounding_adds_to_all_counts_is_taken_off(
    int8_file: Path, calibrated: CSRNet, photos: Path
) -> None:
    rounded = CrowdCounter.from_pretrained(int8_file)
    exact = CrowdCounter(calibrated, "cpu", "float32")
    crops = [crop[0].transpose(1, 2, 0) for crop in calibration_crops(photos, CSRNet())]
    ours, theirs = (sum(way.count(crop).count for crop in crops) for way in (rounded, exact))
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_the_precision_of_an_int8_file_cannot_be_chosen(int8_file: Path) -> None:
    with pytest.raises(ValueError, match="in int8, so dtype must be auto"):
        CrowdCounter.from_pretrained(int8_file, dtype="float32")


def test_crops_are_the_same_each_time_from_a_folder_or_a_prepared_file(
    photos: Path, tmp_path: Path
) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for photo in photos.glob("*.png"):
            file[f"images/{photo.stem}"] = np.asarray(Image.open(photo))
    ours, prepared = (
        calibration_crops(photos, CSRNet()),
        calibration_crops(tmp_path / "a.h5", CSRNet()),
    )
    assert len(ours) == len(prepared) == 64
    assert all(np.array_equal(one, other) for one, other in zip(ours, prepared))
    assert {crop.shape[1:3] for crop in ours} == {(3, 150 + i) for i in range(5)}
    assert max(crop.shape[3] for crop in ours) == 256


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty", None, "holds no photograph"),
        ("gone", None, "neither a folder"),
        ("bad/a.jpg", b"no picture", "a.jpg: "),
        ("a.h5", b"no prepared file", "neither a folder"),
    ],
)
def test_photographs_that_cannot_be_calibrated_on_are_a_sentence(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    source = (tmp_path / name).parent if name.startswith("bad") else tmp_path / name
    with pytest.raises(CalibrationError, match=words):
        calibration_crops(source, CSRNet())


def test_only_openvino_takes_int8(calibrated: CSRNet, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"must end in \.xml"):
        export(calibrated, tmp_path / "m.onnx", photos)


def test_int8_that_is_wrong_in_dense_photographs_alone_is_not_kept(
    calibrated: CSRNet, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    Image.new("RGB", (200, 200)).save(photos / "-black.png")  # the first, which is right
    counter = CrowdCounter(calibrated, "cpu", "float32")
    top = 1.01 * float(counter.count(photos / "-black.png").density.max())

    def clipped(graph: Any, crops: Any) -> Any:  # as by ranges that are too narrow
        end = graph.get_results()[0].input_value(0)
        end.get_tensor().set_names(set())
        density = openvino.opset13.minimum(end, np.float32(top))
        density.output(0).get_tensor().set_names({"density"})
        return openvino.Model([density], graph.get_parameters())

    monkeypatch.setattr("csrnet_hub.export.quantise", clipped)
    try:
        with pytest.raises(ExportError, match="so it was not kept"):
            export(calibrated, tmp_path / "bad.xml", photos)
    finally:
        (photos / "-black.png").unlink()
    assert list(tmp_path.iterdir()) == []


def test_an_exported_model_cannot_be_saved_as_a_folder(
    plain_file: Path, calibrated: CSRNet, tmp_path: Path
) -> None:
    model = CrowdCounter.from_pretrained(plain_file).model
    for way in (model.save_pretrained, model.push_to_hub):
        with pytest.raises(ModelError, match="copy those"):
            way(str(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


def test_a_model_in_half_precision_is_exported_and_stays_as_it_is(
    calibrated: CSRNet, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    half = copy.deepcopy(calibrated).half()
    export(half, tmp_path / "half.xml")
    assert half.output_layer.weight.dtype == torch.float16
    counted = CrowdCounter(half, "cpu", "float32", engine="openvino").count(noise(100, 120))
    expected = CrowdCounter.from_pretrained(tmp_path / "half.xml", dtype="float32")
    assert counted.count == pytest.approx(expected.count(noise(100, 120)).count, rel=1e-4)
