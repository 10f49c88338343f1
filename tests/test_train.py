"""What preparing, training and evaluating promise."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from csrnet_hub import CSRNet
from csrnet_hub.datasets import DatasetError, read_shanghaitech
from tests.test_datasets import write_part
from train import evaluate, fit, prepare
from train.data import Augmentation, Example, load_prepared, random_crop, split
from train.loss import pyramid_loss
from train.recipe import Recipe, RecipeError, read_recipe

RECIPES = Path(fit.__file__).parent / "recipes"


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten small pictures with 0 to 45 heads."""
    return write_part(tmp_path_factory.mktemp("data") / "part_A", [5 * i for i in range(10)])


@pytest.fixture(scope="module")
def prepared(part: Path) -> Path:
    path = part.parent / "part_A.h5"
    prepare.prepare(read_shanghaitech(part, "train"), path, progress=False)
    return path


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for VGG-16: random weights under its names."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    front = CSRNet().frontend.state_dict()
    state = {
        f"features.{key}": torch.nn.init.kaiming_normal_(value) if value.ndim > 1 else value
        for key, value in front.items()
    }
    save_file(state, path)
    return path


@pytest.fixture
def recipe() -> Recipe:
    small = {"steps": 4, "batch": 1, "crop": 64, "validation": 2, "validate_every": 4, "warmup": 1}
    whole = read_recipe(RECIPES / "partA_cpu.toml", **small)
    return replace(whole, exclude=[], train_only=[])


# prepare


def test_a_prepared_file_holds_pictures_heads_and_kernel_widths(prepared: Path) -> None:
    examples = load_prepared(prepared)
    assert [example.count for example in examples if example.name == "IMG_4"] == [15]
    for example in examples:
        assert example.pixels.shape == (72, 96, 3)
        assert example.heads.shape == (example.count, 2)
        assert example.sigma.shape == (example.count,)


def test_excluded_images_are_not_there_and_a_misspelt_one_is_an_error(prepared: Path) -> None:
    assert "IMG_2" not in {example.name for example in load_prepared(prepared, ["IMG_2"])}
    with pytest.raises(DatasetError, match="IMG_02"):
        load_prepared(prepared, ["IMG_02"])


def test_prepare_never_replaces_a_file_unasked(part: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.h5"
    out.write_text("mine")
    with pytest.raises(SystemExit):
        prepare.main([str(part), str(out)])
    assert out.read_text() == "mine"
    assert prepare.main([str(part), str(out), "--force", "--sigma", "15"]) == 0
    assert set(load_prepared(out)[9].sigma) == {15.0}


def test_an_unreadable_photograph_is_named_and_leaves_no_file(part: Path, tmp_path: Path) -> None:
    samples = read_shanghaitech(part, "train")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"broken\.jpg"):
        prepare.prepare([*samples, replace(samples[0], name="b", path=broken)], tmp_path / "o.h5")
    assert not list(tmp_path.glob("o.h5*"))


