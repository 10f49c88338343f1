"""What becomes of checkpoints that other code wrote, and of those that were made to do harm."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from csrnet_hub import CSRNet, ModelError
from csrnet_hub import convert as convert_module
from csrnet_hub.cli import main
from csrnet_hub.convert import convert, read_state_dict

pytestmark = pytest.mark.usefixtures("thin")


def legacy(model: CSRNet, path: Path) -> Path:
    """The model in the shape in which other code saves it, by the file's suffix."""
    state = model.state_dict()
    if path.suffix == ".npz":
        np.savez(path, **{key: value.numpy() for key, value in state.items()})
    elif path.suffix == ".tar":
        wrapped = {f"module.{key}": value for key, value in state.items()}
        best = np.float64(66.4)
        torch.save({"epoch": 9, "arch": "x", "best_prec1": best, "state_dict": wrapped}, path)
    elif path.name == "old.pt":
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("error", [OSError(28, "No space left"), SafetensorError("No space left")])
def test_a_full_disk_is_a_sentence(
    thin_model: CSRNet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    def full(*args: object) -> None:
        raise error

    old = legacy(thin_model, tmp_path / "a.pth")
    monkeypatch.setattr(CSRNet, "save_pretrained", full)
    assert main(["convert", str(old), str(tmp_path / "new")]) == 2
    assert "could not be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.pth.tar", "a.pth", "a.npz", "old.pt"])
def test_a_converted_checkpoint_gives_equal_outputs(
    thin_model: CSRNet, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = legacy(thin_model, tmp_path / name), tmp_path / "my model"
    assert main(["convert", str(old), str(new), "--density-scale", "10"]) == 0
    assert f"csrnet count PHOTO --model '{new}'" in capsys.readouterr().out
    converted = CSRNet.from_pretrained(new)
    expected = CSRNet()
    expected.load_state_dict(thin_model.state_dict())  # in the memory format of a new model
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(converted(x), expected(x))
    assert converted.density_scale == 10
    assert name in (new / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        ("model_state_dict", "module."),
        ("weights", "_orig_mod."),
        ("net", "model."),
        ("model", "module.net."),
    ],
)
def test_a_state_dict_is_found_under_any_key_and_prefix(
    thin_model: CSRNet, tmp_path: Path, key: str, prefix: str
) -> None:
    state = thin_model.state_dict()
    wrapped = {f"{prefix}{name}": value for name, value in state.items()}
    others = {"epoch": 3, "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    torch.save({**others, key: wrapped}, tmp_path / "a.pth")
    found = read_state_dict(tmp_path / "a.pth")
    assert found.keys() == state.keys()
    assert torch.equal(found["output_layer.bias"], thin_model.output_layer.bias)


def test_of_two_state_dicts_none_is_guessed(tmp_path: Path) -> None:
    state = {"a": torch.zeros(1)}
    torch.save({"student": state, "teacher": state}, tmp_path / "a.pth")
    with pytest.raises(ModelError, match=r"no state dict .* or several"):
        read_state_dict(tmp_path / "a.pth")


def test_numbers_pickled_under_numpy_1_are_no_obstacle(thin_model: CSRNet, tmp_path: Path) -> None:
    saved = {"best_prec1": np.float64(66.4), "state_dict": thin_model.state_dict()}
    torch.save(saved, tmp_path / "new.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "new.pth").read_bytes()
    names = (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert any(name in content for name in names)
    for name in names:
        for other in names:
            content = content.replace(other, name)
        (tmp_path / "renamed.pth").write_bytes(content)
        state = read_state_dict(tmp_path / "renamed.pth")
        assert torch.equal(state["output_layer.bias"], thin_model.output_layer.bias)


class Harmful:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("harmful-file"),))


def test_code_in_a_checkpoint_never_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Harmful()}, "a.pth")
    np.savez("b.npz", x=np.array([Harmful()], dtype=object))
    assert main(["convert", "a.pth", "new"]) == 2
    assert main(["convert", "b.npz", "new"]) == 2
    assert not Path("harmful-file").exists()
    assert not Path("new").exists()
    err = capsys.readouterr().err
    assert "run code" in err
    assert "torch.save(model.state_dict(), FILE)" in err


