"""What the command line promises."""

from __future__ import annotations

import copy
import csv
import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from csrnet_hub import CrowdCounter, CSRNet, __version__, count_command, torch_engine
from csrnet_hub.cli import exit_code, main
from csrnet_hub.count_table import COLUMNS
from csrnet_hub.counting import CountResult
from csrnet_hub.named import find_images
from train import evaluate

pytestmark = pytest.mark.usefixtures("thin")


@pytest.fixture(scope="module")
def model_folder(thin_model: CSRNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that counts some fifty in the scene."""
    folder = tmp_path_factory.mktemp("models") / "small-model"
    model = copy.deepcopy(thin_model)
    model.density_scale = 0.1
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(scene: np.ndarray, tmp_path: Path) -> Path:
    """A folder with two pictures, one broken one and a text file."""
    path = tmp_path / "photos"
    path.mkdir()
    Image.fromarray(scene).save(path / "b.png")
    Image.fromarray(scene[:40]).save(path / "a.JPG", format="JPEG")
    (path / "c.jpg").write_bytes(b"no picture")
    (path / "notes.txt").write_text("hello")
    return path


def test_json_has_one_object_a_line_and_the_librarys_count(
    photo: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["count", str(photo), "--model", str(model_folder), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    row = json.loads(line)
    assert {"image", "count", "width", "height", "model", "seconds"} <= set(row)
    expected = CrowdCounter.from_pretrained(model_folder).count(photo)
    assert row["count"] == pytest.approx(expected.count, abs=1e-3)
    assert (row["width"], row["height"], row["model"]) == (130, 90, "small-model")


@pytest.fixture
def measured(model_folder: Path, tmp_path: Path) -> Path:
    """The model with an interval."""
    folder = tmp_path / "measured"
    shutil.copytree(model_folder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["interval"] = {"level": 0.9, "quantile": 0.3, "images": 60, "power": 1.0}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_the_interval_is_in_the_words_the_json_and_the_table(
    scene: np.ndarray, measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, table = tmp_path / "large.png", tmp_path / "t.csv"
    Image.fromarray(np.tile(scene, (2, 2, 1))).save(photo)
    arguments = ["count", str(photo), "--model", str(measured)]
    assert main([*arguments, "--json", "--csv", str(table)]) == 0
    row = json.loads(capsys.readouterr().out)
    low, high = row["interval"]
    assert low < row["count"] < high
    assert row["notices"] == []
    names, cells = table.read_text(encoding="utf-8").splitlines()
    assert names == (
        "image,count,low,high,width,height,model,seconds,device,scale,map,notices,error"
    )
    written = dict(zip(names.split(","), cells.split(","), strict=True))
    assert (float(written["low"]), float(written["high"])) == (low, high)
    assert main(arguments) == 0
    assert f" (90% interval {low:.0f} to {high:.0f})\n" in capsys.readouterr().out


def test_a_photo_unlike_those_of_the_training_is_told_and_its_interval_is_not(
    scene: np.ndarray, measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, table = tmp_path / "small.png", tmp_path / "t.csv"
    Image.fromarray(scene).save(photo)
    arguments = ["count", str(photo), "--model", str(measured), "--csv", str(table)]
    assert main([*arguments, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["notices"]
    assert told.startswith("The picture is small (130 × 90 pixels)")
    with table.open(newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["notices"] == told
    assert main([*arguments, "--force"]) == 0
    out, err = capsys.readouterr()
    assert "interval" not in out
    assert f"csrnet: {photo}: {told}\n" in err


@pytest.mark.parametrize(
    ("name", "head", "advice"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pip install pillow-heif"),
        ("a.avif", b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", 'pip install -U "pillow>=11.3"'),
    ],
)
def test_what_reads_the_pictures_of_phones_is_told_once(
    photo: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    head: bytes,
    advice: str,
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "PIL.AvifImagePlugin", None)
    album = photo.parent / "album"
    album.mkdir()
    for number in range(2):
        (album / f"{number}{name}").write_bytes(head + bytes(40))
    assert main(["count", str(album), "--model", str(model_folder)]) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[-1].endswith(advice)
    assert err.count(advice) == 1


def test_a_photo_is_counted_at_the_scale_that_is_asked_for(
    photo: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {}
    for scale in ("auto", "1", "0.5"):
        command = ["count", str(photo), "--model", str(model_folder), "--json", "--scale", scale]
        assert main(command) == 0
        row = json.loads(capsys.readouterr().out)
        counts[scale] = row["count"]
        assert row["scale"] == (0.5 if scale == "0.5" else 1)
    assert counts["auto"] == counts["1"] != counts["0.5"]


def test_fewer_than_nobody_is_nobody(
    photo: Path,
    model_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A map may lie a little below zero where nobody is; in the JSON it says so."""
    count = CrowdCounter._count
    monkeypatch.setattr(
        CrowdCounter, "_count", lambda *rest: replace(count(*rest), count=-0.04, interval=None)
    )
    for more, said in (([], ": 0.0\n"), (["--json"], '"count": -0.04')):
        assert main(["count", str(photo), "--model", str(model_folder), *more]) == 0
        assert said in capsys.readouterr().out


@pytest.mark.parametrize("scale", ["3", "0", "nan", "half"])
def test_a_scale_that_cannot_be_is_a_sentence(
    photo: Path, model_folder: Path, capsys: pytest.CaptureFixture[str], scale: str
) -> None:
    try:
        code = main(["count", str(photo), "--model", str(model_folder), "--scale", scale])
    except SystemExit as end:
        code = end.code
    assert code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "scale must be" in last or "invalid scale value: 'half'" in last


def test_a_bad_file_is_reported_skipped_and_the_exit_code_is_one(
    folder: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, maps = tmp_path / "t.csv", tmp_path / "maps"
    arguments = ["--model", str(model_folder), "--csv", str(table), "--save-maps", str(maps)]
    assert main(["count", str(folder), "--json", *arguments]) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [Path(row["image"]).name for row in rows] == ["a.JPG", "b.png", "c.jpg"]
    assert "error" in rows[2]
    assert "c.jpg" in err
    assert "Traceback" not in err
    with table.open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["error"] != "" for row in written] == [False, False, True]
    assert float(written[1]["count"]) == rows[1]["count"]
    assert sorted(path.name for path in maps.iterdir()) == ["a.npy", "a.png", "b.npy", "b.png"]
    assert np.load(maps / "b.npy").sum() == pytest.approx(rows[1]["count"], rel=1e-4)


def test_no_photograph_is_written_over(
    folder: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    model = ["--model", str(model_folder)]
    assert main(["count", str(folder), *model, "--save-maps", str(folder)]) == 2  # b.png's map
    assert "holds the photographs: give another folder" in capsys.readouterr().err
    # --csv without its FILE takes the first photograph for it
    assert main(["count", *model, "--csv", str(folder / "a.JPG"), str(folder / "b.png")]) == 2
    assert "a.JPG has a picture's name: give another" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "holds",
    [
        "image,x,y\na.JPG,1,2\n",
        "image,heads,count\na.JPG,1,2\n",
        "image,count\na.JPG,35\n",
        "Counted by hand, as image,count,low,high,width,height\n",
    ],
)
def test_a_table_that_count_did_not_write_is_not_written_over(
    folder: Path, model_folder: Path, capsys: pytest.CaptureFixture[str], holds: str
) -> None:
    table = folder / "heads.csv"
    table.write_text(holds)
    count = ["count", str(folder / "b.png"), "--model", str(model_folder), "--csv"]
    assert main([*count, str(table)]) == 2
    assert "heads.csv would overwrite a file that this command did not write" in (
        capsys.readouterr().err
    )
    assert table.read_text() == holds
    fresh = folder / "fresh.csv"
    fresh.touch()  # as mktemp leaves it
    for how in ([], ["--force"]):
        assert main([*count, str(fresh), *how]) == 0
        assert len(fresh.read_text().splitlines()) == 2
    counts = fresh.read_text()
    assert main([*count, str(fresh)]) == 2
    assert "fresh.csv holds counts: add --resume to continue it" in capsys.readouterr().err
    assert fresh.read_text() == counts
    damaged = counts + '"' + "a.png,1\n" * 20_000  # too long for a cell
    fresh.write_text(damaged)
    assert main([*count, str(fresh)]) == 2
    assert fresh.read_text() == damaged
    assert main([*count, str(folder)]) == 2
    assert "is a folder: give a file's name" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="links are for administrators")
