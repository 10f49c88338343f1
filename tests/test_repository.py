"""What the repository as a whole promises: the shipped model, the commands, what is installed."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from packaging.requirements import Requirement
from safetensors import safe_open

from csrnet_hub import CrowdCounter, ModelError
from csrnet_hub.resources import DEFAULT_MODEL, resource
from demo.scenes import draw_scene

from .empty_scenes import empty_scenes
from .test_winograd import on_processor

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


COUNTED = {"csrnet-joint": 229.4, "csrnet-partA": 189.0}  # of 300 drawn heads, not enlarged


@pytest.fixture(scope="module")
def shipped() -> Path:
    folder = resource(DEFAULT_MODEL)
    assert folder is not None
    return folder


@pytest.fixture(params=sorted((ROOT / "weights").glob("csrnet-*")), ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    """Each of the models in the repository."""
    return Path(request.param)


@pytest.fixture(scope="module")
def counter(shipped: Path) -> CrowdCounter:
    return CrowdCounter.from_pretrained(shipped, "cpu")


@pytest.mark.parametrize(
    ("size", "kinds"),
    [
        ((384, 288), ("blank-black", "blank-white", "noise-uniform", "noise-coarse")),
        ((1024, 768), ("blank-grey",)),
    ],
)
def test_the_shipped_model_sees_nobody_in_blank_pictures_and_in_noise(
    counter: CrowdCounter, size: tuple[int, int], kinds: tuple[str, ...]
) -> None:
    scenes = dict(empty_scenes(0, *size))
    for kind in kinds:
        assert abs(counter.count(scenes[kind]).count) < 3, kind


def test_the_shipped_model_sees_one_person_in_a_portrait(counter: CrowdCounter) -> None:
    result = counter.count(get_sample_data("grace_hopper.jpg", asfileobj=False))
    assert round(result.count) == 1  # 2.3 at its own size
    assert result.scale < 0.3


def test_the_shipped_model_counts_a_crowd_alike_in_every_precision(
    counter: CrowdCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 by Winograd's convolutions, whatever the processor, and by torch's own."""
    scene = np.array(draw_scene(300, (400, 288), seed=1)[0])
    exact = CrowdCounter(counter.model, "cpu", "float32", scale=1.0).count(scene).count
    assert exact == pytest.approx(COUNTED[counter.name], rel=0.005)
    rough = CrowdCounter(counter.model, "cpu", "float32", scale=1.0)
    rough.engine.kind = torch.bfloat16  # without the warning where that is slow
    for quick in (True, False):
        on_processor(monkeypatch, quick, amx=False)
        assert rough.count(scene).count == pytest.approx(exact, rel=0.005)


def test_the_shipped_weights_are_those_of_their_configuration(folder: Path) -> None:
    """At least, they count what they counted when they were put beside it."""
    scene = np.array(draw_scene(300, (400, 288), seed=1)[0])
    found = CrowdCounter.from_pretrained(folder, "cpu", "float32", scale=1.0).count(scene)
    assert found.count == pytest.approx(COUNTED[folder.name], rel=0.005)


def test_without_a_name_the_shipped_model_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CrowdCounter.from_pretrained().name == Path(DEFAULT_MODEL).name
    monkeypatch.setattr("csrnet_hub.counting.resource", lambda name: None)
    with pytest.raises(ModelError, match="No model came with this installation"):
        CrowdCounter.from_pretrained()


def test_the_shipped_weights_are_half_precision_and_nothing_but_tensors(folder: Path) -> None:
    with safe_open(folder / "model.safetensors", "pt") as file:
        tensors = [file.get_slice(key) for key in file.keys()]  # noqa: SIM118  (no mapping)
        assert {tensor.get_dtype() for tensor in tensors} == {"F16"}
        assert sum(np.prod(tensor.get_shape()) for tensor in tensors) == 16_263_489
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_the_shipped_model_tells_its_training_and_its_errors(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    leaked = {f"IMG_{n}" for n in (2, 60, 97, 121, 139, 154)}
    left_out = config["training_record"]["exclude"]
    assert leaked <= {name.removeprefix("part_A-") for name in left_out}
    errors = config["metrics"]["validation"]
    assert errors["images"] >= 60
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{errors['mae']:.1f}" in card
    assert f"{errors['rmse']:.1f}" in card


def test_requirements_are_all_that_the_package_the_page_and_training_need() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    extras = PROJECT["optional-dependencies"]
    parts = ("app", "video", "heic", "train")
    needed = [*PROJECT["dependencies"], *(line for part in parts for line in extras[part])]
    assert sorted(map(str, listed)) == sorted(str(Requirement(line)) for line in needed)


def test_the_readme_has_the_two_commands_on_lines_of_their_own() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert "pip install -r requirements.txt && python app.py" in lines
    assert 'pip install -e ".[test]" && pytest' in lines


def test_the_readme_names_every_option_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio", minversion="6")
    import app

    with pytest.raises(SystemExit):
        app.main(["--help"])
    options = set(re.findall(r"--\w+", capsys.readouterr().out)) - {"--help"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"`python app.py --help` lists (.*?)\n\n", readme, re.DOTALL)
    assert options == set(re.findall(r"--\w+", listed))


def test_the_limits_of_the_page_are_those_that_are_promised() -> None:
    pytest.importorskip("gradio", minversion="6")
    from demo import batch, canvas, clips, shared, turns

    files = [ROOT / "README.md", ROOT / "docs" / "hosting.md"]
    text = " ".join(file.read_text(encoding="utf-8") for file in files if file.exists())
    promised = " ".join(text.split())
    for limit in (
        shared.MAX_FILE_SIZE.replace("mb", " MB"),
        f"{batch.MOST} photos",
        f"{clips.MOST} frames",
        f"{clips.LARGEST // 10**6} megapixels",
        f"{canvas.LARGEST // 2**20} MB",
        f"{canvas.MOST_POINTS:,} heads",
        f"{shared.MAX_WAITING} may wait",
        f"{turns.MOST_OF_ONE} calls",
    ):
        assert re.search(rf"(?<![\d.,]){limit}\b", promised), limit


def test_the_package_imports_nothing_of_what_is_built_on_it() -> None:
    for file in (ROOT / "csrnet_hub").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            above = {"gradio", "app", "demo", "train", "benchmarks"}
            assert not above & {name.partition(".")[0] for name in names}, file