@pytest.mark.parametrize("name", ["a.pth", "a.npz", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 truncated", b"\x80\x02("])
def test_a_damaged_checkpoint_is_a_sentence(
    tmp_path: Path, name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["convert", str(tmp_path / name), str(tmp_path / "new")]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"csrnet: {name}")
    assert "Traceback" not in err


def test_convert_refuses_other_content_and_a_folder_in_use(
    thin_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    assert main(["convert", str(tmp_path / "list.pth"), str(tmp_path / "new")]) == 2
    assert "no state dict" in capsys.readouterr().err
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    assert main(["convert", str(tmp_path / "other.pth"), str(tmp_path / "new")]) == 2
    assert "is missing" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "other.pth"), str(thin_folder)]) == 2
    assert "already holds a model" in capsys.readouterr().err


def test_the_weights_of_a_model_folder_are_not_converted(
    thin_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = thin_folder / "model.safetensors"
    assert main(["convert", str(weights), str(tmp_path / "new")]) == 2
    assert "needs no conversion" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_weights_beside_a_configuration_of_other_code_are_converted(
    thin_folder: Path, tmp_path: Path
) -> None:
    state = CSRNet.from_pretrained(thin_folder).state_dict()
    weights, new = tmp_path / "model.safetensors", tmp_path / "new"
    save_file({f"module.{key}": value for key, value in state.items()}, weights)
    (tmp_path / "config.json").write_text('{"load_weights": false}')
    assert main(["convert", str(weights), str(new)]) == 0
    converted = CSRNet.from_pretrained(new).state_dict()
    assert all(torch.equal(converted[key], value) for key, value in state.items())


def test_a_number_of_an_invented_kind_is_not_made(tmp_path: Path) -> None:
    # The file says of its eight bytes that they are the address of an object.
    def text(content: str) -> bytes:
        raw = content.encode()
        return pickle.BINUNICODE + struct.pack("<I", len(raw)) + raw

    def name(module: str, attribute: str) -> bytes:
        return pickle.GLOBAL + f"{module}\n{attribute}\n".encode()

    def call(function: bytes, *arguments: bytes) -> bytes:
        return function + pickle.MARK + b"".join(arguments) + pickle.TUPLE + pickle.REDUCE

    def whole(number: int) -> bytes:
        return pickle.BININT + struct.pack("<i", number)

    def together(*parts: bytes) -> bytes:
        return pickle.MARK + b"".join(parts) + pickle.TUPLE

    kind = call(name("numpy", "dtype"), text("f8"), pickle.NEWFALSE, pickle.NEWTRUE)
    inside = together(call(name("numpy", "dtype"), text("O")), pickle.EMPTY_TUPLE)
    nothing = [pickle.NONE, pickle.NONE, whole(-1), whole(-1), whole(0)]
    kind += together(whole(3), text("<"), inside, *nothing) + pickle.BUILD
    address = call(name("_codecs", "encode"), text("A" * 8), text("latin1"))
    number = call(name("numpy._core.multiarray", "scalar"), kind, address)
    content = pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + text("best") + number
    content += pickle.SETITEM + pickle.STOP
    torch.save({}, tmp_path / "whole.pth")
    with (
        zipfile.ZipFile(tmp_path / "whole.pth") as whole_file,
        zipfile.ZipFile(tmp_path / "bad.pth", "w") as bad,
    ):
        for part in whole_file.namelist():
            harmful = part.endswith("data.pkl")
            bad.writestr(part, content if harmful else whole_file.read(part))
    command = [sys.executable, "-m", "csrnet_hub", "convert", "bad.pth", "new"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no state dict" in done.stderr


def test_a_runs_checkpoint_is_no_model(tmp_path: Path) -> None:
    torch.save({"recipe": {}, "model": {}, "average": {}, "optimiser": {}}, tmp_path / "last.pt")
    with pytest.raises(ModelError, match="model is in the folder best beside it"):
        convert(tmp_path / "last.pt", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_archive_of_more_than_any_network_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10**6))
    monkeypatch.setattr(convert_module, "LARGEST", 10**6)
    monkeypatch.setattr(np, "load", pytest.fail)
    with pytest.raises(ModelError, match="its arrays have 8,000,128 bytes"):
        read_state_dict(tmp_path / "a.npz")


def test_the_ending_may_be_in_capitals(thin_model: CSRNet, tmp_path: Path) -> None:
    state = {key: value.contiguous() for key, value in thin_model.state_dict().items()}
    save_file(state, tmp_path / "A.SAFETENSORS")
    state = read_state_dict(tmp_path / "A.SAFETENSORS")
    assert torch.equal(state["output_layer.bias"], thin_model.output_layer.bias)


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode there")
def test_a_name_that_is_no_unicode_is_recorded(thin_model: CSRNet, tmp_path: Path) -> None:
    old = tmp_path / os.fsdecode(b"caf\xe9.pth")
    torch.save(thin_model.state_dict(), old)
    convert(old, tmp_path / "new")
    card = (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert r"converted from the checkpoint `caf\xe9.pth`" in card.replace("Converted", "converted")


def test_checkpoints_are_read_in_several_threads(tmp_path: Path) -> None:
    saved = {"best": np.float64(66.4), "state_dict": {"a": torch.ones(1)}}
    torch.save(saved, tmp_path / "a.pth")
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(read_state_dict, [tmp_path / "a.pth"] * 64))
    assert all(state["a"] == 1 for state in read)


def test_a_random_state_beside_the_weights_is_no_trouble(
    thin_model: CSRNet, tmp_path: Path
) -> None:
    state = {"epoch": 3, "state_dict": thin_model.state_dict(), "rng_state": torch.get_rng_state()}
    torch.save(state, tmp_path / "old.pth")
    convert(tmp_path / "old.pth", tmp_path / "new")
    CSRNet.from_pretrained(tmp_path / "new")


def test_the_variant_that_wrote_a_checkpoint_is_that_of_the_model(
    thin_model: CSRNet, tmp_path: Path
) -> None:
    old, new = legacy(thin_model, tmp_path / "a.pth"), tmp_path / "new"
    assert main(["convert", str(old), str(new), "--variant", "C"]) == 0
    assert CSRNet.from_pretrained(new).variant == "C"


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_state_dict_of_this_package_keeps_its_scale(tmp_path: Path, wrapped: bool) -> None:
    own = CSRNet(density_scale=10.0, min_side=384, std=(0.5, 0.4, 0.3))
    model = torch.nn.DataParallel(own) if wrapped else own
    state = model.state_dict()
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "own.pth")
    assert main(["convert", str(tmp_path / "own.pth"), str(tmp_path / "new")]) == 0
    plain = CSRNet()
    other = torch.nn.DataParallel(plain) if wrapped else plain
    other.load_state_dict(torch.load(tmp_path / "own.pth")["state_dict"])
    for found in (CSRNet.from_pretrained(tmp_path / "new"), plain):
        assert (found.density_scale, found.min_side, found.std) == (10.0, 384, (0.5, 0.4, 0.3))
    again = ["convert", str(tmp_path / "own.pth"), str(tmp_path / "100"), "--density-scale", "100"]
    assert main(again) == 0
    scaled = CSRNet.from_pretrained(tmp_path / "100")
    assert (scaled.density_scale, scaled.min_side) == (100.0, 384)
    state._metadata["module" if wrapped else ""]["csrnet_hub"]["density_scale"] = "ten"
    torch.save(state, tmp_path / "odd.pth")
    assert main(["convert", str(tmp_path / "odd.pth"), str(tmp_path / "odd")]) == 2
    assert not (tmp_path / "odd").exists()
    for number, odd in enumerate(([1], {"": 1, "module": 1})):
        state._metadata = odd
        torch.save(state, tmp_path / "odd.pth")
        assert main(["convert", str(tmp_path / "odd.pth"), str(tmp_path / f"{number}")]) == 0
