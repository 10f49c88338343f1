"""What preparing, training and evaluating promise."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from csrnet_hub.datasets import DatasetError, Sample
from csrnet_hub.datasets.registry import FORMATS
from tests.test_datasets import read_shanghaitech, write_heads, write_part
from tests.test_datasets_formats import WRITERS
from train import gather, prepare
from train.data import Example, fingerprint, load_prepared, split
from train.loss import pyramid_loss
from train.recipe import RecipeError, read_recipe

RECIPE = Path(__file__).with_name("recipe.toml")
RECIPES = Path(prepare.__file__).parent / "recipes"


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten small pictures with 0 to 45 heads."""
    return write_part(tmp_path_factory.mktemp("data") / "part_A", [5 * i for i in range(10)])


@pytest.fixture(scope="module")
def prepared(part: Path) -> Path:
    path = part.parent / "part_A.h5"
    prepare.prepare(read_shanghaitech(part, "train"), path)
    return path


# prepare


def test_a_prepared_file_holds_pictures_heads_and_kernel_widths(prepared: Path) -> None:
    examples = load_prepared(prepared)
    assert [example.count for example in examples if example.name == "IMG_4"] == [15]
    for example in examples:
        assert example.pixels.shape == (72, 96, 3)
        assert example.heads.shape == (example.count, 2)
        assert example.sigma.shape == (example.count,)
        assert not example.fixed  # geometry-adaptive
        assert example.mask is None


