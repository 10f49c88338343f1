"""What README.md and the pages in docs say, where a program can check it."""

from __future__ import annotations

import argparse
import json
import math
import re
import shlex
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csrnet_hub import CSRNet
from csrnet_hub.intervals import PredictionInterval
from train import prepare
from train.data import load_prepared

from .thin import narrow

ROOT = Path(__file__).parents[1]
PAGES = {
    path: path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
README = PAGES[ROOT / "README.md"]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def test_the_python_of_the_readme_runs(
    thin_model: CSRNet, scene: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch)
    monkeypatch.setattr(thin_model, "interval", PredictionInterval(0.9, 0.4, 60, 1.0))
    thin_model.save_pretrained(tmp_path)
    monkeypatch.setattr("csrnet_hub.counting.resource", lambda name: tmp_path)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(scene).save("crowd.jpg")
    (code,) = [text for language, text in BLOCK.findall(README) if language == "python"]
    (figure,) = re.findall(r"`(render\.density_figure\(.*?\))`,? returns", README, re.S)
    (imported,) = re.findall(r"With `(from csrnet_hub import .*?)`", README)
    names: dict = {}
    exec(f"{code}\n{imported}", names)
    result = names["result"]
    assert result.interval[0] < result.count < result.interval[1]
    assert result.density.shape == tuple(math.ceil(side / 8) for side in scene.shape[:2])
    assert result.density.sum() == pytest.approx(result.count)
    assert isinstance(eval(figure, names), Image.Image)


def test_every_command_in_the_pages_is_one_that_its_program_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class TakenError(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def only_parsed(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
        parse(parser, words)
        raise TakenError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parsed)
    blocks = "\n".join(text for page in PAGES.values() for _, text in BLOCK.findall(page))
    lines = blocks.replace("\\\n", " ").splitlines()
    found = [re.match(r"csrnet (.*)|python -m (train\.\w+|benchmarks) (.*)", one) for one in lines]
    commands = [match.groups() for match in found if match]
    assert len({module for _, module, _ in commands}) == 7
    for csrnet, module, rest in commands:
        name = {None: "csrnet_hub.cli", "benchmarks": "benchmarks.__main__"}.get(module, module)
        with pytest.raises(TakenError):
            import_module(name).main(shlex.split(csrnet or rest, comments=True))


def test_the_accuracy_in_the_readme_is_that_of_the_shipped_models() -> None:
    joint, dense = (
        json.loads((ROOT / "weights" / name / "config.json").read_text(encoding="utf-8"))
        for name in ("csrnet-joint", "csrnet-partA")
    )
    parts = joint["metrics"]["validation"]["parts"]
    shown = [*(parts[f"part_{part}"] for part in "AB"), dense["metrics"]["validation"]]
    form = r"^\| .*\| part .*\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$"
    assert re.findall(form, README, re.MULTILINE) == [
        (f"{one['mae']:.1f}", f"{one['rmse']:.1f}", f"{one['nae']:.3f}") for one in shown
    ]
    off = "off by {:.0%} on average for dense crowds and by {:.0%} for streets"
    share = "plus or minus {:.0%}".format(joint["interval"]["quantile"])
    for said in (off.format(shown[0]["nae"], shown[1]["nae"]), share):
        assert said.replace("%", " %") in README


def test_the_table_of_recipes_has_all_of_them() -> None:
    table = README.split("| Recipe |")[1].split("\n\n")[0]
    listed = re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines()))
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "train/recipes").iterdir())


def test_every_link_within_the_repository_leads_somewhere() -> None:
    for page, text in PAGES.items():
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), (page.name, link)
            if anchor:
                prose = BLOCK.sub("", target.read_text(encoding="utf-8"))
                headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
                slugs = [re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings]
                assert anchor in slugs, (page.name, link)


def test_prepare_shrinks_what_is_clearly_more_than_a_megapixel_to_about_that(
    tmp_path: Path,
) -> None:
    for side in (1040, 1500):
        Image.new("RGB", (side, side)).save(tmp_path / f"{side}.png")
    (tmp_path / "heads.csv").write_text("image,x,y\n1040.png,9,9\n1500.png,9,9\n")
    assert prepare.main([str(tmp_path), str(tmp_path / "own.h5")]) == 0
    pictures = load_prepared(tmp_path / "own.h5")
    assert [one.pixels.shape[:2] for one in pictures] == [(1040, 1040), (1024, 1024)]
