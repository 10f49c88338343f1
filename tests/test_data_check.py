"""What `csrnet data check` promises to find, and not to find."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context
from PIL import Image
from scipy.io import savemat

from csrnet_hub.cli import main
from csrnet_hub.datasets.check import as_text, check, save_histograms
from csrnet_hub.datasets.pairs import same_pictures, thumbnail
from tests.empty_scenes import empty_scenes
from tests.test_datasets import write_heads, write_part

PART_A = Path(__file__).parents[2] / "shared" / "data" / "ShanghaiTech" / "part_A"


def picture(seed: int) -> np.ndarray:
    """A grey picture (120, 160, 3) of blobs of every size, as photographs have them."""
    rng = np.random.default_rng(seed)
    total = np.zeros((120, 160))
    for side in (2, 4, 8, 16, 32, 64):
        small = rng.random((-(-120 // side) + 1, -(-160 // side) + 1))
        total += np.asarray(Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC))
    return np.repeat((total * 255 / total.max()).clip(0, 255).astype("u1")[..., None], 3, axis=2)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """Four pictures of a ShanghaiTech part with every trouble that can be found in one."""
    part = write_part(tmp_path / "part_A", [3, 4, 5, 0])
    images, heads = part / "train_data" / "images", part / "train_data" / "ground-truth"
    write_heads(heads / "GT_IMG_1.mat", np.array([[5, 5], [5, 5], [7, 7], [5, 5]]))
    write_heads(heads / "GT_IMG_2.mat", np.array([[5, 5], [-1, 5], [96, 5], [5, 72], [95, 71]]))
    Image.open(images / "IMG_3.jpg").convert("L").save(images / "IMG_3.jpg")
    return part


def test_a_sound_data_set_has_no_findings(tmp_path: Path) -> None:
    report = check(write_part(tmp_path / "part_A", [3, 10, 0]))
    assert report["findings"] == 0
    assert (report["format"], report["images"], report["heads"]) == ("shanghaitech", 3, 13)
    assert report["empty"] == ["train/IMG_3"]
    train = report["splits"]["train"]
    assert train["count"] == {"min": 0, "median": 3.0, "max": 10}
    assert (train["width"], train["height"]) == ([96, 96], [72, 72])
    assert "nothing to fix" in as_text(report)


def test_duplicates_heads_outside_grey_and_empty_images_are_found(part: Path) -> None:
    report = check(part)
    assert report["duplicates"] == [{"image": "train/IMG_1", "points": 3}]
    assert report["outside"] == [{"image": "train/IMG_2", "heads": 3}]
    assert report["greyscale"] == ["train/IMG_3"]
    assert report["empty"] == ["train/IMG_4"]
    assert report["same"] == []
    assert report["findings"] == 2


def test_files_that_cannot_be_read_are_listed_and_the_rest_is_checked(part: Path) -> None:
    (part / "train_data" / "images" / "IMG_1.jpg").write_bytes(b"no picture")
    (part / "train_data" / "ground-truth" / "GT_IMG_2.mat").write_bytes(b"no matlab")
    report = check(part)
    assert report["images"] == 2
    troubles = [f"{entry['file']} {entry['trouble']}" for entry in report["unreadable"]]
    assert any("IMG_1.jpg" in trouble for trouble in troubles)
    assert any("GT_IMG_2.mat" in trouble for trouble in troubles)
    assert len(troubles) == 2


def test_nothing_but_bad_files_is_still_a_report(part: Path) -> None:
    for path in (part / "train_data" / "images").glob("*.jpg"):
        path.write_bytes(b"")
    report = check(part)
    assert (report["images"], len(report["unreadable"])) == (0, 4)
    assert "4 cannot be read" in as_text(report)


def save(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(pixels).save(path, quality=75)


@pytest.mark.parametrize("change", ["none", "smaller", "cropped", "recompressed", "brighter"])
def test_the_same_picture_is_found_within_and_across_splits(tmp_path: Path, change: str) -> None:
    part = write_part(tmp_path / "p", [1, 2, 3])
    (tmp_path / "q").mkdir()
    write_part(tmp_path / "q" / "p", [1, 2])
    (tmp_path / "q" / "p" / "train_data").rename(part / "test_data")
    original = picture(7)
    image = Image.fromarray(original)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=20)
    changed = {
        "none": image,
        "smaller": image.resize((101, 74)),
        "cropped": image.crop((3, 2, 158, 119)),
        "recompressed": Image.open(buffer),
        "brighter": image.point(lambda value: min(255, value * 1.2 + 10)),
    }[change]
    save(original, part / "train_data" / "images" / "IMG_1.jpg")
    save(np.asarray(changed), part / "train_data" / "images" / "IMG_3.jpg")
    save(np.asarray(changed), part / "test_data" / "images" / "IMG_2.jpg")
    for seed, name in ((1, "train_data/images/IMG_2"), (2, "test_data/images/IMG_1")):
        save(picture(seed), part / f"{name}.jpg")
    report = check(part)
    (same,) = report["same"]
    assert same["images"] == ["train/IMG_1", "train/IMG_3", "test/IMG_2"]
    assert same["heads"] == [1, 3, 2]
    assert same["across_splits"]
    assert same["equal"] == (change == "none")
    assert (same["likeness"] == 1) == (change == "none")
    assert "train/IMG_1, train/IMG_3 and test/IMG_2 (" in as_text(report)


def test_one_picture_many_times_is_one_group_of_which_a_few_are_shown(tmp_path: Path) -> None:
    part = write_part(tmp_path / "p", [1] * 30)
    for number in range(1, 31):
        pixels = picture(1 if number < 26 else number // 28 + 2)
        save(pixels, part / "train_data" / "images" / f"IMG_{number}.jpg")
    report = check(part)
    assert [(len(group["images"]), group["equal"]) for group in report["same"]] == [
        (25, True),
        (2, True),
        (3, True),
    ]
    assert "train/IMG_20 and 5 more (equal; 1, 1" in as_text(report)


def test_many_alike_are_grouped_without_comparing_each_two(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    base = rng.integers(9, 240, (64, 64))
    alike = [(base + rng.integers(0, 9, (64, 64))).astype(np.uint8) for _ in range(60)]
    others = [rng.integers(0, 255, (64, 64)).astype(np.uint8) for _ in range(3)]
    transforms = []
    real = np.fft.irfft2
    monkeypatch.setattr(np.fft, "irfft2", lambda spectrum: transforms.append(1) or real(spectrum))
    ((group, score),) = same_pictures([*others[:2], *alike, others[2]])
    assert group == list(range(2, 62))
    assert 0.5 <= score <= 1
    assert len(transforms) < 120


def test_different_pictures_are_no_pair() -> None:
    scenes = [
        thumbnail(pixels)
        for seed in range(6)
        for name, pixels in empty_scenes(seed, 160, 120)
        if not name.startswith(("blank", "pattern"))  # which are nearly the same for each seed
    ]
    assert same_pictures(scenes) == []


def test_blank_pictures_are_equal_only_when_they_are() -> None:
    blank = [np.full((64, 64), value, np.uint8) for value in (0, 128, 128)]
    assert same_pictures(blank) == []
    assert same_pictures([]) == []
    specks = blank[1].copy()
    specks[20, 20:28] += 2  # what a compression leaves
    assert same_pictures([specks, specks + 9]) == []


def test_neighbouring_frames_of_a_fixed_camera_are_no_findings(tmp_path: Path) -> None:
    frames = tmp_path / "train" / "frame"
    frames.mkdir(parents=True)
    (tmp_path / "train" / "ground_truth").mkdir()
    background = picture(1)
    for number in range(3):
        pixels = background.copy()
        pixels[50:60, 20 * number : 20 * number + 10] = 255
        Image.fromarray(pixels).save(frames / f"{number}.jpg")
        savemat(tmp_path / "train" / "ground_truth" / f"{number}.mat", {"loc": [[1.0, 2.0]]})
    assert check(tmp_path, "beijing-brt")["same"] == []


def test_pictures_that_no_annotation_lists_are_named(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        save(picture(len(name)), tmp_path / name)
    (tmp_path / "c.jpg").symlink_to("c.jpg")  # a circle
    (tmp_path / "heads.csv").write_text("image,x,y\na.jpg,1,1\ngone.jpg,1,1\n")
    report = check(tmp_path)
    assert report["not_annotated"] == ["b.jpg", "c.jpg"]
    assert [entry["file"] for entry in report["unreadable"]] == ["gone.jpg"]


# the command


def test_the_command_reports_in_words_and_exits_1_for_findings(
    part: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(part)]) == 1
    out = capsys.readouterr().out
    assert "4 images, 14 heads" in out
    assert "3 points lie exactly on another, in 1 images\n    train/IMG_1: 3" in out
    assert "2 findings" in out
    assert not list(part.parent.glob("*.png"))


def test_json_is_one_object_and_the_histograms_go_where_they_are_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part, plot = write_part(tmp_path / "part_A", [3, 1]), tmp_path / "sizes.png"
    assert main(["data", "check", str(part), "--json", "--plot", str(plot)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["findings"], report["counts"]) == (2, 0, [3, 1])
    with Image.open(plot) as drawn:
        assert drawn.format == "PNG"
        assert np.asarray(drawn.convert("L")).std() > 10


def test_histograms_never_replace_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = write_part(tmp_path / "part_A", [3])
    (tmp_path / "photo.png").write_bytes(b"mine")
    for plot in ("photo.png", "heads.csv", "no/sizes.png"):
        assert main(["data", "check", str(part), "--plot", str(tmp_path / plot)]) == 2
        out, err = capsys.readouterr()
        assert (out, "--plot" in err) == ("", True)
    assert (tmp_path / "photo.png").read_bytes() == b"mine"


def test_a_report_of_nothing_can_be_drawn(tmp_path: Path) -> None:
    report = {"images": 0, "format": "csv", "subject": "people", "sizes": [], "counts": []}
    save_histograms(report, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size


def test_histograms_want_no_latex(tmp_path: Path) -> None:
    report = {"images": 1, "format": "csv", "subject": "people", "sizes": [[9, 9]], "counts": [3]}
    with rc_context({"text.usetex": True}):  # in a user's matplotlibrc
        save_histograms(report, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size


@pytest.mark.parametrize("arguments", [["gone"], [".", "--format", "voc"], ["."]])
def test_what_cannot_be_checked_exits_2_with_a_sentence(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("csrnet: ")
    assert "Traceback" not in err


# pictures without people


def test_empty_scenes_are_seeded_and_of_the_size_asked_for() -> None:
    first, again, other = empty_scenes(1, 90, 70), empty_scenes(1, 90, 70), empty_scenes(2, 90, 70)
    assert len({name for name, _ in first}) == len(first) >= 12
    kinds = {name.split("-")[0] for name, _ in first}
    assert kinds == {"blank", "noise", "text", "landscape", "pattern"}
    for (_, pixels), (_, same) in zip(first, again):
        assert pixels.shape == (70, 90, 3)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, same)
    assert sum(not np.array_equal(a, b) for (_, a), (_, b) in zip(first, other)) >= 10


# the real files


@pytest.mark.skipif(not PART_A.is_dir(), reason="ShanghaiTech is not here")
def test_what_is_known_of_part_a_is_found_and_nothing_false() -> None:
    report = check(PART_A)
    assert (report["images"], report["heads"]) == (300, 162_413)
    numbers = {4, 13, 17, 35, 40, 106, 130, 153, 205, 213, 298}
    assert report["greyscale"] == [f"train/IMG_{number}" for number in sorted(numbers)]
    assert sum(entry["points"] for entry in report["duplicates"]) == 124
    assert report["unreadable"] == report["outside"] == report["empty"] == []
    # 118 and 283 are two crops of one photograph of a crowd, which is seen when they are laid
    # over each other
    assert [group["images"] for group in report["same"]] == [
        ["train/IMG_118", "train/IMG_283"],
        ["train/IMG_167", "train/IMG_169"],
    ]


def test_a_head_marked_twice_and_a_picture_that_is_there_twice_are_findings(tmp_path: Path) -> None:
    part = write_part(tmp_path / "part_A", [3, 4])
    images, heads = part / "train_data" / "images", part / "train_data" / "ground-truth"
    write_heads(heads / "GT_IMG_1.mat", np.array([[5, 5], [5, 5], [9, 9]]))
    (images / "IMG_2.jpg").write_bytes((images / "IMG_1.jpg").read_bytes())
    report = check(part)
    assert report["duplicates"] == [{"image": "train/IMG_1", "points": 2}]
    assert report["findings"] == 2