def test_a_large_photograph_is_shrunk_with_its_heads_kernels_and_mask(
    part: Path, tmp_path: Path
) -> None:
    samples = [
        replace(one, mask=lambda h, w: np.broadcast_to(np.arange(w) >= w // 2, (h, w)))
        for one in read_shanghaitech(part, "train")[5:]
    ]
    files = [tmp_path / f"{n}.h5" for n in range(3)]
    prepare.prepare(samples, files[0], max_pixels=0)
    done = prepare.prepare(samples, files[1], max_pixels=72 * 96 // 4)
    prepare.prepare(samples, files[2], 4.0, max_pixels=72 * 96 // 4)
    assert done["shrunk"] == len(samples)
    for large, small, fixed in zip(*map(load_prepared, files)):
        assert large.pixels.shape == (72, 96, 3)
        assert small.pixels.shape == (36, 48, 3)
        assert small.count == large.count > 0
        assert (small.shrunk_to, large.shrunk_to) == (72 * 96 // 4, 0)
        np.testing.assert_allclose(small.heads, large.heads / 2, rtol=1e-6)
        wide = small.sigma > 1  # not widened to the least width
        assert wide.any()
        np.testing.assert_allclose(small.sigma[wide], large.sigma[wide] / 2, rtol=1e-5)
        assert set(fixed.sigma) == {2.0}
        assert small.mask is not None
        assert small.mask.shape == (36, 48)
        assert not small.mask[:, :24].any()
        assert small.mask[:, 24:].all()


def test_heads_move_with_a_photograph_whose_sides_do_not_shrink_alike(
    part: Path, tmp_path: Path
) -> None:
    """To whole pixels each."""
    samples = read_shanghaitech(part, "train")[5:]
    for name, pixels in (("large", 0), ("small", 1000)):
        prepare.prepare(samples, tmp_path / name, max_pixels=pixels)
    for large, small in zip(*(load_prepared(tmp_path / name) for name in ("large", "small"))):
        shares = np.divide(small.pixels.shape[:2], large.pixels.shape[:2])
        assert shares[0] != shares[1]
        np.testing.assert_allclose(small.heads, large.heads * shares[::-1], rtol=1e-6)


@pytest.mark.parametrize("pixels", ["-1", "1e6", "many"])
def test_a_limit_that_is_no_number_is_a_sentence(
    part: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], pixels: str
) -> None:
    with pytest.raises(SystemExit):
        prepare.main([str(part), str(tmp_path / "o.h5"), f"--max-pixels={pixels}"])
    assert "--max-pixels: must be a whole number of pixels" in capsys.readouterr().err


def test_excluded_images_are_not_there_and_a_misspelt_one_is_an_error(prepared: Path) -> None:
    assert "IMG_2" not in {example.name for example in load_prepared(prepared, ["IMG_2"])}
    with pytest.raises(DatasetError, match="IMG_02 to exclude: edit exclude in the recipe"):
        load_prepared(prepared, ["IMG_02"])
    with h5py.File(prepared, "r") as file:
        everyone = list(file["images"])
    with pytest.raises(DatasetError, match=r"Every photograph in .* is excluded by the recipe"):
        load_prepared(prepared, everyone)


def test_another_ground_truth_of_the_same_photographs_is_told_apart(prepared: Path) -> None:
    examples = load_prepared(prepared)
    same = fingerprint(examples)
    assert fingerprint(list(reversed(load_prepared(prepared)))) == same
    one = next(example for example in examples if example.count)
    rest = [example for example in examples if example is not one]
    for change in (
        {"sigma": one.sigma * 2},
        {"heads": one.heads + 0.5},
        {"fixed": not one.fixed},
        {"pixels": one.pixels[:-1]},
        {"name": "another"},
        {"scene": "a square"},
        {"mask": np.ones(one.pixels.shape[:2], bool)},
    ):
        assert fingerprint([replace(one, **change), *rest]) != same, change


def test_prepare_never_replaces_a_file_unasked(part: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.h5"
    out.write_text("mine")
    with pytest.raises(SystemExit):
        prepare.main([str(part), str(out)])
    with pytest.raises(SystemExit):  # such as annotations, OUT forgotten
        prepare.main([str(part), str(out), "--force"])
    assert out.read_text() == "mine"
    out.write_bytes(b"\x89HDF\r\n\x1a\n")
    assert prepare.main([str(part), str(out), "--force", "--sigma", "15"]) == 0
    assert set(load_prepared(out)[9].sigma) == {15.0}
    assert all(example.fixed for example in load_prepared(out))


def test_an_unreadable_photograph_is_named_and_leaves_no_file(part: Path, tmp_path: Path) -> None:
    samples = read_shanghaitech(part, "train")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"broken\.jpg"):
        prepare.prepare([*samples, replace(samples[0], name="b", path=broken)], tmp_path / "o.h5")
    assert not list(tmp_path.glob("o.h5*"))


def test_a_name_that_hdf5_cannot_hold_is_a_sentence(part: Path, tmp_path: Path) -> None:
    first, *rest = read_shanghaitech(part, "train")
    odd = replace(first, name="caf\udce9")  # a name in Latin-1, as Linux hands it out
    with pytest.raises(DatasetError, match="its name is not valid UTF-8; rename the file"):
        prepare.prepare([odd], tmp_path / "o.h5")
    bad: list[DatasetError] = []
    done = prepare.prepare([odd, *rest], tmp_path / "o.h5", bad=bad)
    assert (done["images"], len(bad)) == (len(rest), 1)


def test_a_photograph_that_memory_is_too_small_for_is_named_or_left_out_when_asked(
    part: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def shrinks(pixels: np.ndarray, scale: float) -> np.ndarray:
        if sizes.pop():
            return pixels[::2, ::2]
        raise MemoryError

    monkeypatch.setattr(prepare, "resized", shrinks)
    monkeypatch.setattr(prepare, "READERS", 0)  # one after another
    arguments = [str(part), str(tmp_path / "o.h5"), "--max-pixels", str(72 * 96 // 4)]
    sizes = [0]
    assert prepare.main(arguments) == 1
    assert "IMG_1.jpg: There is not enough memory for it" in capsys.readouterr().err
    assert not list(tmp_path.glob("o.h5*"))
    sizes = [1] * 8 + [0, 1]
    assert prepare.main([*arguments, "--skip-bad"]) == 0
    assert "left out: " in capsys.readouterr().err
    assert "IMG_2" not in {one.name for one in load_prepared(tmp_path / "o.h5")}


def test_prepare_that_is_stopped_says_so_and_leaves_no_file(
    part: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "write_example", stopped)
    assert prepare.main([str(part), str(tmp_path / "o.h5")]) == 130
    assert "prepare: stopped; nothing was written" in capsys.readouterr().err
    assert not list(tmp_path.glob("o.h5*"))


def test_a_prepared_file_that_the_disk_has_no_room_for_is_a_sentence(
    part: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("Can't decrement id ref count (file write failed)")

    monkeypatch.setattr(h5py.File, "close", full)
    assert prepare.main([str(part), str(tmp_path / "o.h5")]) == 1
    assert "o.h5 could not be written: Can't decrement" in capsys.readouterr().err
    assert not list(tmp_path.glob("o.h5*"))


def test_that_frames_of_one_camera_look_alike_is_said(
    part: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS["beijing-brt"](tmp_path / "brt")
    for number, folders in enumerate(([part], [part, tmp_path / "brt"])):
        assert prepare.main([*map(str, folders), str(tmp_path / f"{number}.h5")]) == 0
        said = "brt: frames of one camera look alike" in capsys.readouterr().err
        assert said == (len(folders) == 2)


def test_clips_of_one_camera_look_alike_though_whole_clips_are_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = FORMATS["ucsd"]
    clips = [
        Sample(f"{clip}_f001", tmp_path, lambda: np.zeros((0, 2)), scene=clip) for clip in "ab"
    ]
    assert gather._alike(kind, clips, "")
    assert not gather._alike(FORMATS["worldexpo"], clips, "")


def test_of_scenes_of_several_cameras_no_such_thing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS["worldexpo"](tmp_path / "expo")
    arguments = [str(tmp_path / "expo"), str(tmp_path / "o.h5"), "--split", "test", "--force"]
    assert prepare.main(arguments) == 0
    assert "expo: frames of one camera look alike" in capsys.readouterr().err
    for kind in ("frame", "label"):
        home = tmp_path / "expo" / f"test_{kind}"
        (home / "104207").rename(home / "200608")
    WRITERS["worldexpo"](tmp_path / "expo")
    for kind in ("frame", "label"):  # the second scene has frames of its own names
        for path in (tmp_path / "expo" / f"test_{kind}" / "200608").glob("104207*"):
            path.rename(path.with_name(path.name.replace("104207", "200608")))
    assert prepare.main(arguments) == 0
    assert "look alike" not in capsys.readouterr().err
    examples = load_prepared(tmp_path / "o.h5")
    assert [one.scene for one in examples] == ["104207"] * 2 + ["200608"] * 2
    train, held_out = split(examples, 1, seed=0)
    assert (len(train), len(held_out)) == (2, 1)
    assert {one.scene for one in train} != {one.scene for one in held_out}


def test_folds_of_photographs_are_no_scenes(tmp_path: Path) -> None:
    WRITERS["ucf-cc-50"](tmp_path / "ucf")
    assert prepare.main([str(tmp_path / "ucf"), str(tmp_path / "o.h5")]) == 0
    assert {one.scene for one in load_prepared(tmp_path / "o.h5")} == {""}


def test_a_second_prepare_of_the_same_file_leaves_the_first_one_whole(
    part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seconds = tmp_path / "one.h5", []
    command = [sys.executable, "-m", "train.prepare", str(part), str(out)]

    def written(file: h5py.File, example: Example) -> None:
        write_example(file, example)
        file.flush()
        if not seconds:
            seconds.append(subprocess.run(command, capture_output=True, text=True, check=False))

    (tmp_path / "one.h5.partial").write_bytes(b"left by a killed one")
    write_example = prepare.write_example
    monkeypatch.setattr(prepare, "write_example", written)
    assert prepare.main([str(part), str(out)]) == 0
    assert seconds[0].returncode == 1
    assert "Another train.prepare is writing" in seconds[0].stderr
    assert all(one.pixels.any() for one in load_prepared(out))
    assert [path.name for path in tmp_path.iterdir()] == ["one.h5"]


def test_prepare_names_what_is_wrong_with_the_folder(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert prepare.main([str(tmp_path), str(tmp_path / "o.h5")]) == 1
    assert "none of the formats" in capsys.readouterr().err


def test_several_data_sets_go_into_one_file_each_with_its_own_kernel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_part(tmp_path / "part_A", [2, 3])
    second = write_part(tmp_path / "part_B", [4])
    out = tmp_path / "both.h5"
    assert prepare.main([str(first), str(second), str(out)]) == 0
    examples = {example.name: example for example in load_prepared(out)}
    assert set(examples) == {"part_A-IMG_1", "part_A-IMG_2", "part_B-IMG_1"}
    assert [one.part for one in examples.values()] == ["part_A", "part_A", "part_B"]
    assert set(examples["part_B-IMG_1"].sigma) == {15.0}
    assert len(set(examples["part_A-IMG_2"].sigma)) > 1
    arguments = [str(first), str(second), str(out), "--force", "--sigma"]
    assert prepare.main([*arguments, "4"]) == 0
    assert {width for one in load_prepared(out) for width in one.sigma} == {4.0}
    assert prepare.main([*arguments, "adaptive"]) == 0
    assert all(15.0 not in one.sigma for one in load_prepared(out))
    assert prepare.main([*arguments, "4", "--sigma", "paper"]) == 0
    widths = {one.name: set(one.sigma) for one in load_prepared(out)}
    assert (widths["part_A-IMG_2"], widths["part_B-IMG_1"]) == ({4.0}, {15.0})
    assert prepare.main([*arguments, "4", *["--sigma", "9"] * 2]) == 1
    assert "3 kernel widths for 2 folders" in capsys.readouterr().err


def test_a_test_split_is_never_prepared_unasked(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    part = write_part(tmp_path / "part_A", [1])
    (part / "train_data").rename(part / "test_data")
    out = tmp_path / "o.h5"
    assert prepare.main([str(part), str(out)]) == 1
    assert "no split train; choose test with --split" in capsys.readouterr().err
    assert prepare.main([str(part), str(out), "--split", "test"]) == 0


def test_folders_of_one_name_are_parts_of_their_own(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    homes = ("2023/part_A", "2024/part_A", "more/2024/part_A", "part_B")
    old, new, other, rest = (write_part(tmp_path / home, [1]) for home in homes)
    out = tmp_path / "all.h5"
    assert prepare.main([*map(str, (old, new, rest)), str(out)]) == 0
    parts = {one.name: one.part for one in load_prepared(out)}
    assert parts == {
        "2023-part_A-IMG_1": "2023-part_A",
        "2024-part_A-IMG_1": "2024-part_A",
        "part_B-IMG_1": "part_B",
    }
    out.unlink()
    for twice in ((new, other), (rest, rest)):
        assert prepare.main([*map(str, twice), str(out)]) == 1
        assert "give each folder once, or rename one" in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.parametrize("sigma", ["0", "-1", "wide", "nan", "inf", "1e20", "1e-50"])
def test_a_kernel_width_that_is_none_is_refused(part: Path, tmp_path: Path, sigma: str) -> None:
    with pytest.raises(SystemExit):
        prepare.main([str(part), str(tmp_path / "o.h5"), "--sigma", sigma])


@pytest.mark.parametrize("command", ["prepare", "fit", "ablate"])
def test_without_the_extra_the_command_to_install_it_is_told(command: str) -> None:
    run = f"sys.modules['h5py'] = None; runpy.run_module('train.{command}', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", f"import runpy, sys; {run}"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("train: h5py is not installed")
    assert 'pip install -e ".[train]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_any_format_can_be_prepared(tmp_path: Path, name: str) -> None:
    split = WRITERS[name](tmp_path / "data")
    out = tmp_path / "o.h5"
    assert prepare.main([str(tmp_path / "data"), str(out), "--split", split]) == 0
    first, second = sorted(load_prepared(out), key=lambda example: -example.count)
    masked = {"ucsd": 1, "trancos": 1}.get(name, 2)
    assert (first.count, second.count) == (masked, 0)
    assert len(first.heads) == first.count
    fixed = {"ucsd": 3.0, "worldexpo": 3.0, "trancos": 10.0}
    if name in fixed:
        assert set(first.sigma) == {fixed[name]}


def test_a_region_of_interest_is_stored_and_heads_outside_it_are_not(tmp_path: Path) -> None:
    WRITERS["trancos"](tmp_path / "data")
    out = tmp_path / "o.h5"
    assert prepare.main([str(tmp_path / "data"), str(out)]) == 0
    with h5py.File(out) as file:
        masks = {name: file[f"mask/{name}"][()] for name in file["mask"]}
        first = file["heads/image-1-000001"]
        assert first[()].tolist() == [[10.5, 20.25]]
        assert first.attrs["annotated"] == 1
    assert set(masks) == {"image-1-000001", "image-1-000002"}
    assert masks["image-1-000001"].dtype == bool
    assert masks["image-1-000001"].shape == (48, 64)
    assert not masks["image-1-000001"][:10].any()
    assert masks["image-1-000001"][10:].all()


def test_heads_outside_the_frame_are_dropped_counted_and_named(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    part = write_part(tmp_path / "part_A", [1, 2])
    write_heads(part / "train_data/ground-truth/GT_IMG_2.mat", np.array([[-5, 3], [9, 9]]))
    assert prepare.main([str(part), str(tmp_path / "o.h5")]) == 0
    out, err = capsys.readouterr()
    assert "(1 outside the frame were dropped)" in out
    assert "outside the frame: IMG_2" in err
    (second,) = [one for one in load_prepared(tmp_path / "o.h5") if one.name == "IMG_2"]
    assert (second.count, len(second.heads)) == (2, 1)


def test_photographs_that_no_annotation_lists_are_named(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("a", "b", "c", "d"):
        Image.new("RGB", (64, 48)).save(folder / f"{name}.jpg")
    (folder / "heads.csv").write_text("image,x,y\na.jpg,3,4\nb.jpg,,\n", encoding="utf-8")
    assert prepare.main([str(folder), str(tmp_path / "o.h5")]) == 0
    out, err = capsys.readouterr()
    assert "2 images, 1 heads" in out
    assert "left out, because no annotation of this format mentions them: c.jpg, d.jpg" in err
    assert "as containing no people (leave out any not annotated yet): b\n" in err
    for name in ("c", "d"):
        (folder / f"{name}.jpg").unlink()
    assert prepare.main([str(folder), str(tmp_path / "o.h5"), "--force"]) == 0
    assert "left out" not in capsys.readouterr().err


def test_folders_of_one_name_are_told_apart_in_what_is_said_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for year in ("2023", "2024"):
        folder = tmp_path / year / "photos"
        WRITERS["csv"](folder)
        Image.new("RGB", (64, 48)).save(folder / "more.jpg")
        WRITERS["beijing-brt"](tmp_path / year / "brt")
    photos = [str(tmp_path / year / "photos") for year in ("2023", "2024")]
    assert prepare.main([*photos, str(tmp_path / "photos.h5")]) == 0
    assert "mentions them: 2023-photos/more.jpg, 2024-photos/more.jpg\n" in capsys.readouterr().err
    films = [str(tmp_path / year / "brt") for year in ("2023", "2024")]
    assert prepare.main([*films, str(tmp_path / "films.h5")]) == 0
    assert "prepare: 2023-brt, 2024-brt: frames of one camera" in capsys.readouterr().err
    monkeypatch.chdir(films[0])
    assert prepare.main([".", str(tmp_path / "film.h5")]) == 0
    assert "prepare: brt: frames of one camera" in capsys.readouterr().err


def test_of_many_photographs_with_heads_outside_the_frame_the_first_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(22):
        Image.new("RGB", (64, 48)).save(tmp_path / f"{i:02}.jpg")
    rows = "".join(f"{i:02}.jpg,90,4\n" for i in range(22))
    (tmp_path / "heads.csv").write_text(f"image,x,y\n{rows}", encoding="utf-8")
    assert prepare.main([str(tmp_path), str(tmp_path / "o.h5")]) == 0
    said = capsys.readouterr().err
    assert "heads outside the frame: 00, 01, " in said
    assert "18, 19 and 2 more\n" in said


def test_bad_files_stop_the_preparation_unless_they_are_to_be_skipped(
    tmp_path: Path, capsys
) -> None:  # type: ignore[no-untyped-def]
    part = write_part(tmp_path / "part_A", [1, 2, 3])
    (part / "train_data/ground-truth/GT_IMG_1.mat").write_bytes(b"")
    (part / "train_data/images/IMG_2.jpg").write_bytes(b"")
    out = tmp_path / "o.h5"
    assert prepare.main([str(part), str(out)]) == 1
    assert "GT_IMG_1.mat" in capsys.readouterr().err
    assert not list(tmp_path.glob("o.h5*"))
    assert prepare.main([str(part), str(out), "--skip-bad"]) == 0
    err = capsys.readouterr().err
    assert "left out: " in err
    assert "GT_IMG_1.mat" in err
    assert "IMG_2.jpg" in err
    assert [example.name for example in load_prepared(out)] == ["IMG_3"]
    (part / "train_data/images/IMG_3.jpg").write_bytes(b"")
    assert prepare.main([str(part), str(out), "--skip-bad", "--force"]) == 1
    err = capsys.readouterr().err
    assert "nothing was written" in err
    assert "IMG_3.jpg" in err
    assert [example.name for example in load_prepared(out)] == ["IMG_3"]


def _broken(*_: object) -> Example:
    raise RuntimeError("bad symbol table node signature")


def test_a_file_that_is_not_prepared_or_damaged_is_refused(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.h5").write_bytes(b"nonsense")
    with pytest.raises(DatasetError, match="cannot be read"):
        load_prepared(tmp_path / "a.h5")
    monkeypatch.setattr("train.data._read_example", _broken)
    with pytest.raises(DatasetError, match="bad symbol table"):  # as h5py has it
        load_prepared(prepared)
    with h5py.File(tmp_path / "b.h5", "w"):
        pass
    with pytest.raises(DatasetError, match="prepare it again"):
        load_prepared(tmp_path / "b.h5")
    with pytest.raises(DatasetError, match="no prepared file"):
        load_prepared(tmp_path / "c.h5")


# split


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
    assert [e.name for e in held_out] != [
        e.name for e in split(examples, 20, seed=2, train_only=["IMG_7"])[1]
    ]
    assert len(held_out) == 20
    assert len(train) == 80
    assert not {e.name for e in train} & {e.name for e in held_out}
    assert "IMG_7" in {e.name for e in train}
    counts = sorted(e.count for e in held_out)
    assert all(abs(count - 5 * i) <= 6 for i, count in enumerate(counts))


def test_each_part_of_a_file_of_several_is_split_as_it_would_be_alone() -> None:
    first = [replace(example(i, f"a-{i:02}"), part="a") for i in range(30)]
    second = [replace(example(2 * i, f"b-{i:02}"), part="b") for i in range(20)]
    held_out = {e.name for e in split(first + second, 5, seed=3)[1]}
    alone = [{e.name for e in split(part, 5, seed=3)[1]} for part in (first, second)]
    assert held_out == alone[0] | alone[1]
    with pytest.raises(DatasetError, match="25 validation images cannot be drawn from 20 of b"):
        split(first + second, 25, seed=3)


def frames(scenes: dict[str, list[int]]) -> list[Example]:
    return [
        replace(example(count, f"{scene}-{i}"), scene=scene)
        for scene, counts in scenes.items()
        for i, count in enumerate(counts)
    ]


def test_whole_scenes_are_held_out_each_by_its_frame_of_median_count() -> None:
    film = frames({f"s{i:02}": [10 * i + 5, 10 * i, 10 * i + 9] for i in range(20)})
    photographs = [example(10 * i + 5, f"s{i:02}-0") for i in range(20)]
    train, held_out = split(film, 4, seed=1)
    assert [one.name for one in held_out] == [one.name for one in split(photographs, 4, seed=1)[1]]
    assert len(train) == 3 * (20 - 4)  # the other frames of a scene are used for neither
    assert not {one.scene for one in train} & {one.scene for one in held_out}
    for seed in range(3):
        barred = split(film, 18, seed=seed, train_only=["s03-2"])[0]
        assert "s03" in {one.scene for one in barred}


def test_without_scenes_the_split_is_what_it_always_was() -> None:
    names = ["IMG_13", "IMG_16", "IMG_19", "IMG_23", "IMG_29"]
    examples = [example(i * i % 41, f"IMG_{i}") for i in range(30)]
    assert sorted(one.name for one in split(examples, 5, seed=7)[1]) == names
    one_scene = [replace(one, scene="square") for one in examples]
    assert sorted(one.name for one in split(one_scene, 5, seed=7)[1]) == names


def test_too_few_scenes_for_the_split_is_a_sentence() -> None:
    film = frames({"a": [1, 2, 3], "b": [4, 5]})
    with pytest.raises(DatasetError, match="3 validation images cannot be drawn from 2 scenes"):
        split(film, 3, seed=0)
    with pytest.raises(DatasetError, match="too few scenes: at least two are needed"):
        split(film, 1, seed=0, train_only=["a-0"])


def test_too_few_images_for_the_split_is_a_sentence() -> None:
    with pytest.raises(DatasetError, match="at least two are needed"):
        split([example(1, "alone")], 1, seed=0)
    with pytest.raises(DatasetError, match="cannot be drawn from 3"):
        split([example(i, str(i)) for i in range(3)], 3, seed=0)


# recipes


@pytest.mark.parametrize(
    ("old", "new", "trouble"),
    [
        ("steps =", "stpes =", "lacks steps"),
        ("seed = 0", "seed = 0\ncolour = 1", "unknown entries: colour"),
        ("batch = 2", 'batch = "two"', "batch must be of type int"),
        ("batch = 2", "batch = 0", "at least 1"),
        ("crop = 256", "crop = 250", "multiple of 8"),
        ("crop = 256", "crop = 32", "at least 64"),
        ("scale = [0.7, 1.4]", "scale = [1.0]", "scale must be two numbers"),
        ("scale = [0.7, 1.4]", "scale = [0.0, 1.0]", "scale must be two numbers"),
        ("scale = [0.7, 1.4]", "scale = [0.5, inf]", "scale must be two numbers"),
        ("scale = [0.7, 1.4]", "scale = [10.0, 1000.0]", "scale must lie between 1/16 and 16"),
        ("seed = 0", "seed = ", "not valid TOML"),
        ("seed = 0", "seed = -1", "seed must be at least 0"),
        ("empty = 0.05", "empty = 5", "empty must lie between 0 and 1"),
        ("worse = 0.0", "worse = 30", "worse must lie between 0 and 1"),
        ("cooldown = 0.5", "cooldown = 50", "cooldown must lie between 0 and 1"),
        ("lr_backend = 5e-5", "lr_backend = -1.0", "lr_backend must be at least 0 and below"),
        ("lr_backend = 5e-5", "lr_backend = 1e300", "lr_backend must be at least 0 and below"),
        ("lr_backend = 5e-5", "lr_backend = nan", "lr_backend must be at least 0 and below"),
        ("backend_first = 0", "backend_first = 1850", "backend_first must be below steps"),
        ("seed = 0", "seed = 0\nborder = 0", "unknown entries: border"),
        ("density_scale = 10.0", "density_scale = 0.0", "density_scale must be a number above 0"),
        ("repeat = {}", "repeat = { part_A = 0 }", "repeat must be whole and at least 1"),
        ("train_only = [", "train_only = [1, ", "train_only must be names in quotes"),
        ("repeat = {}", "repeat = 2", "repeat must be of type dict"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(tmp_path: Path, old: str, new: str, trouble: str) -> None:
    text = RECIPE.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "r.toml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(RecipeError, match=trouble):
        read_recipe(tmp_path / "r.toml")


@pytest.mark.parametrize(
    "change",
    [
        *({"batch": 2}, {"empty": 0.1}, {"worse": 0.1}, {"repeat": {"b": 2}}),
        *({"grey": 0.1}, {"light": 0.1}),
    ],
)
def test_quarters_are_as_the_paper_has_them(change: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="needs batch = 1, empty = 0"):
        read_recipe(RECIPES / "partA_paper.toml", **change)


def test_crops_whose_border_the_pyramid_loss_would_leave_out_are_refused() -> None:
    reads = []
    for crop in range(64, 400, 8):
        with suppress(RecipeError):
            reads.append(read_recipe(RECIPE, crop=crop).crop)
        predicted = torch.ones(1, 1, crop // 8, crop // 8, requires_grad=True)
        pyramid_loss(predicted, torch.zeros_like(predicted)).backward()  # type: ignore[no-untyped-call]
        assert predicted.grad is not None
        assert (predicted.grad.std().item() < 1e-4) == (crop in reads), crop
    assert reads == [64, 128, 256, 384]


QUARTERS = {"crops": "quarters", "batch": 1, "empty": 0.0, "grey": 0.0, "light": 0.0}


@pytest.mark.parametrize(
    ("change", "trouble"),
    [
        ({"crop": 320}, "the pyramid loss needs crop = 64 or a multiple of 128"),
        (QUARTERS, "cannot be used with the pyramid loss"),
        ({"crop": 320, "loss": "bayesian"}, None),
        ({**QUARTERS, "loss": "bayesian"}, None),
    ],
)
def test_only_the_pyramid_loss_asks_for_sides_that_its_blocks_fill(
    change: dict[str, object], trouble: str | None
) -> None:
    with pytest.raises(RecipeError, match=trouble) if trouble else nullcontext():
        read_recipe(RECIPE, **change)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_recipe_may_be_saved_as_windows_saves_text(tmp_path: Path, encoding: str) -> None:
    text = RECIPE.read_text(encoding="utf-8").replace("\n", "\r\n")
    (tmp_path / "r.toml").write_bytes(text.encode(encoding))
    assert read_recipe(tmp_path / "r.toml") == read_recipe(RECIPE)


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml cannot be read"):
        read_recipe(tmp_path / "none.toml")


def test_every_recipe_reads_and_those_of_part_a_leave_out_the_images_of_its_test_split() -> None:
    for file in RECIPES.glob("*.toml"):
        names = {name.removeprefix("part_A-") for name in read_recipe(file).exclude}
        left_out = {name for name in names if not name.startswith("part_B-")}
        if not file.stem.startswith(("own", "partB")):
            assert left_out == {f"IMG_{n}" for n in (2, 60, 97, 121, 139, 154)}, file.name
