"""What from_pretrained, the layers and the front end promise."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from csrnet_hub import CrowdCounter, CSRNet, ModelError
from csrnet_hub.model import DILATIONS, load_vgg16_frontend, receptive_field

from .thin import BACKEND, narrow


@pytest.fixture
def slim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thin networks in one test."""
    narrow(monkeypatch)


@pytest.fixture
def folder(slim: None, thin_folder: Path, tmp_path: Path) -> Path:
    """A model's folder to be changed; networks are thin meanwhile, as it is."""
    return Path(shutil.copytree(thin_folder, tmp_path / "copy"))


def change_weights(folder: Path, key: str, value: torch.Tensor | None) -> None:
    state = {**load_file(folder / "model.safetensors"), key: value}
    kept = {name: own for name, own in state.items() if own is not None}
    save_file(kept, folder / "model.safetensors")


def test_variant_b_has_the_papers_number_of_parameters() -> None:
    assert sum(parameter.numel() for parameter in CSRNet().parameters()) == 16_263_489


@pytest.mark.parametrize(
    ("variant", "rates"),
    [("A", [1] * 6), ("B", [2] * 6), ("C", [2, 2, 2, 4, 4, 4]), ("D", [4] * 6)],
)
def test_each_variant_has_the_dilations_of_table_3(variant: str, rates: list[int]) -> None:
    convolutions = [m for m in CSRNet(variant).backend if isinstance(m, torch.nn.Conv2d)]
    assert [m.dilation[0] for m in convolutions] == rates
    assert [m.out_channels for m in convolutions] == [512, 512, 512, 256, 128, 64]


def test_layers_are_named_as_in_the_reference_code() -> None:
    convolutions = {
        **{f"frontend.{i}": 0 for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)},
        **{f"backend.{i}": 0 for i in (0, 2, 4, 6, 8, 10)},
        "output_layer": 0,
    }
    expected = {f"{name}.{kind}" for name in convolutions for kind in ("weight", "bias")}
    assert set(CSRNet().state_dict()) == expected


def test_new_layers_start_from_a_normal_of_width_one_hundredth() -> None:
    torch.manual_seed(1)
    layer = CSRNet().backend[0]
    assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert layer.bias.abs().max() == 0


@pytest.mark.parametrize("size", [(64, 96), (61, 103), (8, 8)])
def test_forward_gives_one_cell_for_eight_by_eight_pixels(
    model: CSRNet, size: tuple[int, int]
) -> None:
    with torch.no_grad():
        assert model(torch.zeros(2, 3, *size)).shape == (2, 1, size[0] // 8, size[1] // 8)


def test_save_and_load_keep_every_bit_and_the_record(slim: None, tmp_path: Path) -> None:
    torch.manual_seed(2)
    before = CSRNet("C", density_scale=3.0, training_record={"name": "mine"}, metrics={"v": {}})
    before.metrics = None
    before.save_pretrained(tmp_path / "m")
    after = CSRNet.from_pretrained(tmp_path / "m")
    assert after.config() == before.config()
    assert not after.training
    for key, value in before.state_dict().items():
        assert torch.equal(after.state_dict()[key], value)


def test_half_precision_weights_load_as_float32(
    slim: None, thin_model: CSRNet, tmp_path: Path
) -> None:
    copy.deepcopy(thin_model).half().save_pretrained(tmp_path / "half")
    weight = CSRNet.from_pretrained(tmp_path / "half").output_layer.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, thin_model.output_layer.weight.half().float())


@pytest.mark.parametrize(
    "odd", [{"mae": 3.0}, {"part A": {"mae": 60}}, {"part A": {"mae": None, "images": "many"}}]
)
def test_a_users_own_figures_never_keep_a_model_from_being_saved(
    slim: None, odd: dict, tmp_path: Path
) -> None:
    CSRNet(metrics=odd, training_record={"steps": 10}).save_pretrained(tmp_path / "m")
    assert CSRNet.from_pretrained(tmp_path / "m").metrics == odd
    assert "{{ " not in (tmp_path / "m" / "README.md").read_text(encoding="utf-8")


