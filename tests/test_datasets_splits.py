"""Splits and sizes of photographs of one's own: nothing of a test set is trained on unnoticed, and
no head lands where nobody stands."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from csrnet_hub.datasets import DatasetError, find_splits, read_dataset, tables
from csrnet_hub.datasets.check import check, not_annotated
from csrnet_hub.datasets.registry import paper_sigma
from csrnet_hub.datasets.sample import Sample, Stated, stated
from tests.test_datasets_formats import SIZE, photo, text
from train.gather import gather


def table(path: Path, *rows: str) -> None:
    text(path, "\n".join(["image,x,y", *(f"{row},1,2" for row in rows)]))


def coco(path: Path, name: str, width: int = SIZE[0], height: int = SIZE[1]) -> None:
    image = {"id": 1, "file_name": name, "width": width, "height": height}
    annotations = [{"image_id": 1, "category_id": 1, "bbox": [30, 22, 4, 4]}]
    text(path, json.dumps({"images": [image], "annotations": annotations}))


def paths(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for sample in read_dataset(folder):
        found.setdefault(sample.split, []).append(sample.path.relative_to(folder).as_posix())
    return found


def test_a_table_of_no_split_beside_those_of_two_is_refused(tmp_path: Path) -> None:
    for name in ("train", "test"):
        table(tmp_path / f"{name}.csv", f"{name}.jpg")
    assert find_splits(tmp_path) == ["train", "test"]
    table(tmp_path / "more.csv", "more.jpg")
    with pytest.raises(DatasetError, match=r"more\.csv lies beside the splits train and test"):
        find_splits(tmp_path)
    (tmp_path / "train.csv").unlink()  # which part of what is left is for training?
    with pytest.raises(DatasetError, match=r"more\.csv lies beside the split test, but"):
        find_splits(tmp_path)
    (tmp_path / "more.csv").unlink()
    assert find_splits(tmp_path) == ["test"]
    (tmp_path / "test.csv").replace(tmp_path / "train.csv")
    assert find_splits(tmp_path) == ["all"]
    table(tmp_path / "minival.csv", "more.jpg")  # held out by a name that is not known
    with pytest.raises(DatasetError, match=r"minival\.csv lies beside the split train, but"):
        find_splits(tmp_path)


@pytest.mark.parametrize("name", ["testset", "test_images", "Test-Data", "images-test"])
def test_a_word_for_pictures_hides_no_split(tmp_path: Path, name: str) -> None:
    files = [photo(tmp_path / home / f"{home}.jpg") for home in ("train", name)]
    splits = {"train": ["train/train.jpg"], "test": [f"{name}/{name}.jpg"]}
    table(tmp_path / "heads.csv", *(file.name for file in files))
    assert paths(tmp_path) == splits
    (tmp_path / "heads.csv").unlink()
    for file in files:
        table(file.with_suffix(".csv"), file.name)
    assert paths(tmp_path) == splits
    for file in files:
        file.with_suffix(".csv").replace(tmp_path / f"{file.stem}_{file.stem}.csv")
    assert paths(tmp_path) == splits


HELD_OUT = ["eval", "Evaluation", "dev", "holdout", "Hold-out", "hold_out"]


@pytest.mark.parametrize("name", HELD_OUT)
@pytest.mark.parametrize("layout", ["files", "folders", "one file"])
def test_what_is_held_out_is_not_trained_on_by_whatever_name(
    tmp_path: Path, name: str, layout: str
) -> None:
    files = [photo(tmp_path / home / f"{home}.jpg") for home in ("train", name)]
    if layout == "files":
        for file in files:
            table(tmp_path / f"heads_{file.stem}2.csv", file.name)
    elif layout == "folders":
        for file in files:
            table(file.with_name("heads.csv"), file.name)
    else:
        table(tmp_path / "heads.csv", *(file.name for file in files))
    held = f"{name}/{name}.jpg"
    assert paths(tmp_path) == {"train": ["train/train.jpg"], "val": [held]}
    samples, *_ = gather([tmp_path])
    assert [sample.name for sample in samples] == ["train"]


def test_words_in_which_the_name_of_a_split_only_begins_are_none(tmp_path: Path) -> None:
    table(tmp_path / "devices.csv", "a.jpg")
    table(tmp_path / "household out.csv", "b.jpg")
    table(tmp_path / "evaluated.csv", "c.jpg")
    assert find_splits(tmp_path) == ["all"]


def test_a_photograph_in_two_splits_is_a_finding(tmp_path: Path) -> None:
    for name in "abc":
        photo(tmp_path / f"{name}.jpg")
    table(tmp_path / "train.csv", "a.jpg", "b.jpg")
    table(tmp_path / "val.csv", "b.jpg", "b.jpg", "c.jpg")
    report = check(tmp_path)
    assert report["images"] == 3
    (trouble,) = report["unreadable"]
    assert "b.jpg is in two splits, train and val" in trouble["trouble"]
    with pytest.raises(DatasetError, match="in two splits"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("names", ["the same", "their own"])
def test_photographs_are_those_of_their_splits_folder(tmp_path: Path, names: str) -> None:
    for split in ("train", "val"):
        name = "0001.jpg" if names == "the same" else f"{split}.jpg"
        photo(tmp_path / "images" / split / name)
        coco(tmp_path / "annotations" / f"instances_{split}.json", name)
    folders = {split: files[0].split("/")[1] for split, files in paths(tmp_path).items()}
    assert folders == {"train": "train", "val": "val"}


def test_no_split_borrows_photographs_of_another(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "train" / "0001.jpg")
    for split in ("train", "val"):
        coco(tmp_path / "annotations" / f"instances_{split}.json", "0001.jpg")
    (sample,) = read_dataset(tmp_path, split="val")
    assert not sample.path.exists()
    assert read_dataset(tmp_path, split="train")[0].path.is_file()


def test_cocos_annotations_alone_find_the_folder_beside_theirs(tmp_path: Path) -> None:
    photo(tmp_path / "val2017" / "0001.jpg")
    file = tmp_path / "annotations" / "instances_val2017.json"
    coco(file, "0001.jpg")
    assert read_dataset(file)[0].path == tmp_path / "val2017" / "0001.jpg"


def test_one_table_of_photographs_in_folders_of_splits_has_splits(tmp_path: Path) -> None:
    for name in ("train/a.jpg", "test2/b.jpg"):
        photo(tmp_path / name)
    table(tmp_path / "heads.csv", "train/a.jpg", "test2\\b.jpg")
    assert find_splits(tmp_path) == ["train", "test"]
    assert paths(tmp_path) == {"train": ["train/a.jpg"], "test": ["test2/b.jpg"]}
    assert find_splits(tmp_path / "heads.csv") == ["train", "test"]
    with pytest.raises(DatasetError, match="no split 'val', only train, test"):
        read_dataset(tmp_path, split="val")
    table(tmp_path / "heads.csv", "train/a.jpg", "test2/b.jpg", "c.jpg")
    with pytest.raises(DatasetError, match=r"c\.jpg of .*its folder indicates none: move it"):
        find_splits(tmp_path)
    photo(tmp_path / "c.jpg")
    for held in ("train/a.jpg", "test2/b.jpg"):  # c.jpg may be for training or not
        table(tmp_path / "heads.csv", held, "c.jpg")
        with pytest.raises(DatasetError, match=rf"c\.jpg of .*beside the split {held[:4]}"):
            find_splits(tmp_path)
    table(tmp_path / "heads.csv", "test2/b.jpg")
    assert find_splits(tmp_path) == ["test"]


def test_photographs_that_are_named_without_their_folders_are_of_the_splits_they_lie_in(
    tmp_path: Path,
) -> None:
    for name in ("train/a.jpg", "train/b.jpg", "images/test/c.jpg"):
        photo(tmp_path / name)
    table(tmp_path / "heads.csv", "a.jpg", "b.jpg", "c.jpg")
    assert paths(tmp_path) == {
        "train": ["train/a.jpg", "train/b.jpg"],
        "test": ["images/test/c.jpg"],
    }
    assert find_splits(tmp_path / "heads.csv") == ["train", "test"]
    photo(tmp_path / "train" / "c.jpg")  # which of the two is meant nobody knows
    with pytest.raises(DatasetError, match=r"c\.jpg of .*beside the split train, but"):
        read_dataset(tmp_path)
    table(tmp_path / "heads.csv", "a.jpg", "b.jpg")
    assert find_splits(tmp_path) == ["all"]
    for name in ("train/e\u0301.jpg", "test/u\u0308.jpg"):  # as macOS writes é and ü
        photo(tmp_path / name)
    table(tmp_path / "heads.csv", "\u00e9.jpg", "\u00fc.jpg")
    assert find_splits(tmp_path) == ["train", "test"]
    assert all(sample.path.is_file() for sample in read_dataset(tmp_path))


def test_a_photograph_that_is_gone_spoils_no_set_for_training(tmp_path: Path) -> None:
    photo(tmp_path / "train" / "a.jpg")
    table(tmp_path / "heads.csv", "a.jpg", "gone.jpg")
    assert find_splits(tmp_path) == ["all"]
    photo(tmp_path / "gone.jpg")
    with pytest.raises(DatasetError, match=r"gone\.jpg of .*beside the split train"):
        find_splits(tmp_path)


def test_a_damaged_table_hides_no_splits_of_another(tmp_path: Path) -> None:
    table(tmp_path / "heads.csv", "train/a.jpg", "test/b.jpg")
    text(tmp_path / "more.csv", "nothing\n")
    assert find_splits(tmp_path) == ["train", "test"]
    for split in ("train", "test"):
        bad: list[DatasetError] = []
        assert len(read_dataset(tmp_path, split=split, bad=bad)) == 1
        assert "more.csv has no column" in str(bad[0])


def test_the_subsets_of_cvat_are_splits(tmp_path: Path) -> None:
    images = ""
    for name, subset in (("a", "Train"), ("b", "Validation"), ("c", "Train")):
        photo(tmp_path / "images" / f"{name}.jpg")
        points = f'<points label="head" points="{len(images)},2"/>'
        images += f'<image name="{name}.jpg" subset="{subset}">{points}</image>'
    text(tmp_path / "annotations.xml", f"<annotations>{images}</annotations>")
    assert {split: len(found) for split, found in paths(tmp_path).items()} == {"train": 2, "val": 1}


def annotated(folder: Path, kind: str, width: int, height: int) -> None:
    """a.jpg with one head at (32, 24) of an annotation that tells a size."""
    if kind == "coco":
        coco(folder / "a.json", "a.jpg", width, height)
        return
    if kind == "cvat":
        points = '<points label="head" points="32,24"/>'
        image = f'<image name="a.jpg" width="{width}" height="{height}">{points}</image>'
        text(folder / "a.xml", f"<annotations>{image}</annotations>")
        return
    if kind == "csv":
        text(folder / "a.csv", f"image,width,height,x,y\na.jpg,{width},{height},32,24\n")
        return
    size = {"imageWidth": width, "imageHeight": height}
    shape = {"label": "head", "points": [[32, 24]], "shape_type": "point"}
    content: dict[str, Any] = {"imagePath": "a.jpg", "shapes": [shape], **size}
    if kind == "json":
        content = {"image": "a.jpg", "heads": [[32, 24]], "width": width, "height": height}
    text(folder / "a.json", json.dumps(content))


@pytest.mark.parametrize("kind", ["coco", "cvat", "labelme", "json", "csv"])
def test_an_annotation_of_another_size_is_refused(tmp_path: Path, kind: str) -> None:
    photo(tmp_path / "a.jpg")
    annotated(tmp_path, kind, *SIZE)
    assert check(tmp_path)["findings"] == 0
    annotated(tmp_path, kind, 2 * SIZE[0], 2 * SIZE[1])
    report = check(tmp_path)
    assert report["images"] == 0
    assert "a.jpg: annotated at 128 x 96 pixels, but it has 64 x 48" in str(report["unreadable"])
    (sample,) = read_dataset(tmp_path)
    with pytest.raises(DatasetError, match="128 x 96"):
        sample.counted(48, 64)


def test_sides_that_are_told_unturned_will_do_where_the_heads_show_that_they_are() -> None:
    portrait = Stated(4000, 3000)  # of a photograph that is shown 3000 wide and 4000 high
    inside = np.array([[2900, 3900], [10, 10]], np.float32)
    assert Sample("a", Path("a"), inside, size=portrait).placed(4000, 3000) is inside
    for heads in (inside[1:], np.array([[3900, 2900]], np.float32)):
        with pytest.raises(DatasetError, match="EXIF rotates this photo"):
            Sample("a", Path("a"), heads, size=portrait).placed(4000, 3000)


def test_percentages_of_label_studio_are_those_of_the_photograph_that_is_there(
    tmp_path: Path,
) -> None:
    photo(tmp_path / "a.jpg")
    size = {"original_width": 6000, "original_height": 8000}
    shape = {"type": "keypointlabels", "value": {"x": 50, "y": 25}, **size}
    tasks = [{"data": {"image": "a.jpg"}, "annotations": [{"result": [shape]}]}]
    text(tmp_path / "project.json", json.dumps(tasks))
    (sample,) = read_dataset(tmp_path)
    assert sample.placed(SIZE[1], SIZE[0]).tolist() == [[32, 12]]
    assert sample.counted(SIZE[1], SIZE[0]).tolist() == [[32, 12]]
    assert check(tmp_path)["findings"] == 0


def test_a_photograph_that_its_exif_data_turn_is_annotated_as_it_is_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", SIZE, "grey").save(tmp_path / "a.jpg", exif=exif)
    annotated(tmp_path, "coco", SIZE[1], SIZE[0])
    assert check(tmp_path)["findings"] == 0
    annotated(tmp_path, "coco", *SIZE)
    assert "EXIF rotates this photo" in str(check(tmp_path)["unreadable"])


@pytest.mark.parametrize(
    "sides", [(None, 5), (0, 5), (-1, 5), ("a", 5), ([], 5), (float("nan"), 5), (float("inf"), 5)]
)
def test_what_can_be_no_size_tells_none(sides: tuple[Any, Any]) -> None:
    assert stated(*sides) is None
    assert stated(*reversed(sides)) is None


def test_labels_of_label_studio_beside_their_shapes_count(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    result: list[dict[str, Any]] = []
    for name, label, x in (("1", "Head", 10), ("2", "Car", 20), ("3", "Head", 30)):
        box = {"x": x, "y": 50, "width": 10, "height": 10}
        common = {"id": name, "original_width": SIZE[0], "original_height": SIZE[1]}
        result.append({**common, "type": "rectangle", "value": box})
        result.append({**common, "type": "labels", "value": {**box, "labels": [label]}})
    tasks = [{"data": {"image": "a.jpg"}, "annotations": [{"result": result}]}]
    text(tmp_path / "project.json", json.dumps(tasks))
    (sample,) = read_dataset(tmp_path)
    assert sample.heads[:, 0].tolist() == pytest.approx([64 * 0.15, 64 * 0.35])
    del result[0]  # a label without its shape is no head, and is said
    text(tmp_path / "project.json", json.dumps(tasks))
    with pytest.raises(DatasetError, match="shape of type labels is not a point"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("regions", "counted"),
    [
        ([{"type": "person", "visible": "head"}, {"type": "person", "visible": "whole"}], [0, 1]),
        ([{"type": "head"}, {"type": "", "quality": "good"}, {"type": "car"}], [0, 1]),
    ],
)
def test_one_attribute_of_via_labels_its_regions(
    tmp_path: Path, regions: list[dict[str, str]], counted: list[int]
) -> None:
    photo(tmp_path / "a.jpg")
    shapes = [
        {"shape_attributes": {"name": "point", "cx": i, "cy": 1}, "region_attributes": about}
        for i, about in enumerate(regions)
    ]
    text(tmp_path / "via.json", json.dumps({"a": {"filename": "a.jpg", "regions": shapes}}))
    assert read_dataset(tmp_path)[0].heads[:, 0].tolist() == counted


def test_what_via_writes_otherwise_is_named(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    text(tmp_path / "a.json", json.dumps({"project": {}, "metadata": {}, "file": {}}))
    with pytest.raises(DatasetError, match="VIA 3"):
        read_dataset(tmp_path)
    (tmp_path / "a.json").unlink()
    text(tmp_path / "a.csv", "filename,file_size,region_shape_attributes\na.jpg,1,{}\n")
    with pytest.raises(DatasetError, match="as JSON"):
        read_dataset(tmp_path)


def test_a_rectangle_of_four_corners_has_its_centre_between_them(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    corners = [[10, 20], [30, 20], [30, 24], [10, 24]]
    shape = {"label": "head", "points": corners, "shape_type": "rectangle"}
    text(tmp_path / "a.json", json.dumps({"imagePath": "a.jpg", "shapes": [shape]}))
    assert read_dataset(tmp_path)[0].heads.tolist() == [[20, 22]]


@pytest.mark.parametrize("content", [{"a.jpg": [[1, 2]]}, [{"image": "a.jpg", "heads": [[1, 2]]}]])
def test_points_of_a_photograph_in_a_file_of_its_name_are_no_labelme(
    tmp_path: Path, content: Any
) -> None:
    photo(tmp_path / "a.jpg")
    text(tmp_path / "a.json", json.dumps(content))
    assert read_dataset(tmp_path)[0].heads.tolist() == [[1, 2]]


def test_a_large_table_is_parsed_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "a.jpg")
    table(tmp_path / "heads.csv", "a.jpg")
    parsed, read = [], tables.read_text
    monkeypatch.setattr(tables, "read_text", lambda path: parsed.append(path) or read(path))
    for _ in range(2):
        samples, *_ = gather([tmp_path])
        assert not not_annotated(tmp_path)
    assert len(parsed) == 1
    table(tmp_path / "heads.csv", "a.jpg", "a.jpg")
    assert len(read_dataset(tmp_path)[0].heads) == 2
    assert len(samples[0].heads) == 1


def test_the_empty_rows_of_a_spreadsheet_are_none(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    text(tmp_path / "heads.csv", "image;x;y\na.jpg;1,5;2\n;;\n ; ; \n")
    assert read_dataset(tmp_path)[0].heads.tolist() == [[1.5, 2]]


@pytest.mark.parametrize("inside", ["", "train_data", "test_data"])
def test_part_b_has_its_kernels_in_its_folders_too(tmp_path: Path, inside: str) -> None:
    part = tmp_path / "part_B"
    for folder in ("train_data", "test_data"):
        photo(part / folder / "images" / "IMG_1.jpg")
    assert paper_sigma(part / inside, "shanghaitech") == 15
    assert paper_sigma(part.rename(tmp_path / "part_A") / inside, "shanghaitech") is None


def test_heads_of_a_larger_copy_are_refused_and_clicks_beyond_the_edge_are_not(
    tmp_path: Path,
) -> None:
    photo(tmp_path / "a.jpg")
    grid = [(x, y) for x in range(3, SIZE[0], 6) for y in range(3, SIZE[1], 6)]
    for times, refused in ((1.03, False), (4 / 3, True), (4, True)):
        rows = "".join(f"a.jpg,{x * times},{y * times}\n" for x, y in grid)
        text(tmp_path / "a.csv", f"image,x,y\n{rows}")
        (sample,) = read_dataset(tmp_path)
        with pytest.raises(DatasetError, match="far outside") if refused else nullcontext():
            assert len(sample.counted(SIZE[1], SIZE[0])) == len(grid)
