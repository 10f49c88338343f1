"""What comparing variants of a recipe promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csrnet_hub import CSRNet, ModelError
from csrnet_hub.datasets import DatasetError
from tests.test_datasets import read_shanghaitech, write_part
from tests.test_fit import write_recipe
from tests.thin import narrow
from train import ablate, fit, prepare
from train.ablate import plan
from train.compare import Run, table
from train.data import Example
from train.recipe import Recipe, RecipeError, parse_values, read_recipe

RECIPE = Path(__file__).with_name("recipe.toml")


@pytest.fixture(autouse=True)
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch)
    monkeypatch.setattr("train.log.draw_curves", lambda *files: None)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    small = {"steps": 2, "batch": 1, "crop": 64, "validation": 2, "validate_every": 1, "warmup": 1}
    path = tmp_path / "r.toml"
    whole = read_recipe(RECIPE, **small, exclude=[], train_only=[])
    write_recipe(whole, path)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss=pyramid,dmcount", ("loss", ["pyramid", "dmcount"])),
        ("crop = 256, 384", ("crop", [256, 384])),
        ("scale=[0.7,1.4],[1.0,1.0]", ("scale", [[0.7, 1.4], [1.0, 1.0]])),
        ('loss="pyramid"', ("loss", ["pyramid"])),
    ],
)
def test_values_are_written_as_in_a_recipe_or_as_words(text: str, expected: object) -> None:
    assert parse_values(text) == expected


def test_a_folder_is_named_after_tables_as_every_file_system_takes_them(recipe: Path) -> None:
    key, values = parse_values("repeat={},{'part_A'=2}")
    runs = plan(recipe, {key: values}, [0], recipe.parent)
    names = [run.out.name for run in runs]
    assert names == ["repeat={},seed=0", "repeat={part_A=2},seed=0"]


@pytest.mark.parametrize(
    ("vary", "trouble"),
    [
        ({"loss": ["hinge"]}, "loss must be one of"),
        ({"colour": [1]}, "unknown entries: colour"),
        ({"path": [1]}, "unknown entries: path"),
        ({"crop": ["wide"]}, "crop must be of type int"),
        ({"seed": [1]}, "seed cannot be varied"),
    ],
)
def test_what_no_recipe_can_have_is_refused_before_anything_runs(
    recipe: Path, tmp_path: Path, vary: dict[str, list[Any]], trouble: str
) -> None:
    with pytest.raises(RecipeError, match=trouble):
        plan(recipe, vary, [0], tmp_path)
    with pytest.raises(RecipeError, match="entry=value"):
        parse_values("loss")
    for text in ("light=.1,.2", "scale=[.5,2],[.7,1.4]", "repeat={part_A=two}"):
        with pytest.raises(RecipeError, match=r"as in TOML, such as 0\.5"):
            parse_values(text)


def test_every_combination_is_a_run_of_its_own_folder(recipe: Path, tmp_path: Path) -> None:
    vary = {"loss": ["pyramid", "dmcount"], "scale": [[0.7, 1.4], [1.0, 1.0]]}
    runs = plan(recipe, vary, [0, 1], tmp_path, steps=7)
    assert len({run.out for run in runs}) == len(runs) == 8
    assert [run.recipe.seed for run in runs] == [0] * 4 + [1] * 4
    assert {run.recipe.steps for run in runs} == {7}
    assert runs[3].variant == "loss=dmcount, scale=[1.0,1.0]"
    assert runs[3].recipe.scale == [1.0, 1.0]


def finished(run: Run, *maes: float) -> Run:
    run.out.mkdir(parents=True)
    lines = [
        {
            "step": run.recipe.steps * (i + 1) // len(maes),
            "mae": mae,
            "rmse": 2 * mae,
            "nae": mae / 100,
            "counts": {"a": [50, 50 + mae], "b": [200, 200 - mae], "nobody": [0, mae]},
        }
        for i, mae in enumerate(maes)
    ]
    (run.out / "log.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return run.read()


def test_the_table_has_means_spreads_and_differences_on_the_same_seeds(
    recipe: Path, tmp_path: Path
) -> None:
    runs = plan(recipe, {"loss": ["pyramid", "dmcount"]}, [0, 1, 2], tmp_path)
    for run, maes in zip(runs, [(9, 10), (12, 11), (30, 20), (19, 24), (7, 7)]):  # the last not yet
        finished(run, *maes)
    pyramid, dmcount = (line for line in table(runs).splitlines() if line.startswith("| loss="))
    assert pyramid == (
        "| loss=pyramid | 0, 1, 2 | 12.0 ± 7.0 | 24.0 ± 14.0 | 0.120 ± 0.070 | 12.3 ± 6.8 |  |  |"
    )
    assert dmcount.startswith("| loss=dmcount | 0, 1 | 15.0 ± 5.7 | 30.0 ± 11.3 | 0.150 ± 0.057 |")
    # by -1 and 2 heads of 50 and of 200
    differences = [-1 / 50, -1 / 200, 2 / 50, 2 / 200]
    error = np.std(differences, ddof=1) / 2
    assert f"| +0.5 ± 2.1 | +0.006 (standard error {error:.3f}) |" in dmcount


def test_the_table_has_the_parts_of_a_set_of_several(recipe: Path, tmp_path: Path) -> None:
    runs = plan(recipe, {"grey": [0.1, 0.2]}, [0], tmp_path)
    for run, off in zip(runs, (10, 20)):
        run.out.mkdir()
        errors = {"mae": off, "rmse": off, "nae": 0.1}
        parts = {"photos": {**errors, "nae": None}, "photos-B": {**errors, "mae": off / 2}}
        counts = {"photos-1": [0, off], "photos-B-1": [100, 100 + off / 2]}
        entry = {"step": run.recipe.steps, **errors, "parts": parts, "counts": counts}
        (run.out / "log.jsonl").write_text(json.dumps(entry), encoding="utf-8")
        run.read()
    lines = table(runs).splitlines()
    assert "| grey=0.1, photos alone |  | 10.0 | 10.0 |  | 10.0 |  |  |" in lines
    assert "| grey=0.2, photos alone |  | 20.0 | 20.0 |  | 20.0 | +10.0 |  |" in lines
    assert "| grey=0.2, photos-B alone |  | 10.0 | 20.0 | 0.100 | 10.0 | +5.0 | +0.050 |" in lines


def test_the_table_names_all_lengths_that_are_compared(recipe: Path, tmp_path: Path) -> None:
    runs = plan(recipe, {"steps": [700, 1400]}, [0, 1], tmp_path)
    assert "700 or 1400 steps; validation errors" in table(runs)


def test_a_run_that_keeps_its_last_weights_is_judged_by_them(recipe: Path, tmp_path: Path) -> None:
    runs = [
        finished(run, 9, 10) for run in plan(recipe, {"choose_by": ["mae", "last"]}, [0], tmp_path)
    ]
    assert [run.best["mae"] for run in runs] == [9, 10]


class Train:
    """Stands for `fit`: notes what it was asked for, and leaves a finished log."""

    def __init__(self, fails: str = "", error: Exception | None = None) -> None:
        self.calls: list[tuple[str, bool]] = []
        self.fails, self.error = fails, error

    def __call__(
        self, recipe: Recipe, examples: object, out: Path, resume: Path | None, **options: object
    ) -> float:
        self.calls.append((out.name, resume is not None))
        if self.error and self.fails in out.name:
            raise self.error
        out.mkdir(exist_ok=True)
        line = {"step": recipe.steps, "mae": 5.0, "rmse": 6.0, "nae": None, "counts": {}}
        (out / "log.jsonl").write_text(json.dumps(line), encoding="utf-8")
        return 5.0


def test_what_is_done_is_not_done_again_and_what_was_begun_goes_on(
    recipe: Path, tmp_path: Path
) -> None:
    runs = plan(recipe, {"loss": ["pyramid", "bayesian", "dmcount"]}, [0], tmp_path / "out")
    finished(runs[0], 4.0)
    runs[1].out.mkdir()
    (runs[1].out / "last.pt").write_bytes(b"")
    train = Train()
    ablate.ablate(runs, [], tmp_path / "out", torch.device("cpu"), train, init=None)
    assert train.calls == [("loss=bayesian,seed=0", True), ("loss=dmcount,seed=0", False)]
    assert "loss=dmcount | 0 | 5.0 | 6.0 |" in (tmp_path / "out" / "ablation.md").read_text()


@pytest.mark.parametrize(
    "error",
    [
        fit.TrainingError("the loss became NaN"),
        DatasetError("50 images cannot be drawn."),
        ModelError("there is no model"),
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_whatever_is_wrong_with_one_run_the_others_go_on(
    recipe: Path, tmp_path: Path, error: Exception
) -> None:
    runs = plan(recipe, {"loss": ["bayesian", "dmcount"]}, [0], tmp_path / "out")
    told = ablate.ablate(runs, [], tmp_path / "out", torch.device("cpu"), Train("bayesian", error))
    reason = str(error).splitlines()[0].rstrip(".")
    assert f"loss=bayesian,seed=0 failed: {reason}\n" in told
    assert "| loss=bayesian | none yet |" in told
    assert "| loss=dmcount | 0 | 5.0 |" in told


def test_a_mistake_in_the_code_is_no_failed_run(recipe: Path, tmp_path: Path) -> None:
    runs = plan(recipe, {}, [0], tmp_path / "out")
    train = Train("seed", RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes"):
        ablate.ablate(runs, [], tmp_path / "out", torch.device("cpu"), train)


def test_the_figures_of_another_recipe_or_other_photographs_are_not_told_as_this_ones(
    recipe: Path, tmp_path: Path
) -> None:
    def again(path: Path, count: int = 3) -> str:
        runs = plan(path, {"loss": ["bayesian"]}, [0], tmp_path / "out")
        one = Example("a", np.zeros((8, 8, 3), np.uint8), np.zeros((0, 2)), np.zeros(0), count)
        return ablate.ablate(runs, [one], tmp_path / "out", torch.device("cpu"), train)

    changed = tmp_path / "changed.toml"
    write_recipe(read_recipe(recipe, lr_backend=0.5, name="another"), changed)
    train = Train("bayesian", fit.TrainingError("before it began"))
    again(changed)
    train = Train()
    again(recipe)
    with pytest.raises(fit.TrainingError, match="seed=0 holds a run that differs in lr_backend"):
        again(changed)
    with pytest.raises(fit.TrainingError, match="differs in data"):
        again(recipe, count=4)
    write_recipe(read_recipe(recipe, name="another"), changed)
    assert "another: 2 steps" in again(changed)
    assert len(train.calls) == 1


def test_the_command_trains_each_variant_and_prints_the_table(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compiled: list[CSRNet] = []
    monkeypatch.setattr(torch, "compile", lambda net: compiled.append(net) or net)
    part = write_part(tmp_path / "part_A", [5 * i for i in range(6)])
    prepared, out = tmp_path / "a.h5", tmp_path / "out"
    prepare.prepare(read_shanghaitech(part, "train"), prepared)
    CSRNet(density_scale=10.0).save_pretrained(tmp_path / "first")
    arguments = [str(recipe), "--data", str(prepared), "--out", str(out), "--device", "cpu"]
    arguments += ["--init", str(tmp_path / "first"), "--vary", "loss=euclidean,bayesian"]
    assert ablate.main([*arguments, "--seeds", "0,1", "--compile"]) == 0
    assert len(compiled) == 4
    told, said = capsys.readouterr()
    assert "| loss=bayesian | 0, 1 |" in told
    assert "run 4 of 4: loss=bayesian,seed=1" in said
    assert "validation MAE" in said
    assert (out / "loss=bayesian,seed=1" / "best" / "config.json").is_file()
    assert (out / "ablation.md").read_text(encoding="utf-8") == told  # > table.md is the table
    assert ablate.main([*arguments, "--seeds", "0,1"]) == 0
    assert "run 1" not in capsys.readouterr().err  # all done
    assert ablate.main([*arguments, "--seeds", "0,1", "--steps", "9"]) == 1
    assert "differs in steps: give another --out" in capsys.readouterr().err
    assert ablate.main([*arguments, "--vary", "optimiser=hinge"]) == 1
    assert "optimiser must be one of" in capsys.readouterr().err


def test_runs_with_another_start_are_not_told_as_this_ones(recipe: Path, tmp_path: Path) -> None:
    def again(**start: str | None) -> str:
        runs = plan(recipe, {}, [0], tmp_path / "out")
        return ablate.ablate(runs, [], tmp_path / "out", torch.device("cpu"), Train(), **start)

    (kept,) = (run.out / ablate.KEPT for run in plan(recipe, {}, [0], tmp_path / "out"))
    again(init="first", vgg="vgg")
    again(init="first", vgg="vgg")
    for start, other in (({"init": "second", "vgg": "vgg"}, "init"), ({"init": "first"}, "vgg")):
        with pytest.raises(fit.TrainingError, match=f"differs in {other}: give"):
            again(**start)
    kept.write_text("")
    with pytest.raises(fit.TrainingError, match=r"recipe\.json is damaged: remove"):
        again(init="first", vgg="vgg")


@pytest.mark.parametrize(
    ("twice", "said"),
    [
        (["--seeds", "a,1"], "--seeds a,1: give whole numbers separated by commas"),
        (["--seeds", "0,1,0"], "--seeds 0,1,0 has a seed twice"),
        (["--vary", "ema=0.5", "--vary", "ema=0.6"], "--vary ema is given twice"),
        (["--vary", "ema=0.5,0.50"], "--vary ema has a value twice"),
    ],
)
def test_what_is_named_twice_is_not_run_as_if_it_were_two(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], twice: list[str], said: str
) -> None:
    files = ["--data", str(tmp_path / "a.h5"), "--out", str(tmp_path / "out")]
    assert ablate.main([str(recipe), *files, *twice]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trouble", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "ablate: stopped; the same command continues\n"),
        (MemoryError("Unable to allocate 54 GiB"), 1, "ablate: Unable to allocate 54 GiB\n"),
    ],
)
def test_what_ends_all_runs_is_a_sentence_apart_from_the_table(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trouble: BaseException,
    code: int,
    said: str,
) -> None:
    def ends(*_: object) -> None:
        raise trouble

    monkeypatch.setattr(ablate, "load_prepared", ends)
    files = ["--data", str(tmp_path / "a.h5"), "--out", str(tmp_path / "out")]
    assert ablate.main([str(recipe), *files]) == code
    out, err = capsys.readouterr()
    assert (out, err[: len(said)]) == ("", said)


def test_a_run_that_was_stopped_after_a_validation_is_not_done(
    recipe: Path, tmp_path: Path
) -> None:
    (run,) = plan(recipe, {}, [0], tmp_path / "out")
    finished(run, 9, 10)
    log = run.out / "log.jsonl"
    log.write_text(log.read_text(encoding="utf-8").splitlines()[0], encoding="utf-8")  # half-way
    (run.out / "last.pt").write_bytes(b"")
    train = Train()
    ablate.ablate([run], [], tmp_path / "out", torch.device("cpu"), train, init=None)
    assert train.calls == [(run.out.name, True)]
