"""What evaluating promises: figures against points, a table, a page."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from matplotlib import rc_context
from PIL import Image

from csrnet_hub import CrowdCounter, CSRNet
from csrnet_hub.card import card_of
from csrnet_hub.counting import CountResult
from csrnet_hub.datasets import DatasetError, read_dataset
from csrnet_hub.density import density_map
from csrnet_hub.images import ImageError
from csrnet_hub.metrics import map_likeness
from tests.test_datasets import read_shanghaitech, write_part
from tests.test_datasets_formats import WRITERS
from train import evaluate, measure, prepare, report
from train.data import digest, load_prepared
from train.measure import mask_shares, summary
from train.seen import Seen, seen_by

pytestmark = pytest.mark.usefixtures("thin")


@pytest.fixture
def model_folder(thin_folder: Path) -> Path:
    return thin_folder


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small pictures with 0 to 45 heads."""
    return write_part(tmp_path_factory.mktemp("data") / "part_A", [0, 5, 10, 45])


class FixedCounter:
    """Stands for a counter: the same map for each picture, and an interval if there is one."""

    name = "fixed"

    def __init__(self, cell: float, interval: tuple[float, float] | None = None) -> None:
        self.cell, self.interval = cell, interval

    def count(self, path: Path) -> CountResult:
        with Image.open(path) as image:
            width, height = image.size
        shape = (-(-height // 8), -(-width // 8))
        density = np.full(shape, self.cell, np.float32)
        result = CountResult(
            float(density.sum(dtype=float)),
            density,
            width,
            height,
            0.1,
            "fixed",
            "cpu",
            "float32",
            1,
        )
        return replace(result, interval=self.interval)


def test_evaluate_measures_against_points(part: Path, model_folder: Path, tmp_path: Path) -> None:
    arguments = [str(model_folder), str(part), "--split", "train", "--device", "cpu"]
    out = tmp_path / "new" / "folder"
    arguments += ["--json", str(out / "o.json"), "--csv", str(out / "o.csv")]
    assert evaluate.main([*arguments, "--only", "IMG_1", "IMG_3"]) == 0
    result = json.loads((out / "o.json").read_text())
    assert {"images", "mae", "rmse", "nae", "bias", "ranges", "game"} <= set(result)
    with (out / "o.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["image", "heads", "count", "error"]
    assert [(row["image"], row["heads"]) for row in rows] == [("IMG_1", "0"), ("IMG_3", "10")]
    errors = [float(row["count"]) - float(row["heads"]) for row in rows]
    assert result["mae"] == pytest.approx(np.abs(errors).mean())
    assert result["game"]["0"] == result["mae"]
    assert result["game"]["3"] == pytest.approx(np.mean([float(row["game3"]) for row in rows]))
    assert result["images"] == 2
    assert {name: part["images"] for name, part in result["ranges"].items()} == {"0": 1, "10-30": 1}
    low, high = result["mae_interval"]
    assert low <= result["mae"] <= high


def test_evaluate_writes_over_nothing_but_its_own_files(
    part: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(model_folder), str(part), "--split", "train", "--only", "IMG_1"]
    own = ["--json", str(tmp_path / "o.json"), "--csv", str(tmp_path / "o.csv")]
    own += ["--report", str(tmp_path / "o.html")]
    marks = {
        "json": b'{\n  "made_by": "python -m train.evaluate",\n',
        "csv": b"image,heads,count,error,scale,",
        "html": b"<!doctype html>\n<!-- python -m train.evaluate -->\n",
    }
    for _ in range(2):
        assert evaluate.main([*arguments, *own]) == 0
    for ending, mark in marks.items():
        assert (tmp_path / f"o.{ending}").read_bytes().startswith(mark)
    for option, name, others in (
        ("--csv", "a.csv", "image,x,y\na.jpg,1,2\n"),
        ("--csv", "b.csv", "image,heads,count\na.jpg,1,2\n"),
        ("--json", "a.json", '{"notes": {"mae_interval": [1, 2]}}\n'),
        ("--report", "page.html", "<!doctype html>\n<title>Mine, split test</title>\n"),
    ):
        (tmp_path / name).write_text(others)
        assert evaluate.main([*arguments, option, str(tmp_path / name)]) == 1
        assert f"{name} would overwrite a file that" in capsys.readouterr().err
        assert (tmp_path / name).read_text() == others
    assert evaluate.main([*arguments, "--csv", str(tmp_path / "a.jpg")]) == 1
    assert "a.jpg has a picture's name" in capsys.readouterr().err
    assert evaluate.main([*arguments, "--csv", str(tmp_path)]) == 1
    assert "is a folder: give a file" in capsys.readouterr().err
    both = str(tmp_path / "both")
    assert evaluate.main([*arguments, "--csv", both, "--json", both]) == 1
    assert "--json and --csv are both" in capsys.readouterr().err


def test_evaluate_says_what_is_wrong(
    part: Path, model_folder: Path, tmp_path: Path, capsys
) -> None:  # type: ignore[no-untyped-def]
    assert evaluate.main([str(model_folder), str(part), "--split", "test"]) == 1
    assert "test_data" in capsys.readouterr().err
    assert evaluate.main([str(model_folder), str(part)]) == 1
    assert "no split test; choose train with --split" in capsys.readouterr().err
    assert evaluate.main([str(tmp_path), str(part), "--split", "train"]) == 1
    assert "config.json" in capsys.readouterr().err
    assert evaluate.main([str(model_folder), str(part), "--split", "train", "--only", "x"]) == 1
    assert "no image x" in capsys.readouterr().err
    for page in ("page.pdf", "page.md"):
        assert evaluate.main([str(model_folder), str(part), "--report", page]) == 1
        assert f"--report {page} must end in .html" in capsys.readouterr().err


def test_evaluate_that_is_stopped_says_so(
    part: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CrowdCounter, "count", stopped)
    assert evaluate.main([str(model_folder), str(part), "--split", "train"]) == 130
    assert "evaluate: stopped; nothing was written" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(evaluate, "write_report", stopped)
    page = ["--report", str(tmp_path / "page.html"), "--json", str(tmp_path / "errors.json")]
    assert evaluate.main([str(model_folder), str(part), "--split", "train", *page]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "evaluate: stopped"


def test_figures_do_not_depend_on_the_tile_size(part: Path, model_folder: Path) -> None:
    samples = read_shanghaitech(part, "train")[-1:]
    whole, tiled = (
        measure.evaluate(CrowdCounter.from_pretrained(model_folder, "cpu", tile=tile), samples)[0]
        for tile in (None, 48)
    )
    for key in ("count", "game1", "game3"):
        assert whole[key] == pytest.approx(tiled[key], rel=1e-4)


def test_game_and_likeness_compare_the_map_with_the_heads(part: Path) -> None:
    samples = read_shanghaitech(part, "train")
    rows = measure.evaluate(FixedCounter(0.1), samples, likeness=True, sigma=4.0)
    for row in rows:
        assert abs(row["error"]) <= row["game1"] + 1e-6
        assert row["game1"] <= row["game2"] + 1e-6 <= row["game3"] + 2e-6
    crowded = rows[-1]
    assert 0 < crowded["ssim"] < 1
    assert crowded["psnr"] > 0
    result = summary(rows)
    assert result["ssim"] == pytest.approx(np.mean([row["ssim"] for row in rows]))
    json.dumps(result, allow_nan=False)


def test_equal_maps_make_no_infinite_figure(part: Path) -> None:
    samples = read_shanghaitech(part, "train")[:1]  # nobody there
    rows = measure.evaluate(FixedCounter(0.0), samples, likeness=True)
    assert (rows[0]["psnr"], rows[0]["ssim"]) == (None, pytest.approx(1))
    json.dumps(summary(rows), allow_nan=False)


def test_intervals_are_reported_by_coverage_and_width(part: Path) -> None:
    samples = read_shanghaitech(part, "train")  # 0, 5, 10 and 45 heads; each is counted as 10.8
    rows = measure.evaluate(FixedCounter(0.1, (4.0, 12.0)), samples)
    assert [(row["low"], row["high"]) for row in rows] == [(4.0, 12.0)] * 4
    result = summary(rows)
    assert result["interval_coverage"] == 0.5
    assert result["interval_width"] == pytest.approx(8 / 10.8, rel=1e-5)
    plain = summary(measure.evaluate(FixedCounter(0.1), samples))
    assert "interval_coverage" not in plain
    ends = summary(measure.evaluate(FixedCounter(0.1, (5.0, 10.0)), samples))
    assert ends["interval_coverage"] == 0.5  # its ends are inside
    nobody = summary(measure.evaluate(FixedCounter(0.0, (0.0, 4.0)), samples))
    assert nobody["interval_width"] is None  # a width over nobody is none


def test_likeness_is_that_of_the_paper_for_the_part(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kernels of 15 pixels in part B, geometry-adaptive ones in part A."""
    for name, sigma in (("part_A", None), ("part_B", 15.0)):
        part = write_part(tmp_path / name, [9])
        arguments = [str(model_folder), str(part), "--split", "train", "--device", "cpu"]
        assert evaluate.main([*arguments, "--likeness"]) == 0
        counter = CrowdCounter.from_pretrained(model_folder, "cpu")
        (row,) = measure.evaluate(
            counter, read_dataset(part, None, "train"), likeness=True, sigma=sigma
        )
        assert json.loads(capsys.readouterr().out)["ssim"] == pytest.approx(row["ssim"])


def test_inside_a_region_of_interest_both_map_and_heads_count(tmp_path: Path) -> None:
    WRITERS["trancos"](tmp_path)
    (row, _) = measure.evaluate(
        FixedCounter(0.5, (0.0, 9.0)), read_dataset(tmp_path, None, "train")
    )
    assert row["heads"] == 1
    assert row["count"] == pytest.approx(0.5 * 8 * 38 / 8)  # 38 of 48 rows of pixels are inside
    assert "low" not in row  # an interval is that of a whole picture


def test_likeness_is_that_inside_a_region_of_interest(tmp_path: Path) -> None:
    """The kernel of a head there ends at its edge, as the map does."""
    WRITERS["trancos"](tmp_path, np.array([[30.0, 12.0]]))  # the first ten rows are outside
    samples = read_dataset(tmp_path, None, "train")
    assert samples[0].mask is not None
    mask = samples[0].mask(48, 64)
    kernel = density_map(np.array([[30.0, 12.0]]), 48, 64, 4.0)
    assert kernel[~mask].sum() > 0.1
    (row, _) = measure.evaluate(FixedCounter(0.01), samples, likeness=True, sigma=4.0)
    inside = np.full((6, 8), 0.01, np.float32) * mask_shares(mask)
    assert (row["psnr"], row["ssim"]) == pytest.approx(map_likeness(inside, kernel * mask))


def test_a_cell_counts_by_its_share_of_pixels_inside_the_mask() -> None:
    mask = np.zeros((20, 10), dtype=bool)
    mask[4:, :] = True
    assert mask_shares(mask).tolist() == [[0.5, 0.5], [1, 1], [1, 1]]
    assert mask_shares(np.ones((9, 17), dtype=bool)).tolist() == [[1, 1, 1]] * 2


def test_scenes_are_reported_apart(tmp_path: Path) -> None:
    WRITERS["worldexpo"](tmp_path)
    samples = read_dataset(tmp_path)
    rows = measure.evaluate(FixedCounter(0.0), samples)
    assert summary(rows, samples)["groups"]["104207"]["mae"] == 1


@pytest.mark.parametrize("name", ["csv", "coco", "nwpu"])
def test_any_format_is_evaluated(
    tmp_path: Path, name: str, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = WRITERS[name](tmp_path)
    arguments = [str(model_folder), str(tmp_path), "--device", "cpu"]
    arguments += [] if split == "all" else ["--split", split]
    assert evaluate.main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["images"], result["split"], result["scale"]) == (2, split, "auto")


def test_the_format_is_the_one_that_is_named(
    tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS["csv"](tmp_path)
    for main, given in (
        (evaluate.main, [str(model_folder), str(tmp_path)]),
        (prepare.main, [str(tmp_path), str(tmp_path / "o.h5")]),
    ):
        assert main([*given, "--format", "mall"]) == 1
        assert "mall" in capsys.readouterr().err
        assert main([*given, "--format", "csv"]) == 0
        capsys.readouterr()


def test_the_data_set_is_named_after_its_folder_however_that_is_given(
    part: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(part)
    for given in (".", "train_data/.."):
        arguments = [str(model_folder), given, "--split", "train", "--only", "IMG_1"]
        assert evaluate.main([*arguments, "--device", "cpu"]) == 0
        assert json.loads(capsys.readouterr().out)["data"] == "part_A"


def test_a_scale_is_evaluated_at(
    tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = write_part(tmp_path / "part_A", [1, 2])
    found = []
    for scale in ("1", "0.5"):
        options = ["--split", "train", "--device", "cpu", "--scale", scale]
        assert evaluate.main([str(model_folder), str(part), *options]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert [one["scale"] for one in found] == [1, 0.5]
    assert found[0]["mae"] != found[1]["mae"]


@pytest.mark.filterwarnings("ignore:this CPU is slower in")  # bfloat16 than in float32
def test_likeness_and_precision_may_be_chosen(
    part: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(model_folder), str(part), "--split", "train", "--device", "cpu"]
    found = []
    for dtype in ("float32", "bfloat16"):
        assert evaluate.main([*arguments, "--only", "IMG_4", "--likeness", "--dtype", dtype]) == 0
        found.append(json.loads(capsys.readouterr().out))
    exact, coarse = found
    assert -1 < exact["ssim"] < 1
    assert exact["psnr"] > 0
    assert 0 < abs(exact["mae"] - coarse["mae"]) < 0.1 * exact["mae"]
    assert evaluate.main([*arguments, "--dtype", "int3"]) == 1
    assert "int3" in capsys.readouterr().err


def test_bad_files_are_left_out_when_asked_and_listed(
    tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = write_part(tmp_path / "part_A", [1, 2, 3])
    (part / "train_data/ground-truth/GT_IMG_1.mat").write_bytes(b"")
    (part / "train_data/images/IMG_2.jpg").write_bytes(b"")
    arguments = [str(model_folder), str(part), "--split", "train", "--device", "cpu"]
    assert evaluate.main(arguments) == 1
    capsys.readouterr()
    assert evaluate.main([*arguments, "--skip-bad"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["images"] == 1
    assert ["GT_IMG_1" in result["skipped"][0], "IMG_2.jpg" in result["skipped"][1]] == [True] * 2
    assert "left out" in err


def test_a_photograph_that_memory_is_too_small_for_is_left_out_when_asked(
    tmp_path: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    part = write_part(tmp_path / "part_A", [1, 2])
    count = CrowdCounter.count

    def fails(self, image, progress=None):  # type: ignore[no-untyped-def]
        if image.name == "IMG_2.jpg":
            raise RuntimeError("not enough memory")
        return count(self, image, progress)

    monkeypatch.setattr(CrowdCounter, "count", fails)
    arguments = [str(model_folder), str(part), "--split", "train", "--device", "cpu"]
    assert evaluate.main(arguments) == 1
    capsys.readouterr()
    assert evaluate.main([*arguments, "--skip-bad"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["images"] == 1
    assert "IMG_2.jpg: There is not enough memory" in err


def test_likeness_that_memory_is_too_small_for_is_a_sentence(
    part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(measure, "map_likeness", full)
    with pytest.raises(DatasetError, match=r"IMG_1\.jpg: There is not enough memory"):
        measure.evaluate(FixedCounter(0.1), read_shanghaitech(part, "train"), likeness=True)
    monkeypatch.setattr(measure, "map_likeness", lambda *_: [][0])
    with pytest.raises(IndexError):
        measure.evaluate(FixedCounter(0.1), read_shanghaitech(part, "train"), likeness=True)


@pytest.mark.parametrize("pixels", [2**20, 72 * 96 // 4])
def test_photographs_that_the_model_was_trained_on_are_told(
    tmp_path: Path, thin_model: CSRNet, capsys: pytest.CaptureFixture[str], pixels: int
) -> None:
    part = write_part(tmp_path / "part_A", [4, 5, 6])
    samples = read_shanghaitech(part, "train")
    prepare.prepare(samples, tmp_path / "p.h5", max_pixels=pixels)
    known = [digest(one) for one in load_prepared(tmp_path / "p.h5") if one.name != "IMG_2"]
    assert not seen_by(thin_model)
    seen = Seen({*known, "00000000"}, pixels)
    rows = measure.evaluate(FixedCounter(0.1), samples, seen=seen)
    assert [row["seen"] for row in rows] == [True, False, True]
    assert summary(rows)["seen"] == 2
    assert "seen" not in summary(measure.evaluate(FixedCounter(0.1), samples))


def test_a_photograph_of_nobody_is_known_from_a_file_of_several_folders(tmp_path: Path) -> None:
    for name, counts in (("part_A", [4]), ("nobody", [0])):
        write_part(tmp_path / name, counts)
    folders = [str(tmp_path / name) for name in ("part_A", "nobody")]
    assert prepare.main([*folders, str(tmp_path / "both.h5")]) == 0
    seen = Seen(map(digest, load_prepared(tmp_path / "both.h5")), 0)
    samples = read_shanghaitech(tmp_path / "nobody", "train")
    (row,) = measure.evaluate(FixedCounter(0.1), samples, seen=seen)
    assert (row["heads"], row["seen"]) == (0, True)


def test_errors_on_photographs_of_the_training_are_called_so(
    tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = write_part(tmp_path / "part_A", [4, 5])
    prepare.prepare(read_shanghaitech(part, "train"), tmp_path / "p.h5")
    photographs = " ".join(map(digest, load_prepared(tmp_path / "p.h5")))
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for record, told in (({"photographs": photographs}, 2), ({}, 0)):
        (folder / "config.json").write_text(json.dumps({**config, "training_record": record}))
        page = tmp_path / f"{told}.html"
        arguments = [str(folder), str(part), "--split", "train", "--device", "cpu"]
        assert evaluate.main([*arguments, "--report", str(page)]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out).get("seen", 0) == told
        assert ("the model was trained on 2 of these 2 photographs" in err) == bool(told)
        row = "<td>images seen in training</td><td>2</td>"
        assert (row in page.read_text()) == bool(told)


def test_errors_are_recorded_in_config_and_card_for_publishing(
    part: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    CSRNet.from_pretrained(model_folder).half().save_pretrained(folder)
    weights = (folder / "model.safetensors").read_bytes()
    street = write_part(tmp_path / "street", [3, 7])
    for data in (part, street, street):
        assert evaluate.main([str(folder), str(data), "--split", "train", "--record"]) == 0
    said = capsys.readouterr()
    assert "these errors replace those on street, train" in said.err
    result = json.loads(said.out.splitlines()[-1])
    model = CSRNet.from_pretrained(folder)
    assert model.metrics is not None
    assert list(model.metrics) == ["part_A, train", "street, train"]
    assert model.metrics["street, train"]["mae"] == result["mae"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == card_of(model.config())
    assert f"| street, train | 2 | {result['mae']:.1f} (" in card
    figures = ModelCard(card).data.eval_results
    assert figures is not None
    assert {(one.dataset_name, one.dataset_split) for one in figures} == {
        ("part_A", "train"),
        ("street", "train"),
    }
    assert (folder / "model.safetensors").read_bytes() == weights
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_a_folder_called_validation_leaves_the_errors_that_fit_measured(
    part: Path, model_folder: Path, tmp_path: Path
) -> None:
    folder, data = tmp_path / "model", tmp_path / "validation"
    model = CSRNet.from_pretrained(model_folder)
    model.metrics = {"validation": {"mae": 1.0}}
    model.save_pretrained(folder)
    data.mkdir()
    shutil.copy(part / "train_data" / "images" / "IMG_1.jpg", data)
    (data / "heads.csv").write_text("image,x,y\nIMG_1.jpg,5,5\n")
    assert evaluate.main([str(folder), str(data), "--record"]) == 0
    metrics = CSRNet.from_pretrained(folder).metrics
    assert metrics is not None
    assert list(metrics) == ["validation", "validation, all"]


def test_errors_that_do_not_belong_in_a_card_are_not_recorded(
    part: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    arguments = [str(folder), str(part), "--split", "train", "--record"]
    before = (folder / "config.json").read_bytes()
    for more in (["--only", "IMG_1"], ["--scale", "1"]):
        assert evaluate.main([*arguments, *more]) == 1
        assert "drop --only and --scale" in capsys.readouterr().err
    assert evaluate.main(["org/name", *arguments[1:]]) == 1
    assert "--record writes into a model folder, and org/name is none" in capsys.readouterr().err
    monkeypatch.setattr(evaluate, "summary", lambda *_: {"images": 2, "seen": 1})
    assert evaluate.main(arguments) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["seen"] == 1
    assert "evaluate: not recorded: a card must not show errors on photographs of the" in err
    assert (folder / "config.json").read_bytes() == before

    def trained_on(*_: object) -> dict[str, int]:
        (folder / "config.json").write_bytes(before + b" ")
        return {"images": 2}

    monkeypatch.setattr(evaluate, "summary", trained_on)
    assert evaluate.main(arguments) == 1
    assert "config.json changed while its model was measured" in capsys.readouterr().err
    assert (folder / "config.json").read_bytes() == before + b" "


def test_an_edited_card_is_kept_when_errors_are_recorded(
    part: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    (folder / "README.md").write_text("Mine.")
    assert evaluate.main([str(folder), str(part), "--split", "train", "--record"]) == 0
    assert "README.md was edited and is kept: add the errors to it" in capsys.readouterr().err
    assert (folder / "README.md").read_text() == "Mine."
    assert "part_A, train" in json.loads((folder / "config.json").read_text())["metrics"]


def test_paths_of_bad_files_are_not_recorded(
    part: Path, model_folder: Path, tmp_path: Path
) -> None:
    folder, data = tmp_path / "model", tmp_path / "secret"
    shutil.copytree(model_folder, folder)
    shutil.copytree(part, data)
    (data / "train_data" / "images" / "IMG_2.jpg").write_bytes(b"no picture")
    arguments = [str(folder), str(data), "--split", "train", "--skip-bad", "--record"]
    assert evaluate.main(arguments) == 0
    config = (folder / "config.json").read_text()
    assert json.loads(config)["metrics"]["secret, train"]["images"] == 3
    assert str(tmp_path) not in config
    assert "IMG_2" not in config


# the page


def evaluated(part: Path, model_folder: Path, page: Path) -> str:
    arguments = [str(model_folder), str(part), "--split", "train", "--device", "cpu"]
    assert evaluate.main([*arguments, "--report", str(page)]) == 0
    return page.read_text(encoding="utf-8")


def test_the_page_stands_alone_with_plots_and_the_worst_pictures(
    part: Path, model_folder: Path, tmp_path: Path
) -> None:
    html = evaluated(part, model_folder, tmp_path / "page.html")
    pictures = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', html)
    assert [kind for kind, _ in pictures] == ["png"] * 2 + ["jpeg"] * 8  # 4 photos and maps
    for _, content in pictures:
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert max(picture.size) >= 90
    assert "http" not in html
    assert "IMG_4" in html
    assert "101-500" not in html
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_worst_come_first_and_are_ten_at_most(tmp_path: Path) -> None:
    part = write_part(tmp_path / "part_A", list(range(12)))
    worst: list = []
    rows = measure.evaluate(FixedCounter(0.0), read_shanghaitech(part, "train"), worst=worst)
    assert len(rows) == 12
    assert [one.row["heads"] for one in worst] == list(range(11, 1, -1))


def test_a_photograph_that_is_gone_when_the_page_shows_it_is_a_sentence(
    part: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def gone(path: Path) -> None:
        raise ImageError("The picture is not there.")

    monkeypatch.setattr(report, "load_image", gone)
    arguments = [str(model_folder), str(part), "--split", "train", "--only", "IMG_1"]
    arguments += ["--device", "cpu", "--report", str(tmp_path / "page.html")]
    assert evaluate.main(arguments) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["images"] == 1  # the figures are not lost
    assert re.search(r"^evaluate: .*IMG_1\.jpg: The picture is not there\.$", err, re.MULTILINE)


def test_names_are_text_on_the_page_whatever_they_hold(tmp_path: Path, model_folder: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a&b.png")
    (tmp_path / "heads.csv").write_text("image,x,y\na&b.png,1,1\n")
    arguments = [str(model_folder), str(tmp_path), "--device", "cpu"]
    assert evaluate.main([*arguments, "--report", str(tmp_path / "out" / "p.html")]) == 0
    html = (tmp_path / "out" / "p.html").read_text()
    assert "a&amp;b" in html
    assert "a&b" not in html


def test_the_plots_of_a_report_want_no_latex() -> None:
    rows = [{"heads": 3, "count": 4.0, "error": 1.0}]
    with rc_context({"text.usetex": True}):  # in a user's matplotlibrc
        plots = [report._scatter(rows), report._histogram(rows)]
    assert all(plot.startswith(b"\x89PNG") for plot in plots)


def test_the_map_in_a_report_has_the_colours_of_its_scale(tmp_path: Path) -> None:
    Image.new("RGB", (480, 480)).save(tmp_path / "a.png")
    density = np.full((60, 60), 0.004, np.float32)
    for scale, red in ((1.0, False), (0.2, True)):
        found = report._pictures(report.Worst({"scale": scale}, tmp_path / "a.png", density))
        picture = base64.b64decode(found["map"].split(",")[1])
        pixels = np.asarray(Image.open(io.BytesIO(picture))).astype(int)
        assert (pixels[..., 0].mean() > pixels[..., 2].mean()) == red


def test_a_photo_whose_name_is_no_unicode_is_in_the_table_and_the_report(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = write_part(tmp_path / "part_A", [3, 5]) / "train_data"
    odd = "caf\udce9"  # in Latin-1, as Linux hands it out
    for name in ("images/{}.jpg", "ground-truth/GT_{}.mat"):
        assert (home / name.format("IMG_2")).is_file()
    try:
        for name in ("images/{}.jpg", "ground-truth/GT_{}.mat"):
            (home / name.format("IMG_2")).rename(home / name.format(odd))
    except (OSError, UnicodeEncodeError):
        pytest.skip("no such names here")
    table, page = tmp_path / "rows.csv", tmp_path / "page.html"
    given = [str(model_folder), str(home.parent), "--split", "train"]
    assert evaluate.main([*given, "--csv", str(table), "--report", str(page)]) == 0
    assert "MAE" in page.read_text(encoding="utf-8")
    assert "Traceback" not in capsys.readouterr().err
    with table.open(newline="", encoding="utf-8") as file:
        assert sorted(row["image"] for row in csv.DictReader(file)) == ["IMG_1", r"caf\udce9"]