def test_a_record_that_json_cannot_hold_leaves_the_folder_as_it_was(
    slim: None, tmp_path: Path
) -> None:
    model = CSRNet(metrics={"mine": {"mae": np.float32(3.25), "images": np.int64(60)}})
    model.save_pretrained(tmp_path)
    assert CSRNet.from_pretrained(tmp_path).metrics == {"mine": {"mae": 3.25, "images": 60}}
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model.training_record = {"day": {1, 2}}
    with pytest.raises(ModelError, match=r"config\.json cannot hold .* of type set"):
        model.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_card_that_nobody_edited_goes_with_its_model(slim: None, tmp_path: Path) -> None:
    model = CSRNet(metrics={"mine": {"mae": 71.5, "images": 60}})
    card = tmp_path / "README.md"
    for mae in (71.5, 62.5):
        model.metrics = {"mine": {"mae": mae, "images": 60}}
        model.save_pretrained(tmp_path)
        assert f"{mae}" in card.read_text(encoding="utf-8")
    card.write_text("My own words.", encoding="utf-8")
    model.save_pretrained(tmp_path)
    assert card.read_text(encoding="utf-8") == "My own words."


def test_an_edited_card_with_the_figures_of_an_older_model_is_told(
    slim: None, tmp_path: Path
) -> None:
    model = CSRNet(metrics={"mine": {"mae": 71.5, "images": 60}})
    model.save_pretrained(tmp_path)
    card = tmp_path / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "Ask Ada.", encoding="utf-8")
    model.save_pretrained(tmp_path)  # its own figures: a warning would fail the test
    model.metrics = {"mine": {"mae": 62.5, "images": 60}}
    with pytest.warns(UserWarning, match="README.md was edited and .* an older model"):
        model.save_pretrained(tmp_path)
    assert "71.5" in card.read_text(encoding="utf-8")


def test_an_edited_card_beside_another_record_is_told(slim: None, tmp_path: Path) -> None:
    model, card = CSRNet(), tmp_path / "README.md"
    card.write_text("My MAE is 62.", encoding="utf-8")
    for _ in range(2):
        model.save_pretrained(tmp_path)  # a warning would fail the test
    model.training_record = {"step": 9}
    with pytest.warns(UserWarning, match="README.md was edited and .* record has changed") as told:
        model.save_pretrained(tmp_path)
    assert len(told) == 1
    assert card.read_text(encoding="utf-8") == "My MAE is 62."


def test_other_weights_are_not_saved_with_the_errors_of_those_that_were_loaded(
    slim: None, tmp_path: Path
) -> None:
    interval = {"level": 0.9, "quantile": 0.4, "images": 60, "power": 1.0}
    CSRNet(metrics={"validation": {"mae": 9.0}}, interval=interval).save_pretrained(tmp_path)
    model = CSRNet.from_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copy.deepcopy(model).save_pretrained(tmp_path / "same")
    assert CSRNet.from_pretrained(tmp_path / "same").interval is not None
    with torch.no_grad():
        model.output_layer.weight *= 1.05
    model.metrics = {"test": {"mae": 8.0}}  # measured since
    with pytest.warns(UserWarning, match=r"dropped \(interval\): measure anew"):
        model.save_pretrained(tmp_path / "other")
    other = CSRNet.from_pretrained(tmp_path / "other")
    assert (other.interval, other.metrics) == (None, {"test": {"mae": 8.0}})


def test_figures_that_are_no_numbers_are_saved_as_none(slim: None, tmp_path: Path) -> None:
    odd = {"mine": {"mae": float("nan"), "rmse": np.float32("inf"), "images": np.arange(2)}}
    CSRNet(metrics=odd).save_pretrained(tmp_path)
    json.loads((tmp_path / "config.json").read_text(), parse_constant=pytest.fail)
    expected = {"mine": {"mae": None, "rmse": None, "images": [0, 1]}}
    assert CSRNet.from_pretrained(tmp_path).metrics == expected


