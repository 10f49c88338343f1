"""What the command line promises."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from csrnet_hub import CrowdCounter, CSRNet, __version__, cli, torch_engine
from csrnet_hub.cli import main
from csrnet_hub.counting import CountResult
from csrnet_hub.named import find_images


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
    assert "holds the photographs; give a folder for the maps" in capsys.readouterr().err
    # --csv without its FILE takes the first photograph for it
    assert main(["count", *model, "--csv", str(folder / "a.JPG"), str(folder / "b.png")]) == 2
    assert "a.JPG is a picture's name; give another" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("holds", ["image,x,y\na.JPG,1,2\n", "image,heads,count\na.JPG,1,2\n"])
def test_a_table_that_count_did_not_write_is_not_written_over(
    folder: Path, model_folder: Path, capsys: pytest.CaptureFixture[str], holds: str
) -> None:
    table = folder / "heads.csv"
    table.write_text(holds)
    count = ["count", str(folder / "b.png"), "--model", str(model_folder), "--csv"]
    assert main([*count, str(table)]) == 2
    assert "heads.csv would write over a file that this command did not make" in (
        capsys.readouterr().err
    )
    assert table.read_text() == holds
    fresh = folder / "fresh.csv"
    fresh.touch()  # as mktemp leaves it
    for _ in range(2):  # an own table is made anew
        assert main([*count, str(fresh)]) == 0
        assert len(fresh.read_text().splitlines()) == 2


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
    assert find_images([str(here), str(there)]) == [here]
    assert find_images([str(there), str(here), str(folder / "*.png")]) == [there]


def test_a_photo_that_changes_its_size_meanwhile_ends_no_run(
    folder: Path,
    model_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = cli._results

    def changed(*arguments: Any) -> Any:
        for path, result in counted(*arguments):
            if path.name == "a.JPG":
                Image.new("RGB", (40, 40)).save(path)
            yield path, result

    monkeypatch.setattr(cli, "_results", changed)
    paths = [str(folder / "a.JPG"), str(folder / "b.png"), "--model", str(model_folder)]
    assert main(["count", *paths, "--save-maps", str(folder / "maps")]) == 1
    out, err = capsys.readouterr()
    assert "a.JPG: " in err
    assert "b.png: " in out


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
    assert "It could not be counted: not enough memory" in capsys.readouterr().err


def test_what_was_counted_is_in_the_table_when_a_run_is_stopped(
    folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = CrowdCounter._read

    def stopped(self, image):  # type: ignore[no-untyped-def]
        if image.name == "c.jpg":
            raise KeyboardInterrupt
        if image.name == "b.png":
            raise RuntimeError("no memory")
        return read(self, image)

    monkeypatch.setattr(CrowdCounter, "_read", stopped)
    table = tmp_path / "t.csv"
    assert main(["count", str(folder), "--model", str(model_folder), "--csv", str(table)]) == 130
    with table.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert float(first["count"])
    assert "no memory" in second["error"]


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


def test_a_map_that_cannot_be_drawn_ends_no_run(
    folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "b.png").rename(folder / ("ü" * 120 + ".png"))
    saved = cli.save_map

    def removed(stem: Path, photo: Path, result: CountResult) -> None:
        saved(stem, folder / "gone.jpg" if photo.name == "a.JPG" else photo, result)

    monkeypatch.setattr(cli, "save_map", removed)
    maps, table = tmp_path / "maps", tmp_path / "t.csv"
    counted = ["count", str(folder), "--model", str(model_folder), "--csv", str(table)]
    assert main([*counted, "--save-maps", str(maps)]) == 1
    with table.open(newline="", encoding="utf-8") as file:
        errors = {row["image"][-9:]: row["error"] for row in csv.DictReader(file)}
    assert "no such file" in errors.pop(str(folder / "a.JPG")[-9:])
    assert sorted(map(bool, errors.values())) == [False, True]  # c.jpg is broken
    assert {path.name for path in maps.iterdir()} == {"ü" * 100 + ".png", "ü" * 100 + ".npy"}


def test_without_a_standard_output_pictures_are_counted_all_the_same(
    photo: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    table = tmp_path / "t.csv"
    given = ["count", str(photo), "--model", str(model_folder), "--json", "--csv", str(table)]
    assert main(given) == 0
    assert len(table.read_text(encoding="utf-8").splitlines()) == 2


def test_the_advice_for_a_folder_of_folders_can_be_followed(tmp_path: Path) -> None:
    inner = tmp_path / "trip [2024]" / "day's"
    inner.mkdir(parents=True)
    (inner / "a.png").touch()
    with pytest.raises(ValueError, match="its folders do: give") as caught:
        find_images([str(inner.parent)])
    advice = str(caught.value).partition(": give ")[2].removesuffix(".")
    assert find_images(shlex.split(advice)) == [inner / "a.png"]


def test_a_file_in_a_folder_that_may_not_be_read_is_skipped_like_a_bad_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def forbidden(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", forbidden)
    assert find_images([str(tmp_path / "a.png")]) == [tmp_path / "a.png"]


def test_files_folders_and_globs_are_found_once_each(folder: Path) -> None:
    (folder / "album.jpg").mkdir()
    names = [path.name for path in find_images([str(folder / "*.png"), str(folder)])]
    assert names == ["b.png", "a.JPG", "c.jpg"]
    assert [path.name for path in find_images([str(folder / "*")])] == ["a.JPG", "b.png", "c.jpg"]


@pytest.mark.parametrize("name", ["a.jfif", "a.JPE", "a.mpo"])  # of Windows, and of cameras
def test_a_jpeg_has_other_names_too(photo: Path, tmp_path: Path, name: str) -> None:
    inside = tmp_path / "photos" / name
    inside.parent.mkdir()
    inside.write_bytes(photo.read_bytes())
    assert find_images([str(inside.parent)]) == [inside]


def test_a_name_with_brackets_is_a_file_when_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "crowd [1].png"
    path.touch()
    assert find_images([str(path)]) == [path]


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


def test_too_little_memory_is_a_sentence(
    photo: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(cli, "save_map", full)
    arguments = ["--model", str(model_folder), "--save-maps", str(tmp_path / "maps")]
    assert main(["count", str(photo), *arguments]) == 2
    assert "there is not enough memory" in capsys.readouterr().err


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
    assert "is a file: give the model's folder" in capsys.readouterr().err


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
    assert "give --device cpu" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_a_sentence(
    photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["count", str(photo), "--model", "./nothing"]) == 2
    assert "no model folder nothing" in capsys.readouterr().err


# convert


def test_pictures_that_lie_deeper_are_pointed_at_and_hidden_files_left_alone(
    scene: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "day").mkdir()
    Image.fromarray(scene).save(tmp_path / "day" / "a.jpg")
    (tmp_path / "day" / "._a.jpg").write_bytes(b"what macOS writes beside it")
    with pytest.raises(ValueError, match=r"its folders do: give '.*\*\*.*\.jpg'"):
        find_images([str(tmp_path)])
    assert find_images([str(tmp_path / "**" / "*.jpg")]) == [tmp_path / "day" / "a.jpg"]
    assert find_images([str(tmp_path / "day")]) == [tmp_path / "day" / "a.jpg"]


def test_what_the_system_refuses_is_said_with_the_file(
    photo: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["count", str(photo), "--model", str(model_folder)]
    nowhere = tmp_path / "no" / "t.csv"
    for table, reason in ((nowhere, "No such file"), (tmp_path, "directory")):
        assert main([*arguments, "--csv", str(table)]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"csrnet: {table}: ")
        assert reason in err or os.name == "nt"
        assert "Errno" not in err


@pytest.mark.skipif(os.name == "nt", reason="pipes break otherwise there")
def test_a_reader_that_has_enough_ends_it_quietly(folder: Path, model_folder: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys; from csrnet_hub.cli import main; sys.exit(main())",
    ]
    with subprocess.Popen(
        [*command, "count", str(folder), "--model", str(model_folder), "--json"],
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
    model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_engine, "fast_bfloat16", lambda device: False)
    with pytest.warns(UserWarning, match="slower in bfloat16 than in float32"):
        CrowdCounter(model, "cpu", "bfloat16")
    monkeypatch.setattr(torch_engine, "fast_bfloat16", lambda device: True)
    CrowdCounter(model, "cpu", "bfloat16")
    with pytest.warns(UserWarning, match="slower in float16 than in float32"):
        CrowdCounter(model, "cpu", "float16")


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