def test_prepare_names_what_is_wrong_with_the_folder(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert prepare.main([str(tmp_path), str(tmp_path / "o.h5")]) == 1
    assert "give the folder of a part" in capsys.readouterr().err


def test_a_file_that_is_not_prepared_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"nonsense")
    with pytest.raises(DatasetError, match="cannot be read"):
        load_prepared(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w"):
        pass
    with pytest.raises(DatasetError, match="prepare it anew"):
        load_prepared(tmp_path / "b.h5")
    with pytest.raises(DatasetError, match="no prepared file"):
        load_prepared(tmp_path / "c.h5")


# split and crops


def example(count: int, name: str = "x") -> Example:
    rng = np.random.default_rng(count)
    heads = rng.random((count, 2)) * (96, 72)
    pixels = rng.integers(0, 256, (72, 96, 3), dtype=np.uint8)
    return Example(name, pixels, heads, np.full(count, 2.0), count)


def test_the_split_is_stratified_seeded_and_disjoint() -> None:
    examples = [example(i, f"IMG_{i}") for i in range(100)]
    train, held_out = split(examples, 20, seed=1, train_only=["IMG_7"])
    again = split(examples, 20, seed=1, train_only=["IMG_7"])[1]
    assert [e.name for e in held_out] == [e.name for e in again]
    assert [e.name for e in held_out] != [e.name for e in split(examples, 20, seed=2)[1]]
    assert len(held_out) == 20
    assert len(train) == 80
    assert not {e.name for e in train} & {e.name for e in held_out}
    assert "IMG_7" in {e.name for e in train}
    counts = sorted(e.count for e in held_out)
    assert all(abs(count - 5 * i) <= 6 for i, count in enumerate(counts))


def test_too_few_images_for_the_split_is_a_sentence() -> None:
    with pytest.raises(DatasetError, match="cannot be drawn from 3"):
        split([example(i, str(i)) for i in range(3)], 3, seed=0)


def test_a_whole_crop_keeps_every_head() -> None:
    how = Augmentation(crop=72, scale=(1.0, 1.0), grey=0, light=0)
    square = example(30)
    square = replace(square, pixels=square.pixels[:, :72], heads=square.heads * (0.75, 1))
    pixels, target = random_crop(square, np.random.default_rng(0), how)
    assert pixels.shape == (3, 72, 72)
    assert target.shape == (1, 9, 9)
    assert target.sum().item() == pytest.approx(30, rel=1e-5)


def test_heads_move_with_the_pixels() -> None:
    pixels = np.zeros((160, 160, 3), dtype=np.uint8)
    pixels[40:48, 96:104] = 255  # one bright cell with one head in it
    spot = Example("x", pixels, np.array([[100.0, 44.0]]), np.array([2.0]), 1)
    how = Augmentation(crop=64, scale=(0.5, 1.5), grey=0, light=0)
    seen = 0
    for seed in range(40):
        crop, target = random_crop(spot, np.random.default_rng(seed), how)
        if target.sum() < 0.99:
            continue
        seen += 1
        cells = torch.arange(8) * 8 + 4.0
        y = (target[0].sum(1) * cells).sum() / target.sum()
        x = (target[0].sum(0) * cells).sum() / target.sum()
        light = crop[0] / crop[0].sum()
        line = torch.arange(64) + 0.5
        assert (light.sum(1) * line).sum().item() == pytest.approx(y.item(), abs=2)
        assert (light.sum(0) * line).sum().item() == pytest.approx(x.item(), abs=2)
    assert seen > 5


def test_a_photograph_smaller_than_the_crop_is_enlarged() -> None:
    pixels, target = random_crop(example(12), np.random.default_rng(0), Augmentation(crop=256))
    assert pixels.shape == (3, 256, 256)
    assert 0 < target.sum().item() <= 12.001
    assert 0 <= pixels.min() <= pixels.max() <= 255


# loss


def test_the_loss_is_zero_for_the_target_and_grows_with_the_error() -> None:
    target = torch.rand(2, 1, 9, 13)
    assert pyramid_loss(target, target).item() == 0
    assert pyramid_loss(target + 0.1, target) < pyramid_loss(target + 0.2, target)


def test_the_loss_is_that_of_its_definition() -> None:
    predicted, target = torch.rand(2, 1, 16, 8) * 3 - 0.2, torch.rand(2, 1, 16, 8)
    total = 0.0
    for side in (1, 2, 4, 8):
        for crop in range(2):
            for i in range(0, 16, side):
                for j in range(0, 8, side):
                    block = (crop, 0, slice(i, i + side), slice(j, j + side))
                    count = predicted[block].sum().item()
                    error = count - target[block].sum().item()
                    total += error**2 / (2 * (max(count, 0) + 1))
    assert pyramid_loss(predicted, target).item() == pytest.approx(total / 4 / 2, rel=1e-4)


def test_the_gradients_of_the_loss_vanish_at_the_mean_of_skewed_counts() -> None:
    target = torch.tensor([0.0] * 9 + [10.0]).view(10, 1, 1, 1).expand(10, 1, 8, 8)
    gradients = []
    for level in (0.9, 1.0, 1.1):
        predicted = torch.full((10, 1, 8, 8), level, requires_grad=True)
        pyramid_loss(predicted, target).backward()  # type: ignore[no-untyped-call]
        assert predicted.grad is not None
        gradients.append(predicted.grad.sum().item())
    assert gradients[0] < -1e-3
    assert gradients[1] == pytest.approx(0, abs=1e-5)
    assert gradients[2] > 1e-3


# recipes


def test_every_recipe_in_the_repository_reads() -> None:
    assert [read_recipe(path).name for path in RECIPES.glob("*.toml")]


@pytest.mark.parametrize(
    ("old", "new", "trouble"),
    [
        ("steps =", "stpes =", "lacks steps"),
        ("seed = 0", "seed = 0\ncolour = 1", "unknown entries: colour"),
        ("batch = 2", 'batch = "two"', "batch must be of type int"),
        ("batch = 2", "batch = 0", "from 1"),
        ("crop = 256", "crop = 250", "multiple of 8"),
        ("crop = 256", "crop = 32", "at least 64"),
        ("scale = [0.7, 1.4]", "scale = [1.0]", "scale must be two numbers"),
        ("scale = [0.7, 1.4]", "scale = [0.0, 1.0]", "scale must be two numbers"),
        ("seed = 0", "seed = ", "not valid TOML"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(tmp_path: Path, old: str, new: str, trouble: str) -> None:
    text = (RECIPES / "partA_cpu.toml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "r.toml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(RecipeError, match=trouble):
        read_recipe(tmp_path / "r.toml")


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml cannot be read"):
        read_recipe(tmp_path / "none.toml")


def test_the_shipped_recipe_leaves_out_the_images_of_the_test_split() -> None:
    recipe = read_recipe(RECIPES / "partA_cpu.toml")
    assert {f"IMG_{n}" for n in (2, 60, 97, 121, 139, 154)} == set(recipe.exclude)


# fit


def run(recipe: Recipe, prepared: Path, vgg: Path, out: Path, **options: object) -> float:
    return fit.fit(recipe, load_prepared(prepared), out, str(vgg), torch.device("cpu"), **options)


def test_a_stopped_run_resumed_ends_as_one_never_stopped(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run(recipe, prepared, vgg, tmp_path / "a")

    monkeypatch.setattr(fit, "SAVE_EVERY", 2)
    step = fit.train_step

    def killed(state, *rest):  # type: ignore[no-untyped-def]
        if state.step == 3:
            raise KeyboardInterrupt
        return step(state, *rest)

    monkeypatch.setattr(fit, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, prepared, vgg, tmp_path / "b")
    monkeypatch.setattr(fit, "train_step", step)
    resumed = run(recipe, prepared, vgg, tmp_path / "b", resume=tmp_path / "b" / "last.pt")

    assert resumed == pytest.approx(straight, rel=1e-5)
    one = CSRNet.from_pretrained(tmp_path / "a" / "best").state_dict()
    two = CSRNet.from_pretrained(tmp_path / "b" / "best").state_dict()
    assert all(torch.allclose(one[key], two[key], rtol=1e-3, atol=1e-6) for key in one)


def test_a_run_trains_and_its_model_says_how(
    recipe: Recipe, prepared: Path, vgg: Path, part: Path, tmp_path: Path
) -> None:
    best = run(recipe, prepared, vgg, tmp_path)
    model = CSRNet.from_pretrained(tmp_path / "best")
    assert model.training_record is not None
    assert model.training_record["step"] == 4
    assert model.metrics is not None
    assert model.metrics["validation"]["mae"] == best
    assert model.metrics["validation"]["images"] == 2
    start = CSRNet()
    fit.load_vgg16_frontend(start, vgg)
    start = start.half().float()
    assert torch.equal(model.frontend[7].weight, start.frontend[7].weight)  # frozen
    assert not torch.equal(model.frontend[10].weight, start.frontend[10].weight)
    card = (tmp_path / "best" / "README.md").read_text(encoding="utf-8")
    assert f"| validation | 2 | {best:.1f} |" in card
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["mae"] == best


def test_a_better_model_replaces_the_last_one_and_its_card(
    recipe: Recipe, vgg: Path, tmp_path: Path
) -> None:
    state = fit.new_state(recipe, str(vgg), torch.device("cpu"))
    for step, mae in ((1, 20.25), (2, 10.25)):
        state.step = step
        fit.save_model(state, recipe, {"images": 2, "mae": mae}, tmp_path / "best")
    card = (tmp_path / "best" / "README.md").read_text(encoding="utf-8")
    assert "10.2" in card
    assert "20.2" not in card
    assert "those of step 2" in card
    assert "vgg.safetensors" in card
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert CSRNet.from_pretrained(tmp_path / "best").metrics == {
        "validation": {"images": 2, "mae": 10.25}
    }


def test_training_lowers_the_loss(recipe: Recipe, prepared: Path, vgg: Path) -> None:
    crowded = [e for e in load_prepared(prepared) if e.count == 45]
    long = replace(recipe, steps=30, lr_backend=1e-3, scale=[1.0, 1.0], light=0.0, grey=0.0)
    state = fit.new_state(long, str(vgg), torch.device("cpu"))
    losses = [fit.train_step(state, long, crowded)[0].item() for _ in range(30)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_a_batch_depends_on_seed_and_step_alone(recipe: Recipe, prepared: Path) -> None:
    examples = load_prepared(prepared)
    model = CSRNet()
    one, target = fit.batch_at(7, recipe, examples, model)
    two, _ = fit.batch_at(7, recipe, examples, model)
    other, _ = fit.batch_at(8, recipe, examples, model)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert target.shape == (1, 1, 8, 8)


def test_one_pass_sees_every_photograph_once(prepared: Path, recipe: Recipe) -> None:
    examples = load_prepared(prepared)
    orders = [np.random.default_rng((recipe.seed, 0, turn)).permutation(10) for turn in (0, 1)]
    assert sorted(orders[0]) == list(range(10))
    assert list(orders[0]) != list(orders[1])
    assert len(examples) == 10


def test_the_rate_warms_up_stays_level_and_falls_to_zero(recipe: Recipe) -> None:
    long = replace(recipe, steps=100, warmup=10, cooldown=0.4)
    rates = [fit.rate(long, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:60] == [1.0] * 50
    assert rates[80] == pytest.approx(0.5)
    assert rates[100] == 0


def test_a_loss_that_is_not_finite_stops_the_run(recipe: Recipe, prepared: Path, vgg: Path) -> None:
    state = fit.new_state(recipe, str(vgg), torch.device("cpu"))
    torch.nn.init.constant_(state.model.output_layer.bias, float("inf"))
    with pytest.raises(fit.TrainingError, match="not finite at step 0"):
        fit.train_step(state, recipe, load_prepared(prepared))


def test_fit_never_writes_over_a_run_unasked(prepared: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "last.pt").write_bytes(b"mine")
    arguments = [str(RECIPES / "partA_cpu.toml"), "--data", str(prepared), "--out", str(tmp_path)]
    (tmp_path / "before_cooldown.pt").write_bytes(b"mine too")
    for more in ([], ["--resume", str(tmp_path / "before_cooldown.pt")]):
        with pytest.raises(SystemExit):
            fit.main([*arguments, *more])
        assert "give another --out" in capsys.readouterr().err
    assert (tmp_path / "last.pt").read_bytes() == b"mine"


def test_fit_says_what_is_wrong(prepared: Path, vgg: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    text = (RECIPES / "partA_cpu.toml").read_text(encoding="utf-8")
    text = re.sub(r"exclude = .*", "exclude = []", text).replace(
        "validation = 60", "validation = 2"
    )
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    start = [str(tmp_path / "r.toml"), "--data", str(prepared), "--out", str(tmp_path / "out")]
    assert fit.main([*start, "--vgg", str(vgg)]) == 1
    assert "train_only names images that are not there: IMG_167" in capsys.readouterr().err
    assert fit.main([*start[:2], str(tmp_path / "no.h5"), *start[3:]]) == 1
    assert "no prepared file" in capsys.readouterr().err
    text = re.sub(r"train_only = .*", "train_only = []", text)
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    assert fit.main([*start, "--vgg", str(tmp_path / "no.safetensors")]) == 1
    assert "no file" in capsys.readouterr().err
    assert fit.main([*start, "--resume"]) == 1
    assert "no checkpoint" in capsys.readouterr().err


def test_a_checkpoint_of_another_recipe_is_refused(
    recipe: Recipe, vgg: Path, tmp_path: Path
) -> None:
    cpu = torch.device("cpu")
    state = fit.new_state(recipe, str(vgg), cpu)
    fit.save_checkpoint(state, recipe, tmp_path / "last.pt")
    longer = replace(recipe, steps=9)
    assert fit.load_checkpoint(tmp_path / "last.pt", longer, cpu).step == 0
    with pytest.raises(fit.TrainingError, match="another crop"):
        fit.load_checkpoint(tmp_path / "last.pt", replace(recipe, crop=128), cpu)
    with pytest.raises(fit.TrainingError, match="no checkpoint"):
        fit.load_checkpoint(tmp_path / "none.pt", recipe, cpu)
    (tmp_path / "damaged.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:1000])
    torch.save({"state_dict": {}}, tmp_path / "foreign.pt")
    for name in ("damaged.pt", "foreign.pt"):
        with pytest.raises(fit.TrainingError, match=r"no checkpoint of train\.fit"):
            fit.load_checkpoint(tmp_path / name, recipe, cpu)


def test_a_run_that_changed_its_loss_on_the_way_says_so(
    recipe: Recipe, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    state = fit.new_state(recipe, str(vgg), cpu)
    state.step = 3
    fit.save_checkpoint(state, recipe, tmp_path / "last.pt")
    assert fit.load_checkpoint(tmp_path / "last.pt", recipe, cpu).loss == fit.LOSS
    monkeypatch.setattr(fit, "LOSS", "another loss")
    later = fit.load_checkpoint(tmp_path / "last.pt", recipe, cpu)
    assert later.loss == f"{state.loss} up to step 3; then another loss"


def test_a_finished_run_is_not_run_again(
    recipe: Recipe, prepared: Path, vgg: Path, tmp_path: Path
) -> None:
    state = fit.new_state(recipe, str(vgg), torch.device("cpu"))
    state.step = recipe.steps
    fit.save_checkpoint(state, recipe, tmp_path / "last.pt")
    with pytest.raises(fit.TrainingError, match=r"step 4 of 4 is done"):
        run(recipe, prepared, vgg, tmp_path, resume=tmp_path / "last.pt")


# evaluate


def test_evaluate_measures_against_points(part: Path, model_folder: Path, tmp_path: Path) -> None:
    arguments = [str(model_folder), str(part), "--split", "train", "--device", "cpu"]
    out = tmp_path / "new" / "folder"
    arguments += ["--json", str(out / "o.json"), "--csv", str(out / "o.csv")]
    assert evaluate.main([*arguments, "--only", "IMG_1", "IMG_3"]) == 0
    result = json.loads((out / "o.json").read_text())
    assert {"images", "mae", "rmse", "nae", "bias"} <= set(result)
    lines = (out / "o.csv").read_text().splitlines()
    assert lines[0] == "image,heads,count,error"
    rows = [line.split(",") for line in lines[1:]]
    assert [(row[0], row[1]) for row in rows] == [("IMG_1", "0"), ("IMG_3", "10")]
    errors = [float(row[2]) - float(row[1]) for row in rows]
    assert result["mae"] == pytest.approx(np.abs(errors).mean())
    assert result["images"] == 2


def test_evaluate_says_what_is_wrong(
    part: Path, model_folder: Path, tmp_path: Path, capsys
) -> None:  # type: ignore[no-untyped-def]
    assert evaluate.main([str(model_folder), str(part), "--split", "test"]) == 1
    assert "test_data" in capsys.readouterr().err
    assert evaluate.main([str(tmp_path), str(part), "--split", "train"]) == 1
    assert "config.json" in capsys.readouterr().err
    assert evaluate.main([str(model_folder), str(part), "--split", "train", "--only", "x"]) == 1
    assert "no image x" in capsys.readouterr().err