def test_a_save_that_fails_leaves_the_folder_as_it_was(
    slim: None, thin_model: CSRNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thin_model.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    replace = Path.replace

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    def held(path: Path, target: Path) -> Path:  # as Windows does with a file that is open
        if path.name == "config.json":
            raise PermissionError(13, "Permission denied")
        return replace(path, target)

    for name, broken in (("write_bytes", full), ("replace", held)):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, broken)
            with pytest.raises(OSError, match=r"space|denied"):
                CSRNet(density_scale=5.0).save_pretrained(tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", held)
        with pytest.raises(OSError, match="denied"):
            CSRNet().save_pretrained(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_what_cannot_be_saved_makes_no_folder(slim: None, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        CSRNet(training_record={"day": {1, 2}}).save_pretrained(tmp_path / "new")
    with pytest.raises(TypeError, match="config"):
        CSRNet().save_pretrained(tmp_path / "new", config={})
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.name == "nt", reason="rights are others there")
def test_who_may_read_one_file_of_a_model_may_read_all(thin_folder: Path) -> None:
    assert len({path.stat().st_mode for path in thin_folder.iterdir()}) == 1


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_save_into_a_folder_of_links_leaves_what_they_lead_to(
    slim: None, thin_model: CSRNet, tmp_path: Path
) -> None:
    blobs, folder = tmp_path / "blobs", tmp_path / "folder"  # as the Hub's cache has them
    thin_model.save_pretrained(blobs)
    folder.mkdir()
    for path in blobs.iterdir():
        (folder / path.name).symlink_to(path)
    before = {path.name: path.read_bytes() for path in blobs.iterdir()}
    other = CSRNet(density_scale=5.0)
    other.save_pretrained(folder)
    assert CSRNet.from_pretrained(folder).density_scale == 5.0
    assert {path.name: path.read_bytes() for path in blobs.iterdir()} == before


def test_loading_leaves_the_programs_random_numbers_alone(folder: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    CSRNet.from_pretrained(folder)
    assert torch.equal(torch.rand(1), expected)


def test_a_configuration_with_an_editors_mark_is_read(folder: Path) -> None:
    text = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(text, encoding="utf-8-sig")
    assert CSRNet.from_pretrained(folder).density_scale == 10.0


@pytest.mark.parametrize("which", ["model.safetensors", "config.json", "."])
def test_what_may_not_be_read_is_told_as_that(
    folder: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    locked = folder / which
    if which == ".":
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder)
    else:  # root may read anything, so the system's refusal is made up
        opened = Path.open

        def refused(self: Path, *rest: Any, **options: Any) -> Any:
            if self == locked:
                raise PermissionError(13, "Permission denied", str(self))
            return opened(self, *rest, **options)

        monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(ModelError, match=r"[Pp]ermission"):
        CSRNet.from_pretrained(folder)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("backend.4.bias", None, r"backend\.4\.bias is missing"),
        ("extra", torch.zeros(1), "extra does not belong"),
        ("output_layer.bias", torch.zeros(2), r"bias has shape \(2,\) in place of \(1,\)"),
        ("output_layer.bias", torch.tensor([torch.nan]), "not finite"),
        ("output_layer.bias", torch.tensor([1e300], dtype=torch.float64), "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_an_error_that_names_them(
    folder: Path, key: str, value: torch.Tensor | None, said: str
) -> None:
    change_weights(folder, key, value)
    with pytest.raises(ModelError, match=said) as caught:
        CSRNet.from_pretrained(folder)
    assert key in str(caught.value)


@pytest.mark.parametrize("kind", ["complex64", "bool", "int8", "float8_e4m3fn"])
def test_weights_that_are_no_plain_decimals_are_an_error(folder: Path, kind: str) -> None:
    odd = torch.zeros(BACKEND[-1]).to(getattr(torch, kind))
    try:
        change_weights(folder, "backend.10.bias", odd)
    except KeyError:
        pytest.skip(f"this safetensors writes no {kind}")
    with pytest.raises(ModelError, match=rf"backend\.10\.bias holds {kind} values"):
        CSRNet.from_pretrained(folder)


def test_sparse_weights_are_an_error() -> None:
    state = CSRNet().state_dict() | {"backend.10.bias": torch.zeros(64).to_sparse()}
    with pytest.raises(ModelError, match=r"backend\.10\.bias holds sparse_coo values"):
        CSRNet().load_strictly(state)


def test_the_programs_defaults_of_torch_change_no_model_that_is_loaded(folder: Path) -> None:
    picture = np.full((24, 40, 3), 90, np.uint8)
    expected = CrowdCounter.from_pretrained(folder, "cpu", "float32").count(picture).count
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            model = CSRNet.from_pretrained(folder)
            found = CrowdCounter(model, "cpu", "float32").count(picture).count
    finally:
        torch.set_default_dtype(torch.float32)
    assert {(value.dtype, value.device.type) for value in model.state_dict().values()} == {
        (torch.float32, "cpu")
    }
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_an_error_that_names_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        CSRNet.from_pretrained(folder)


def test_pickled_weights_are_never_a_substitute(folder: Path) -> None:
    torch.save(CSRNet().state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        CSRNet.from_pretrained(folder)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"variant": ["B"]}',
        '{"variant": "B", "mean": null}',
        '{"variant": "B", "mean": ["a", "b", "c"]}',
        '{"variant": "B", "density_scale": 0}',
        '{"variant": "B", "density_scale": {}}',
        '{"variant": "B", "density_scale": "100"}',
        '{"variant": "B", "density_scale": true}',
        '{"variant": "B", "density_scale": 1e-320}',
        '{"variant": "B", "mean": "123"}',
        '{"variant": "B", "mean": {"1": 1, "2": 2, "3": 3}}',
        '{"variant": "B", "mean": [true, false, true]}',
        '{"variant": "B", "mean": [1e308, 0, 0]}',
        '{"variant": "B", "mean": [NaN, 0, 0]}',
        '{"variant": "B", "mean": [0, 0]}',
        '{"variant": "B", "mean": [0, 0, 0, 0], "std": [1, 1]}',
        '{"variant": "B", "std": [1e-320, 1, 1]}',
        '{"variant": "B", "std": [-1, 1, 1]}',
        '{"variant": "B", "variant": "A"}',
        '{"variant": "B", "density_scale": 1' + "0" * 400 + "}",
        '{"variant": "E"}',
        '{"variant": "B", "metrics": [1]}',
        '{"variant": "B", "training_record": "long"}',
        '{"variant": "B", "interval": {"level": 0.9, "quantile": 1' + "0" * 400 + ', "images": 9}}',
        '{"variant": "B", "metrics": ' + '{"a":' * 100_000 + "1" + "}" * 100_001,
    ],
)
def test_a_damaged_config_is_an_error(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        CSRNet.from_pretrained(folder)


def test_damaged_weights_are_an_error(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read"):
        CSRNet.from_pretrained(folder)


def test_a_model_of_a_newer_version_is_told_as_that(folder: Path) -> None:
    (folder / "config.json").write_text('{"variant": "B", "colour": 1}')
    with pytest.raises(ModelError, match=r"not know \(colour\).* update csrnet-hub\.$"):
        CSRNet.from_pretrained(folder)


def test_a_model_of_the_hub_is_not_given_as_a_path() -> None:
    with pytest.raises(ModelError, match="Hub is org/name, given as a string"):
        CSRNet.from_pretrained(Path("org/name"))


@pytest.mark.parametrize("source", ["x" * 5000, "o/" + "x" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_a_sentence(source: str) -> None:
    for load in (CSRNet.from_pretrained, CrowdCounter.from_pretrained):
        with pytest.raises(ModelError) as caught:
            load(source)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize("source", ["no/such/folder", "./nothing", "org/name", "bad id!"])
def test_a_model_that_is_not_there_is_a_sentence(source: str) -> None:
    with pytest.raises(ModelError, match=source.lstrip("./")):
        CSRNet.from_pretrained(source)


def test_config_json_carries_what_a_user_would_have_to_know(thin_folder: Path) -> None:
    config = json.loads((thin_folder / "config.json").read_text())
    assert config["mean"] == [0.485, 0.456, 0.406]
    assert config["std"] == [0.229, 0.224, 0.225]
    assert config["density_scale"] == 10.0
    assert {"training_record", "metrics"} <= set(config)


def vgg_state(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    front = CSRNet().frontend.state_dict()
    return {f"features.{key}": torch.randn_like(value).to(dtype) for key, value in front.items()}


def test_the_front_end_loads_from_a_safetensors_file(tmp_path: Path) -> None:
    state = vgg_state(torch.float16)
    save_file(state, tmp_path / "vgg.safetensors")
    model = CSRNet()
    load_vgg16_frontend(model, tmp_path / "vgg.safetensors")
    for key, value in model.frontend.state_dict().items():
        assert torch.equal(value, state[f"features.{key}"].float())


def test_the_front_end_loads_from_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        import torchvision.models as zoo
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        pytest.skip(f"torchvision does not import here: {error}")
    torch.manual_seed(4)
    vgg = zoo.vgg16(weights=None, init_weights=False)  # which would draw the same layers twice
    monkeypatch.setattr(zoo, "vgg16", lambda weights: vgg)  # no download in a test
    model = CSRNet()
    load_vgg16_frontend(model)
    assert torch.equal(model.frontend[21].weight, vgg.features[21].weight)


def test_without_torchvision_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ModelError, match="safetensors file"):
        load_vgg16_frontend(CSRNet())


def test_a_front_end_that_is_not_finite_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch)
    state = vgg_state(torch.float32)
    state["features.0.bias"][0] = torch.nan
    save_file(state, tmp_path / "vgg.safetensors")
    with pytest.raises(ModelError, match=r"frontend\.0\.bias holds values that are not finite"):
        load_vgg16_frontend(CSRNet(), tmp_path / "vgg.safetensors")


def test_a_file_that_is_no_vgg_is_refused(tmp_path: Path) -> None:
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg.safetensors")
    with pytest.raises(ModelError, match="not a VGG-16"):
        load_vgg16_frontend(CSRNet(), tmp_path / "vgg.safetensors")
    with pytest.raises(ModelError, match="no file"):
        load_vgg16_frontend(CSRNet(), tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("variant", list(DILATIONS))
def test_the_receptive_field_is_that_of_the_gradient(variant: str) -> None:
    torch.manual_seed(5)
    model = CSRNet(variant).eval()  # in training, rounding leaves traces outside it
    for parameter in model.parameters():
        parameter.data = parameter.data.abs() + 0.01  # no ReLU switches a path off
    first, last = receptive_field(model)
    cells = -first // 8 + 1
    x = torch.rand(1, 3, 8, 8 * (2 * cells + 2), requires_grad=True)
    model(x)[0, 0, 0, cells].backward()
    assert x.grad is not None
    reached = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    # A maximum passes its gradient to one of its pixels only, so the rim may be a few pixels short.
    assert 8 * cells + first <= reached.min() <= 8 * cells + first + 7
    assert 8 * cells + last - 7 <= reached.max() <= 8 * cells + last


def test_importing_the_package_imports_nothing_heavy_and_heeds_no_default_device() -> None:
    code = (
        "import sys, torch; "
        "torch.set_default_device('meta'); "
        "import csrnet_hub; "
        "heavy = ('torchvision', 'gradio', 'matplotlib', 'h5py', 'scipy.spatial'); "
        "print([module for module in heavy if module in sys.modules]); "
        "from csrnet_hub import winograd; "
        "print({own.device.type for own in vars(winograd).values() if torch.is_tensor(own)})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["[]", "{'cpu'}"]