def test_a_link_to_itself_is_a_bad_file_like_any_other(
    folder: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = folder / "loop.png"
    loop.symlink_to(loop)
    paths = [str(loop), str(folder / "b.png")]
    maps = ["--save-maps", str(folder / "maps")]
    assert main(["count", *paths, "--model", str(model_folder), *maps]) == 1
    out, err = capsys.readouterr()
    assert "loop.png" in err
    assert "b.png" in out


def test_a_photo_by_two_names_is_counted_once(folder: Path) -> None:
    here, there = folder / "b.png", folder / ".." / folder.name / "b.png"
    assert find_images([str(here), str(there)])[0] == [here]
    assert find_images([str(there), str(here), str(folder / "*.png")])[0] == [there]


def test_a_photo_that_changes_its_size_meanwhile_ends_no_run(
    folder: Path,
    model_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = count_command._results

    def changed(*arguments: Any) -> Any:
        for path, result in counted(*arguments):
            if path.name == "a.JPG":
                Image.new("RGB", (40, 40)).save(path)
            yield path, result

    monkeypatch.setattr(count_command, "_results", changed)
    paths = [str(folder / "a.JPG"), str(folder / "b.png"), "--model", str(model_folder)]
    assert main(["count", *paths, "--save-maps", str(folder / "maps")]) == 1
    out, err = capsys.readouterr()
    assert "a.JPG: " in err
    assert "b.png: " in out


def test_a_photo_whose_name_is_no_unicode_is_in_the_table_and_known_again(
    folder: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = folder / "caf\udce9.png"  # in Latin-1, as Linux hands it out
    try:
        (folder / "b.png").rename(odd)
    except (OSError, UnicodeEncodeError):
        pytest.skip("no such names here")
    table = tmp_path / "t.csv"
    count = ["count", str(odd), "--model", str(model_folder), "--csv", str(table)]
    for more, told in (([], ""), (["--resume"], "1 of 1 photographs are already in")):
        assert main([*count, *more]) == 0
        assert told in capsys.readouterr().err
        with table.open(newline="", encoding="utf-8") as file:
            (row,) = csv.DictReader(file)
        assert row["image"] == str(folder / r"caf\udce9.png")


def test_the_model_is_loaded_as_asked(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(*given: Any, **options: Any) -> None:
        asked.append((*given, options))
        raise ValueError("seen enough")

    monkeypatch.setattr(CrowdCounter, "from_pretrained", load)
    options = ["--device", "cuda:1", "--dtype", "float16", "--scale", "0.5"]
    assert main(["count", str(photo), "--model", "org/m", *options]) == 2
    assert asked == [("org/m", "cuda:1", "float16", {"engine": "torch", "scale": 0.5})]


def test_an_empty_name_is_no_model(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["count", str(photo), "--model", ""]) == 2  # as of a variable that is not set
    assert capsys.readouterr().err.startswith("csrnet: ")


def test_a_single_picture_that_memory_is_too_small_for_is_a_sentence(
    photo: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(CrowdCounter, "count", fails)
    assert main(["count", str(photo), "--model", str(model_folder)]) == 1
    assert "There is not enough memory for it: make it smaller" in capsys.readouterr().err


def test_what_was_counted_is_in_the_table_when_a_run_is_stopped(
    folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = CrowdCounter._read

    def stopped(self, image):  # type: ignore[no-untyped-def]
        if image.name == "c.jpg":
            raise KeyboardInterrupt
        if image.name == "b.png":
            assert table.read_text().count("\n") == 2  # a run that is killed keeps it too
            raise RuntimeError("the driver is gone")
        return read(self, image)

    monkeypatch.setattr(CrowdCounter, "_read", stopped)
    table = tmp_path / "t.csv"
    assert main(["count", str(folder), "--model", str(model_folder), "--csv", str(table)]) == 130
    with table.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert float(first["count"])
    assert second["error"] == "It could not be counted: the driver is gone"


@pytest.mark.skipif(sys.platform == "win32", reason="links are for administrators")
def test_a_run_that_was_stopped_goes_on_with_its_table(
    folder: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, table = tmp_path / "whole.csv", tmp_path / "t.csv"
    count = ["count", str(folder), "--model", str(model_folder), "--resume", "--csv"]
    code = main([*count, str(whole)])
    lines = whole.read_text().splitlines(keepends=True)
    assert len(lines) > 3
    (tmp_path / "link.csv").symlink_to(table)
    kept = "".join(lines[:2])
    torn = (lines[2][:-9].encode(), "Zürich.jpg".encode()[:2], b"a.png,1,,,,,,,,,,,,,\n")
    for left in (lines[0].encode(), *(kept.encode() + row for row in (b"", *torn))):
        table.write_bytes(left)
        assert main([*count, str(tmp_path / "link.csv")]) == code
        assert (tmp_path / "link.csv").is_symlink()
        again = table.read_text().splitlines()
        assert [line.split(",")[:3] for line in again] == [line.split(",")[:3] for line in lines]
    err = capsys.readouterr().err
    assert f"1 of {len(lines) - 1} photographs are already in" in err
    read: list[str] = []
    plain = CrowdCounter._read
    monkeypatch.setattr(
        CrowdCounter, "_read", lambda self, image: read.append(image.name) or plain(self, image)
    )
    assert main([*count, str(table)]) == code
    counted = {row["image"] for row in csv.DictReader(lines) if not row["error"]}
    assert not counted & {
        str(folder / name) for name in read
    }  # those with an error are tried again
    table.chmod(0o600)
    whole_table = table.read_text()
    one = ["count", str(folder / "b.png"), "--model", str(model_folder), "--resume"]
    assert main([*one, "--csv", str(table)]) == 0
    assert table.read_text() == whole_table  # what is said of others stays, errors too
    assert table.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("*.partial"))
    head, *rows = whole_table.splitlines()
    table.write_text("\n".join([head, *(row.rstrip(",") for row in rows[:-1]), rows[-1], ""]))
    assert main([*one, "--csv", str(table)]) == 0
    assert table.read_text() == whole_table  # a spreadsheet leaves out empty cells at the end


def test_a_second_run_on_a_table_is_refused_and_the_first_loses_no_row(
    folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, link = tmp_path / "t.csv", tmp_path / "link.csv"
    link.symlink_to(table)
    count = ["count", str(folder), "--model", str(model_folder), "--csv"]
    seconds: list[subprocess.CompletedProcess[str]] = []

    def read(self: CrowdCounter, image: Path) -> Any:
        if not seconds:
            again = [sys.executable, "-m", "csrnet_hub", *count, str(link), "--resume"]
            seconds.append(subprocess.run(again, capture_output=True, text=True, check=False))
        return plain(self, image)

    plain = CrowdCounter._read
    monkeypatch.setattr(CrowdCounter, "_read", read)
    main([*count, str(table)])
    assert seconds[0].returncode == 2
    assert f"Another run is writing {link}: wait, or give another name." in seconds[0].stderr
    assert table.read_text().count("\n") > 3
    assert not list(tmp_path.glob(".*"))


def test_a_run_that_goes_on_makes_the_maps_that_are_missing(
    folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    table, maps = tmp_path / "t.csv", tmp_path / "maps"
    photos = [str(folder / "a.JPG"), str(folder / "b.png")]
    count = ["count", "--model", str(model_folder), "--csv", str(table), "--resume", *photos]
    assert main(count[:-1]) == 0
    for _ in range(2):
        assert main([*count, "--save-maps", str(maps)]) == 0
        with table.open(newline="") as file:
            assert [row["image"] for row in csv.DictReader(file) if row["map"]] == photos
    assert len(list(maps.glob("*.npy"))) == 2


def test_counts_are_kept_when_a_run_that_makes_the_missing_maps_is_stopped(
    folder: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table, maps = tmp_path / "t.csv", tmp_path / "maps"
    count = ["count", str(folder), "--model", str(model_folder), "--csv", str(table)]
    code = main(count)

    def rows(table: Path = table, whole: bool = True) -> dict[str, str]:
        with table.open(newline="") as file:
            read = list(csv.DictReader(file))
        found = {Path(row["image"]).name: row["count"] for row in read}
        assert len(found) == len(read) or not whole
        return found

    before, plain = rows(), CrowdCounter._read
    killed = tmp_path / "killed.csv"  # as a run leaves it that comes to no end

    def stopped(self: CrowdCounter, image: Path) -> Any:
        if image.name == "b.png":
            shutil.copy(table, killed)
            raise KeyboardInterrupt
        return plain(self, image)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(CrowdCounter, "_read", stopped)
        assert main([*count, "--resume", "--save-maps", str(maps)]) == 130
    assert f"0 of {len(before)} photographs are already in {table} with their maps" in (
        capsys.readouterr().err
    )
    assert rows() == rows(killed, whole=False) == before
    assert main([*count, "--resume", "--save-maps", str(maps)]) == code
    assert rows() == before
    assert main([*count[:-1], str(killed), "--resume", "--save-maps", str(maps)]) == code
    assert rows(killed) == before
    saved = sorted(maps.glob("*.npy"))
    assert len(saved) == sum(bool(counted) for counted in before.values())
    shutil.rmtree(maps)
    assert main([*count, "--resume", "--save-maps", str(maps)]) == code
    assert sorted(maps.glob("*.npy")) == saved


def test_a_map_has_the_colours_of_the_scale_at_which_its_photo_was_counted(
    photo: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def figure(*arguments: Any, scale: float) -> Image.Image:
        drawn.append(scale)
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr("csrnet_hub.render.density_figure", figure)
    count = ["count", str(photo), "--model", str(model_folder), "--scale", "0.5"]
    assert main([*count, "--save-maps", str(tmp_path / "maps")]) == 0
    assert drawn == [0.5]


def test_a_table_that_cannot_be_gone_on_with_stays_and_is_told_of(
    folder: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t.csv"
    count = ["count", str(folder / "b.png"), "--model", str(model_folder), "--resume"]
    assert main(count) == 2
    assert "--resume continues the table of --csv FILE" in capsys.readouterr().err
    head = ",".join(COLUMNS)
    for holds, said in (
        (f"{head}\nx.png,3,,,8,8,another,1,cpu,1,,,\n", ": give the model of that name with"),
        (
            f"{head}\nx.png,3,,,8,8,another,1,cpu,1,,,\ny.png,3,,,8,8,{model_folder.name},1,cpu,1,,,\n",
            "holds counts by another, not ",
        ),
        ("image,count,low,high,width,height,model\nx.png,3,,,8,8,m\n", "different columns"),
        (f"{head}\n{'x' * 200_000}\n", "cannot be read as a table"),
    ):
        table.write_text(holds)
        assert main([*count, "--csv", str(table)]) == 2
        assert said in capsys.readouterr().err
        assert table.read_text() == holds


def test_a_table_that_cannot_be_written_is_said_before_counting(
    photo: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(tmp_path / "no" / "t.csv")
    assert main(["count", str(photo), "--model", str(model_folder), "--csv", table]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "t.csv" in err


def test_maps_of_pictures_with_one_name_do_not_overwrite_each_other(
    folder: Path, scene: np.ndarray, model_folder: Path, tmp_path: Path
) -> None:
    Image.fromarray(scene[:16]).save(folder / "B.bmp")
    maps = tmp_path / "maps"
    files = [str(folder / "b.png"), str(folder / "B.bmp")]
    assert main(["count", *files, "--model", str(model_folder), "--save-maps", str(maps)]) == 0
    shapes = {path.name: np.load(path).shape for path in maps.glob("*.npy")}
    assert shapes == {"b.npy": (12, 17), "B-2.npy": (2, 17)}


def test_maps_never_replace_a_picture_that_is_none(
    folder: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    links, maps = tmp_path / "links", tmp_path / "maps"
    links.mkdir()
    maps.mkdir()
    try:
        (links / "b.png").symlink_to(folder / "b.png")
    except OSError:
        pytest.skip("no links here")
    before = (folder / "b.png").read_bytes()
    count = ["count", "--model", str(model_folder), "--save-maps"]
    assert main([*count, str(links), str(links)]) == 2
    assert "holds the photographs" in capsys.readouterr().err
    (maps / "b.png").write_bytes(b"somebody's")
    (maps / "a.png").symlink_to(folder / "b.png")
    (maps / "a-2.npy").write_bytes(b"a ground truth's map")
    for _ in range(2):  # maps of an earlier run are replaced
        assert main([*count, str(maps), *(str(folder / name) for name in ("a.JPG", "b.png"))]) == 0
    assert (maps / "b.png").read_bytes() == b"somebody's"
    assert (folder / "b.png").read_bytes() == before
    written = {path.name for path in maps.iterdir()}
    assert (maps / "a-2.npy").read_bytes() == b"a ground truth's map"
    assert written == {"b.png", "b-2.png", "b-2.npy", "a.png", "a-2.npy", "a-3.png", "a-3.npy"}


def test_a_later_run_leaves_the_maps_of_other_photos_alone(
    scene: np.ndarray, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps, named = tmp_path / "maps", []
    for day, rows in (("day1", 90), ("day2", 40), ("day1", 90)):
        photo = tmp_path / day / "IMG_1.png"
        photo.parent.mkdir(exist_ok=True)
        Image.fromarray(scene[:rows]).save(photo)
        count = ["count", str(photo), "--model", str(model_folder), "--json"]
        assert main([*count, "--save-maps", str(maps)]) == 0
        named.append(json.loads(capsys.readouterr().out)["map"])
    assert named == [str(maps / name) for name in ("IMG_1.npy", "IMG_1-2.npy", "IMG_1.npy")]
    assert [np.load(path).shape[0] for path in named[:2]] == [12, 5]
    assert sorted(path.name for path in maps.glob("*.png")) == ["IMG_1-2.png", "IMG_1.png"]
    assert str(tmp_path).encode() not in (maps / "IMG_1.png").read_bytes()


def test_an_empty_name_to_write_to_is_not_the_current_folder(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a variable that is not set."""
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    for arguments in (["count", str(photo), "--save-maps", ""], ["convert", "old.pth", ""]):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert "an empty name was given" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before


def test_a_name_in_letters_that_no_font_has_is_drawn_without_a_warning(
    scene: np.ndarray, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "群衆\U0010fffd"  # the last has no letter in any language
    Image.fromarray(scene).save(tmp_path / f"{name}.png")
    count = ["count", str(tmp_path / f"{name}.png"), "--model", str(model_folder)]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert main([*count, "--save-maps", str(tmp_path / "maps")]) == 0
    assert seen == []
    assert (tmp_path / "maps" / f"{name}.npy").is_file()
    assert "Glyph" not in capsys.readouterr().err


def test_saved_maps_are_counted_only_where_they_are_named(
    photo: Path, model_folder: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    assert main(["count", str(photo), "--model", str(model_folder), "--save-maps", str(maps)]) == 0
    (drawn,) = maps.glob("*.png")
    assert photo in find_images([str(photo.parent / "**")])[0]
    assert drawn not in find_images([str(tmp_path / "**"), str(maps)])[0]
    assert find_images([str(drawn)])[0] == [drawn]


def test_a_map_that_cannot_be_drawn_ends_no_run(
    folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "b.png").rename(folder / ("ü" * 120 + ".png"))
    saved = count_command.save_map

    def removed(stem: Path, photo: Path, result: CountResult) -> None:
        saved(stem, folder / "gone.jpg" if photo.name == "a.JPG" else photo, result)

    monkeypatch.setattr(count_command, "save_map", removed)
    maps, table = tmp_path / "maps", tmp_path / "t.csv"
    counted = ["count", str(folder), "--model", str(model_folder), "--csv", str(table)]
    assert main([*counted, "--save-maps", str(maps)]) == 1
    with table.open(newline="", encoding="utf-8") as file:
        errors = {row["image"][-9:]: row["error"] for row in csv.DictReader(file)}
    assert "no such file" in errors.pop(str(folder / "a.JPG")[-9:])
    assert sorted(map(bool, errors.values())) == [False, True]  # c.jpg is broken
    assert {path.name for path in maps.iterdir()} == {"ü" * 100 + ".png", "ü" * 100 + ".npy"}


def test_without_a_console_pictures_are_counted_all_the_same(
    folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under pythonw, which has neither output."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    table = tmp_path / "t.csv"
    given = ["count", str(folder), "--model", str(model_folder), "--json", "--csv", str(table)]
    assert main(given) == 1
    assert len(table.read_text(encoding="utf-8").splitlines()) == 4


def test_the_advice_for_a_folder_of_folders_finds_all_of_its_pictures(
    scene: np.ndarray, tmp_path: Path
) -> None:
    inner = tmp_path / "trip [2024]" / "day's"
    inner.mkdir(parents=True)
    for name in ("a.png", "B.JPG", "c.heic"):
        (inner / name).touch()
    (inner / "._a.jpg").write_bytes(b"what macOS writes beside it")
    found, nothing = find_images([str(inner.parent)])
    (said,) = nothing.values()
    assert not found
    assert said.startswith("It holds no picture, but its subfolders do: give ")
    (advice,) = shlex.split(said.partition(": give ")[2].removesuffix("."))
    assert [path.name for path in find_images([advice])[0]] == ["B.JPG", "a.png", "c.heic"]
    assert find_images([str(inner)])[0] == find_images([advice])[0]


def test_a_glob_that_the_shell_left_alone_takes_the_pictures_of_folders_too(
    tmp_path: Path,
) -> None:
    """As cmd and PowerShell do; in a folder whose name has brackets as well."""
    for day in ("day1", "day2"):
        (tmp_path / "[24]" / day).mkdir(parents=True)
        (tmp_path / "[24]" / day / "a.jpg").touch()
    found, nothing = find_images([str(tmp_path / "[24]" / "day*")])
    assert [path.parent.name for path in found] == ["day1", "day2"]
    assert not nothing
    assert find_images([str(tmp_path / "[24]" / "day1" / "*.jpg")])[0] == found[:1]


def test_a_file_in_a_folder_that_may_not_be_read_is_skipped_like_a_bad_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def forbidden(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", forbidden)
    assert find_images([str(tmp_path / "a.png")])[0] == [tmp_path / "a.png"]


def test_files_folders_and_globs_are_found_once_each(folder: Path) -> None:
    (folder / "album.jpg").mkdir()
    names = [path.name for path in find_images([str(folder / "*.png"), str(folder)])[0]]
    assert names == ["b.png", "a.JPG", "c.jpg"]
    if sys.platform != "win32":  # links, as in the Hub's cache, are photographs of their own
        (folder / "d.png").symlink_to(folder / "b.png")
        assert folder / "d.png" in find_images([str(folder)])[0]
        (folder / "d.png").unlink()
    found, nothing = find_images([str(folder / "*")])
    assert [path.name for path in found] == ["a.JPG", "b.png", "c.jpg"]
    assert not nothing


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes by name")
def test_a_pipe_is_a_bad_file_and_not_waited_for(
    photo: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    paths = [str(tmp_path / "pipe.png"), str(photo)]
    assert main(["count", *paths, "--model", str(model_folder)]) == 1
    assert "not an ordinary file" in capsys.readouterr().err


def test_a_folder_that_may_not_be_read_is_left_out_of_a_glob(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "lost+found").mkdir()
    listed = Path.iterdir

    def forbidden(path: Path) -> Iterator[Path]:
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", forbidden)
    names = [path.name for path in find_images([str(folder / "**")])[0]]
    assert names == ["a.JPG", "b.png", "c.jpg"]
    closed = str(folder / "lost+found")  # as a shell hands it over for *
    found, nothing = find_images([closed, str(folder / "b.png")])
    assert [path.name for path in found] == ["b.png"]
    assert nothing == {closed: "It cannot be read: Permission denied."}


def test_a_glob_takes_each_folder_once_where_links_lead_round(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "e" / "s [1]" / "t").mkdir(parents=True)
    (tmp_path / "e" / ".hidden").mkdir()
    (tmp_path / "far").mkdir()
    for name in ("e/a", "e/s [1]/b", "e/s [1]/t/b", "e/.hidden/a", "far/c"):
        shutil.copy(photo, tmp_path / f"{name}.png")
    for link, target in (("s [1]/up", ".."), ("s [1]/again", "../s [1]"), ("z", "../far")):
        (tmp_path / "e" / link).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    for pattern, names in {
        "e/**": ["a.png", "s [1]/b.png", "s [1]/t/b.png", "z/c.png"],
        "e/**/b.png": ["s [1]/b.png", "s [1]/t/b.png"],
        "e/**/t/**": ["s [1]/t/b.png"],
        "*/**/[ac].*": ["a.png", "z/c.png"],
    }.items():
        assert find_images([pattern])[0] == [Path("e", name) for name in names], pattern
    monkeypatch.chdir("e")
    assert find_images(["**"])[0][0] == Path("a.png")


def test_a_folder_of_maps_alone_says_that_it_is_one(
    photo: Path, model_folder: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    assert main(["count", str(photo), "--model", str(model_folder), "--save-maps", str(maps)]) == 0
    found, nothing = find_images([str(maps)])
    assert not found
    assert nothing[str(maps)].startswith("It holds only saved maps, which are counted only if")


def test_a_folder_in_a_folder_that_may_not_be_entered_stops_no_others(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    forbidden = tmp_path / "outer" / "inner" / "a.jpg"
    forbidden.touch()
    is_file = Path.is_file

    def denied(path: Path) -> bool:
        if path == forbidden:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", denied)
    found, nothing = find_images([str(folder), str(tmp_path / "outer")])
    assert [path.name for path in found] == ["a.JPG", "b.png", "c.jpg"]
    assert nothing == {str(tmp_path / "outer"): "It cannot be read: Permission denied."}


def test_pictures_in_hidden_folders_are_not_promised(photo: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "outer" / ".cache"
    hidden.mkdir(parents=True)
    shutil.copy(photo, hidden)
    outer = str(tmp_path / "outer")
    assert "It holds no picture (" in find_images([outer])[1][outer]


def test_a_glob_on_a_drive_that_is_not_there_is_one_without_pictures(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.path.exists", lambda path: False)
    found, nothing = find_images(["/Z/photos/*.jpg", str(folder)])
    assert "It holds no picture" in nothing["/Z/photos/*.jpg"]
    assert len(found) == 3


@pytest.mark.parametrize("name", ["a.jfif", "a.JPE", "a.mpo"])  # of Windows, and of cameras
def test_a_jpeg_has_other_names_too(photo: Path, tmp_path: Path, name: str) -> None:
    inside = tmp_path / "photos" / name
    inside.parent.mkdir()
    inside.write_bytes(photo.read_bytes())
    assert find_images([str(inside.parent)])[0] == [inside]


def test_a_name_with_brackets_is_a_file_when_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "crowd [1].png"
    path.touch()
    assert find_images([str(path)])[0] == [path]


@pytest.mark.parametrize("pattern", ["*.gif", ""])
def test_a_folder_or_glob_without_pictures_is_a_sentence(
    tmp_path: Path, pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["count", str(tmp_path / pattern), "--model", "x"]) == 2
    assert "holds no picture" in capsys.readouterr().err


def test_an_empty_name_is_not_the_current_folder(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photo.parent)
    assert main(["count", ""]) == 2
    assert "An empty name was given" in capsys.readouterr().err


def test_a_glob_or_folder_without_pictures_stops_no_others(
    photo: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    paths = [str(tmp_path / "*.gif"), str(tmp_path / "empty"), str(photo)]
    assert main(["count", *paths, "--model", str(model_folder), "--json"]) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["image"] for row in rows] == paths
    assert ["error" in row for row in rows] == [True, True, False]
    assert f"{paths[0]}: It holds no picture (" in err


def test_too_little_memory_for_a_map_costs_the_map_alone(
    photo: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(count_command, "save_map", full)
    arguments = ["--model", str(model_folder), "--save-maps", str(tmp_path / "maps")]
    assert main(["count", str(photo), *arguments]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"{photo}: ")
    assert f"the map of {photo}: There is not enough memory" in err


def test_a_disk_that_is_full_names_the_map_and_loses_no_count(
    photo: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        write(path, content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")  # without a name, as written

    monkeypatch.setattr(Path, "write_bytes", full)
    maps, table = tmp_path / "maps", tmp_path / "t.csv"
    arguments = ["--model", str(model_folder), "--save-maps", str(maps), "--csv", str(table)]
    assert main(["count", str(photo), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"{photo}: ")
    assert f"csrnet: {maps / photo.stem}.png: No space left on device" in err
    assert list(maps.iterdir()) == []
    assert len(table.read_text().splitlines()) == 2


def test_a_disk_that_is_full_names_the_table(
    photo: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    assert main(["count", str(photo), "--model", str(model_folder), "--csv", str(full)]) == 2
    assert "csrnet: /dev/full: No space left on device" in capsys.readouterr().err


def test_a_second_run_into_a_folder_of_maps_is_refused(
    photo: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = tmp_path / "maps"
    count = ["count", str(photo), "--model", str(model_folder), "--save-maps", str(maps)]
    maps.mkdir()
    with FileLock(maps / ".lock"):  # as a run that has just begun holds it
        assert main(count) == 2
    assert f"Another run is writing maps to {maps}: wait" in capsys.readouterr().err
    assert main(count) == 0
    assert sorted(path.name for path in maps.iterdir()) == [
        f"{photo.stem}.npy",
        f"{photo.stem}.png",
    ]


def test_a_missing_file_is_reported_like_a_bad_one(
    photo: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["count", "gone.jpg", str(photo), "--model", str(model_folder), "--json"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["error" in row for row in rows] == [True, False]


@pytest.mark.parametrize("device", ["xpu", "hpu", "meta", "vulkan", "xla"])
def test_a_device_that_torch_knows_by_name_alone_is_a_sentence(
    photo: Path, model_folder: Path, device: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["count", str(photo), "--model", str(model_folder), "--device", device]) == 2
    assert f"there is no device '{device}'" in capsys.readouterr().err


def test_a_model_that_is_a_file_is_told_what_to_give(
    photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["count", str(photo), "--model", str(photo)]) == 2
    assert "is a file: give a model folder" in capsys.readouterr().err


def test_a_model_for_openvino_is_told_to_be_no_folder_to_train_or_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.XML").write_text("<net/>")
    assert main(["export", str(tmp_path / "m.XML"), str(tmp_path / "m.onnx")]) == 2
    assert "a model for OpenVINO" in capsys.readouterr().err


def test_a_gpu_that_others_have_filled_is_a_sentence(
    photo: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 MiB")

    monkeypatch.setattr(CrowdCounter, "__init__", fails)
    assert main(["count", str(photo), "--model", str(model_folder)]) == 2
    assert "use --device cpu" in capsys.readouterr().err
    table = photo.with_name("heads.csv")
    table.write_text(f"image,x,y\n{photo.name},1,2\n", encoding="utf-8")
    assert evaluate.main([str(model_folder), str(table)]) == 1
    assert "evaluate: memory ran out: on a GPU, use --device cpu" in capsys.readouterr().err
    monkeypatch.setattr("csrnet_hub.export.export", fails)
    assert main(["export", str(model_folder), "a.onnx"]) == 2
    err = capsys.readouterr().err  # it has no such option
    assert "memory ran out: close other programs first" in err
    assert "--device" not in err


def test_a_program_that_fails_ends_with_a_line_and_its_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(error: BaseException) -> Callable[[], int]:
        def work() -> int:
            raise error

        return work

    for error, code, line in (
        (ValueError("no such thing"), 1, "a: no such thing"),
        (FileNotFoundError(2, "No such file", "b.txt"), 1, "a: b.txt: No such file"),
        (MemoryError("Unable to allocate 9 GiB"), 1, "a: memory ran out: lower batch"),
        (RuntimeError("CUDA out of memory.\nTried"), 1, "a: memory ran out: lower batch"),
        (KeyError("own"), 1, "a: 'own'"),
        (TimeoutError(), 1, "a: TimeoutError"),
        (KeyboardInterrupt(), 130, "a: stopped; nothing was written"),
    ):
        said: dict[str, Any] = {"memory": "lower batch", "stopped": lambda: "nothing was written"}
        assert exit_code("a", failing(error), errors=(KeyError,), **said) == code
        assert capsys.readouterr().err.splitlines()[-1] == line
    assert exit_code("a", failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "a: stopped\n"
    with pytest.raises(RuntimeError, match="a bug"):
        exit_code("a", failing(RuntimeError("a bug")))


def test_a_model_that_is_not_there_is_a_sentence(
    photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["count", str(photo), "--model", "./nothing"]) == 2
    assert "no model folder nothing" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="pipes break otherwise there")
def test_a_reader_that_has_enough_ends_it_quietly(folder: Path, model_folder: Path) -> None:
    program = (
        "import sys, pytest; from tests.thin import narrow; narrow(pytest.MonkeyPatch()); "
        "from csrnet_hub.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, "count", str(folder), "--model", str(model_folder)]
    with subprocess.Popen(
        [*command, "--json"],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 141
    assert "Broken pipe" not in err
    assert "Traceback" not in err


def test_a_precision_that_the_processor_lacks_is_warned_of(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_engine, "fast_bfloat16", lambda device: False)
    with pytest.warns(UserWarning, match="slower in bfloat16 than in float32"):
        CrowdCounter(thin_model, "cpu", "bfloat16")
    monkeypatch.setattr(torch_engine, "fast_bfloat16", lambda device: True)
    CrowdCounter(thin_model, "cpu", "bfloat16")
    with pytest.warns(UserWarning, match="slower in float16 than in float32"):
        CrowdCounter(thin_model, "cpu", "float16")


def test_a_warning_is_a_line_of_the_program(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        for place in (count_command.__file__, "/x/torch/nn.py"):
            warnings.warn_explicit("it is slow", UserWarning, place, 7)
        return 0

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *shown: print(warnings.formatwarning(*shown[:4]))
        assert exit_code("csrnet", work) == 0
    out = capfd.readouterr().out
    assert out.startswith("csrnet: it is slow\n")
    assert "/x/torch/nn.py:7: UserWarning: it is slow" in out


def test_a_single_picture_says_how_far_it_is(
    photo: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[int, int]] = []
    count = CrowdCounter.count

    def counted(self, image, progress=None):  # type: ignore[no-untyped-def]
        def both(done: int, total: int) -> None:
            steps.append((done, total))
            progress(done, total)

        return count(self, image, both)

    monkeypatch.setattr(CrowdCounter, "count", counted)
    assert main(["count", str(photo), "--model", str(model_folder)]) == 0
    assert steps == [(1, 1)]


def test_the_command_line_is_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "csrnet_hub", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, __version__)


def test_an_error_replaces_no_count_that_a_table_has(
    photo: Path, model_folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "t.csv"
    count = ["count", str(photo), "--model", str(model_folder), "--csv", str(table)]
    assert main(count) == 0
    before = table.read_bytes()
    photo.write_bytes(b"no picture")
    assert main([*count, "--resume", "--save-maps", str(tmp_path / "maps")]) == 1
    assert table.read_bytes() == before


def test_a_disk_that_is_full_as_a_run_goes_on_loses_no_row_of_its_table(
    folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "t.csv"
    count = ["count", str(folder), "--model", str(model_folder), "--csv", str(table)]
    main(count)
    before = table.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv.DictWriter, "writerows", full)
    assert main([*count, "--resume"]) == 2
    assert table.read_bytes() == before
