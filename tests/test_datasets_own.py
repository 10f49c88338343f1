"""What a user's own annotations are read as, and what is said of wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csrnet_hub.annotations import to_json
from csrnet_hub.datasets import DatasetError, find_splits, read_dataset
from csrnet_hub.datasets.check import check
from tests.test_datasets import write_heads
from tests.test_datasets_formats import (
    WRITERS,
    csv,
    labelme,
    photo,
    text,
)


def test_an_annotation_file_may_be_given_in_place_of_its_folder(tmp_path: Path) -> None:
    csv(tmp_path)
    assert len(read_dataset(tmp_path / "heads.csv")) == 2


def test_annotations_of_the_page_lie_beside_their_photographs_or_in_a_folder(
    tmp_path: Path,
) -> None:
    photo(tmp_path / "images" / "day one.png")
    photo(tmp_path / "b.JPG")
    write_heads(tmp_path / "GT_day one.mat", np.array([[3.0, 4.0]]))
    write_heads(tmp_path / "gt_b.mat", np.array([[5.0, 6.0], [7.0, 8.0]]))
    photo(tmp_path / "c.jpg")
    samples = read_dataset(tmp_path)
    assert {sample.path.name: len(sample.heads) for sample in samples} == {
        "day one.png": 1,
        "b.JPG": 2,
    }
    assert check(tmp_path)["not_annotated"] == ["c.jpg"]
    write_heads(tmp_path / "GT_renamed.mat", np.array([[3.0, 4.0]]))
    (unreadable,) = check(tmp_path)["unreadable"]
    assert unreadable["file"] == "renamed.jpg"
    text(tmp_path / "heads.csv", "image,x,y\nc.jpg,1,1\n")  # a table says more
    assert [sample.path.name for sample in read_dataset(tmp_path)] == ["c.jpg"]


def test_a_name_that_two_photographs_have_is_no_guess(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "a.png")
    write_heads(tmp_path / "GT_a.mat", np.array([[3.0, 4.0]]))
    with pytest.raises(DatasetError, match=r"GT_a\.mat may belong to a\.jpg or a\.png: keep one"):
        read_dataset(tmp_path)


def test_an_annotation_in_a_folder_finds_a_photograph_of_any_ending(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpeg")
    (tmp_path / "annotations").mkdir()
    write_heads(tmp_path / "annotations" / "GT_a.mat", np.array([[3.0, 4.0]]))
    (sample,) = read_dataset(tmp_path)
    assert sample.path.name == "a.jpeg"


@pytest.mark.parametrize("kind", ["mat", "labelme", "csv", "json"])
def test_the_names_of_photographs_tell_no_split(tmp_path: Path, kind: str) -> None:
    for name in ("train station", "test match"):
        photo(tmp_path / f"{name}.jpg")
        if kind == "mat":
            write_heads(tmp_path / f"GT_{name}.mat", np.array([[3.0, 4.0]]))
        elif kind == "csv":
            text(tmp_path / f"{name}.csv", f"image,x,y\n{name}.jpg,1,1\n")
        elif kind == "json":
            text(tmp_path / f"{name}.json", json.dumps({"image": f"{name}.jpg", "heads": [[1, 1]]}))
        else:
            content = {"version": "5.1", "shapes": [], "imagePath": f"{name}.jpg"}
            text(tmp_path / f"{name}.json", json.dumps(content))
    assert find_splits(tmp_path) == ["all"]
    assert len(read_dataset(tmp_path)) == 2


def test_the_folders_of_an_absolute_path_are_no_splits(tmp_path: Path) -> None:
    photo(tmp_path / "dev" / "a.jpg")
    text(tmp_path / "dev" / "heads.csv", f"image,x,y\n{tmp_path / 'dev' / 'a.jpg'},1,1\n")
    assert find_splits(tmp_path / "dev") == ["all"]


def test_a_photograph_called_like_a_split_mixes_none(tmp_path: Path) -> None:
    for name in ("test", "a"):
        photo(tmp_path / f"{name}.jpg")
    text(tmp_path / "train.csv", "image,x,y\na.jpg,1,1\n")
    text(tmp_path / "test.csv", "image,x,y\ntest.jpg,1,1\n")
    assert find_splits(tmp_path) == ["train", "test"]


@pytest.mark.parametrize("layout", ["folders", "files"])
def test_own_splits_are_folders_or_files_of_that_name(tmp_path: Path, layout: str) -> None:
    for split, x in (("train", 1), ("test", 2)):
        home = tmp_path / split if layout == "folders" else tmp_path
        photo(home / f"{split}.jpg")
        name = "heads.csv" if layout == "folders" else f"heads_{split}.csv"
        text(home / name, f"image,x,y\n{split}.jpg,{x},0\n")
    assert find_splits(tmp_path) == ["train", "test"]
    (sample,) = read_dataset(tmp_path, split="test")
    assert sample.heads.tolist() == [[2, 0]]
    assert len(read_dataset(tmp_path)) == 2


def test_photographs_of_one_name_in_two_folders_keep_apart(tmp_path: Path) -> None:
    photo(tmp_path / "monday" / "1.jpg")
    photo(tmp_path / "tuesday" / "1.jpg")
    text(tmp_path / "heads.csv", "image,x,y\nmonday/1.jpg,1,1\ntuesday\\1.jpg,2,2\n")
    samples = read_dataset(tmp_path)
    assert len({sample.name for sample in samples}) == 2
    assert all(sample.path.is_file() for sample in samples)


def test_tables_of_spreadsheets_are_read(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    table = "﻿Image;X;Y;note\r\na.jpg;1,5;2;tall\r\n".replace("1,5", "1.5")
    text(tmp_path / "heads.csv", table)
    assert read_dataset(tmp_path)[0].heads.tolist() == [[1.5, 2]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("between", [";", "\t"])
def test_tables_of_spreadsheets_with_decimal_commas_are_read(
    tmp_path: Path, encoding: str, between: str
) -> None:
    photo(tmp_path / "place de l'Étoile 1.jpg")
    rows = [
        "Image;X;Y;note",
        "place de l'Étoile 1.jpg;1,5;20,25;a, b",
        "place de l'Étoile 1.jpg;3;4;",
    ]
    table = "\r\n".join(rows).replace(";", between)
    (tmp_path / "heads.csv").write_bytes(table.encode(encoding))
    assert read_dataset(tmp_path)[0].heads.tolist() == [[1.5, 20.25], [3, 4]]


def test_decimal_commas_between_commas_are_named_not_guessed_at(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    text(tmp_path / "heads.csv", "image,x,y\na.jpg,1,5,20,25\n")
    with pytest.raises(DatasetError, match="line 2: more values than there are columns"):
        read_dataset(tmp_path)


def test_a_table_in_another_encoding_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "heads.csv").write_bytes("image,x,y\nÉtoile.jpg,1,2\n".encode("cp1252"))
    with pytest.raises(DatasetError, match=r"heads\.csv is not text in UTF-8 .*save it again"):
        read_dataset(tmp_path)


def test_what_the_pages_annotation_tab_saves_is_read(tmp_path: Path) -> None:
    for name, heads in (("a", [[1.5, 2], [3, 4]]), ("b", [])):
        photo(tmp_path / f"{name}.jpg")
        (tmp_path / f"{name}.json").write_bytes(to_json(heads, f"{name}.jpg", 64, 48))
    samples = read_dataset(tmp_path)
    assert [sample.heads.tolist() for sample in samples] == [[[1.5, 2], [3, 4]], []]


def test_names_are_found_in_either_case_and_either_unicode_form(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9.jpg", "cafe\u0301.JPG"
    photo(tmp_path / "IMAGES" / decomposed)
    photo(tmp_path / "Photo 2.JPEG")
    text(tmp_path / "HEADS.CSV", f"image,x,y\nImages\\{composed},1,2\nphoto 2.jpeg,3,4\n")
    samples = read_dataset(tmp_path)
    assert all(sample.path.is_file() for sample in samples)
    assert [sample.heads.tolist() for sample in samples] == [[[1, 2]], [[3, 4]]]


def test_what_macos_leaves_beside_files_is_no_annotation(tmp_path: Path) -> None:
    csv(tmp_path)
    (tmp_path / "._heads.csv").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "__MACOSX").mkdir()
    for name in ("._a.jpg", "__MACOSX/a.jpg"):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07")
    assert len(read_dataset(tmp_path)) == 2
    assert check(tmp_path)["not_annotated"] == []


def test_a_damaged_table_spoils_no_other(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    text(tmp_path / "monday.csv", "image,x,y\na.jpg,1,2\n")
    text(tmp_path / "tuesday.csv", "nothing")
    with pytest.raises(DatasetError, match=r"tuesday\.csv has no column"):
        read_dataset(tmp_path)
    bad: list[DatasetError] = []
    assert [sample.name for sample in read_dataset(tmp_path, bad=bad)] == ["a"]
    assert "tuesday.csv" in str(bad[0])


@pytest.mark.parametrize("folder", ["train", "Train", "training"])
def test_splits_go_by_the_usual_names(tmp_path: Path, folder: str) -> None:
    for home, split in ((folder, "train"), ("valid", "val")):
        photo(tmp_path / home / f"{split}.jpg")
        text(tmp_path / home / "heads.csv", f"image,x,y\n{split}.jpg,1,2\n")
    assert find_splits(tmp_path) == ["train", "val"]
    (sample,) = read_dataset(tmp_path, split="val")
    assert sample.name == "val"


def test_a_word_that_only_holds_the_name_of_a_split_is_none(tmp_path: Path) -> None:
    for name in ("latest", "contest"):
        photo(tmp_path / f"{name}.jpg")
        text(tmp_path / f"{name}.csv", f"image,x,y\n{name}.jpg,1,2\n")
    assert find_splits(tmp_path) == ["all"]


def test_cocos_own_folders_are_read(tmp_path: Path) -> None:
    for split in ("train", "val"):
        photo(tmp_path / f"{split}2017" / f"{split}.jpg")
        content = {"images": [{"id": 1, "file_name": f"{split}.jpg"}], "annotations": []}
        text(tmp_path / "annotations" / f"instances_{split}2017.json", json.dumps(content))
    for split in ("train", "val"):
        (sample,) = read_dataset(tmp_path, split=split)
        assert sample.path == tmp_path / f"{split}2017" / f"{split}.jpg"


def test_people_marked_both_by_head_and_by_body_count_once(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    boxes = [(1, [0, 0, 10, 40]), (2, [2, 0, 6, 6]), (1, [30, 0, 10, 40]), (2, [32, 0, 6, 6])]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "category_id": kind, "bbox": box} for kind, box in boxes],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "head"}],
    }
    text(tmp_path / "people.json", json.dumps(content))
    assert read_dataset(tmp_path)[0].heads.tolist() == [[5, 3], [35, 3]]


def test_a_category_that_nothing_is_of_hides_no_heads(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "category_id": 2, "bbox": [0, 0, 10, 10]}],
        "categories": [{"id": 1, "name": "people"}, {"id": 2, "name": "face"}],
    }
    text(tmp_path / "people.json", json.dumps(content))
    assert read_dataset(tmp_path)[0].heads.tolist() == [[5, 5]]


@pytest.mark.parametrize(
    ("attributes", "counts"),
    [
        ({}, True),
        ({"type": {"person": True}}, True),
        ({"type": {"car": True, "person": False}}, False),
    ],
)
def test_a_region_without_a_label_is_a_head_still(
    tmp_path: Path, attributes: dict, counts: bool
) -> None:
    photo(tmp_path / "a.jpg")
    regions = [
        {"shape_attributes": {"name": "point", "cx": i, "cy": i}, "region_attributes": about}
        for i, about in enumerate([{"type": "person"}, attributes])
    ]
    text(tmp_path / "via.json", json.dumps({"a": {"filename": "a.jpg", "regions": regions}}))
    assert len(read_dataset(tmp_path)[0].heads) == 1 + counts


def test_shapes_of_labels_that_are_not_known_are_all_heads(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    content = {"imagePath": "a.jpg", "shapes": []}
    content["shapes"] = [
        {"label": label, "points": [[i, i]], "shape_type": "point"}
        for i, label in enumerate(["tête", "point", None])
    ]
    text(tmp_path / "a.json", json.dumps(content))
    assert len(read_dataset(tmp_path)[0].heads) == 3


def test_a_turned_box_of_label_studio_has_its_centre_where_it_is_seen(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    value = {"x": 50, "y": 50, "width": 25, "height": 12.5, "rotation": 90}
    size = {"original_width": 64, "original_height": 48}
    shape = {"type": "rectanglelabels", "value": value, **size}
    tasks = [{"data": {"image": "a.jpg"}, "annotations": [{"result": [shape]}]}]
    text(tmp_path / "project.json", json.dumps(tasks))
    # 16 x 6 pixels with the upper left corner at (32, 24), turned by 90 degrees clockwise about it
    assert read_dataset(tmp_path)[0].heads.tolist() == [[29, 32]]


def test_json_may_be_a_list_of_records(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    records = [{"image": "a.jpg", "points": [{"x": 1, "y": 2}]}]
    text(tmp_path / "heads.json", json.dumps(records))
    assert read_dataset(tmp_path)[0].heads.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("content", "trouble"),
    [
        ("image,x\na.jpg,1\n", "no column y"),
        ("", "no column image, x, y"),
        ("image,x,y\n", "no rows"),
        ("image,x,y\na.jpg,one,2\n", "line 2: x 'one'"),
        ("image,x,y\na.jpg,1,\n", "line 2"),
        ("image,x,y\n,1,2\n", "line 2: the image is not named"),
        ("image,x,y\na.jpg,nan,2\n", "not finite"),
        ("image,x,y\na.jpg\n", "nothing"),
    ],
)
def test_a_table_that_is_wrong_is_named_with_the_line(
    tmp_path: Path, content: str, trouble: str
) -> None:
    photo(tmp_path / "a.jpg")
    text(tmp_path / "heads.csv", content)
    if trouble == "nothing":  # a row cut short after the image says that nobody is there
        assert read_dataset(tmp_path)[0].heads.shape == (0, 2)
        return
    with pytest.raises(DatasetError, match=rf"heads\.csv.*{trouble}"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(("wide", "high"), [("width", "height"), ("w", "H")])
def test_a_table_of_boxes_is_refused_not_read_as_their_corners(
    tmp_path: Path, wide: str, high: str
) -> None:
    for name in ("a.jpg", "b.jpg"):
        photo(tmp_path / name)
    head, same = f"image,x,y,{wide},{high}\n", "a.jpg,1,2,64,48\n"
    for rows in (
        "a.jpg,1,2,64,48\na.jpg,3,4,64,48\nb.jpg,5,6,32,24\n",  # the pictures' sizes
        "a.jpg,1,2,64,48\na.jpg,3,4,,\nb.jpg,5,6\n",
    ):
        text(tmp_path / "heads.csv", head + rows)
        assert [sample.heads.tolist() for sample in read_dataset(tmp_path)] == [
            [[1, 2], [3, 4]],
            [[5, 6]],
        ]
    text(tmp_path / "heads.csv", f"image,x,y,{wide}\na.jpg,1,2,5\na.jpg,3,4,6\n")
    assert len(read_dataset(tmp_path)[0].heads) == 2
    text(tmp_path / "heads.csv", f"{head}{same}b.jpg,5,6,7,8\na.jpg,3,4,10,12\n")
    with pytest.raises(DatasetError, match=r"line 4: .*give the centre of each box as x and y"):
        read_dataset(tmp_path)
    (trouble,) = check(tmp_path)["unreadable"]
    sides = f"{wide.lower()} and {high.lower()}"
    assert f"{sides} differ between rows of the same image" in trouble["trouble"]


SHARES = [[0.5, 0.25], [0, 1], [0.125, 0.75]]


@pytest.mark.parametrize("kind", ["csv", "json"])
@pytest.mark.parametrize(
    ("heads", "refused"),
    [
        (SHARES, True),
        (SHARES[:2], False),  # too few to be sure
        ([*SHARES, [0.5, 1.5]], False),
        ([*SHARES, [-0.5, 0.5]], False),
        ([[0, 0], [0, 1], [1, 1]], False),  # whole pixels
    ],
)
def test_shares_of_the_pictures_sides_are_not_taken_for_pixels(
    tmp_path: Path, kind: str, heads: list[list[float]], refused: bool
) -> None:
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg")
    if kind == "csv":
        rows = "".join(f"a.jpg,{x},{y}\n" for x, y in heads)
        text(tmp_path / "heads.csv", f"image,x,y\nb.jpg,9,9\n{rows}")
    else:
        text(tmp_path / "heads.json", json.dumps({"b.jpg": [[9, 9]], "a.jpg": heads}))
    report = check(tmp_path)
    told = [trouble["trouble"] for trouble in report["unreadable"]]
    assert report["images"] == 2 - refused  # the other photograph is read
    place = "line 3" if kind == "csv" else "a.jpg"
    trouble = f"{place}: x and y look like fractions of the picture's sides: multiply them by"
    assert [trouble in one for one in told] == [True] * refused


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_shares_are_known_by_those_of_all_photographs_of_a_file(tmp_path: Path, kind: str) -> None:
    for name in ("a.jpg", "b.jpg"):
        photo(tmp_path / name)
    if kind == "csv":
        text(tmp_path / "heads.csv", "image,x,y\na.jpg,0.5,0.25\na.jpg,0,1\nb.jpg,1,0.75\n")
    else:
        text(tmp_path / "heads.json", json.dumps({"a.jpg": SHARES[:2], "b.jpg": SHARES[2:]}))
    bad: list[DatasetError] = []
    assert not read_dataset(tmp_path, bad=bad)  # not even the one with too few to be sure
    assert ["look like fractions" in str(error) for error in bad] == [True, True]


@pytest.mark.parametrize(
    ("name", "old", "new", "trouble"),
    [
        ("json", "[10.5, 20.25]", "[10.5]", "not every head is a pair|shape"),
        ("json", "[10.5, 20.25]", '["a", "b"]', "not numbers"),
        ("json", "[[10.5, 20.25], [30.0, 5.0]]", "null", "no heads"),
        ("coco", '"bbox": [25.0, 0.0, 10, 10]', '"box": []', "no bbox"),
        ("coco", '"image_id": 7', '"image_id": 99', "image 99"),
        ("coco", '"iscrowd": 0', '"iscrowd": 1', "crowd region"),
        ("via", '"name": "point"', '"name": "polygon"', "polygon is not a point"),
        ("via", '"cx": 10.5', '"dx": 1', "no cx"),
        ("labelme", '"shape_type": "point"', '"shape_type": "polygon"', "not a point"),
        ("cvat", "points=", "dots=", ""),
        ("cvat", "<points", "<polygon", "cannot be read as XML"),
        ("cvat", 'points="10.50,20.25"', 'points="10.50"', "cannot be read"),
        ("cvat", "<annotations>", "<!DOCTYPE x><annotations>", "document type"),
        ("label-studio", '"original_width"', '"width"', "no original_width"),
        ("label-studio", '[{"result": []}]', "[]", "not annotated"),
    ],
)
def test_what_a_tool_did_not_write_is_named(
    tmp_path: Path, name: str, old: str, new: str, trouble: str
) -> None:
    WRITERS[name](tmp_path)
    files = [*tmp_path.rglob("*.json"), *tmp_path.rglob("*.xml")]
    for file in files:
        file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    if not trouble:  # an empty shape is none
        assert len(read_dataset(tmp_path, name)[0].heads) == 1
        return
    with pytest.raises(DatasetError, match=rf"\.(json|xml).*({trouble})"):
        read_dataset(tmp_path, name)


@pytest.mark.parametrize("name", ["json", "coco", "via", "labelme", "cvat", "label-studio"])
@pytest.mark.parametrize("content", [b"", b"{", b"<a", b"\xff\xfe\x00nonsense", b"[1, 2]", b"{}"])
def test_a_damaged_file_of_a_tool_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    WRITERS[name](tmp_path)
    file = min(tmp_path.rglob("*.json"), default=tmp_path / "annotations.xml")
    file.write_bytes(content)
    empty = "|holds no photographs" if (name, content) == ("json", b"{}") else ""
    with pytest.raises(DatasetError, match=rf"{file.name}{empty}"):
        read_dataset(tmp_path, name)


def test_a_photograph_that_is_listed_twice_is_named(tmp_path: Path) -> None:
    labelme(tmp_path)
    (tmp_path / "c.json").write_text((tmp_path / "a.json").read_text())
    with pytest.raises(DatasetError, match=r"c\.json has .*a\.jpg twice"):
        read_dataset(tmp_path)


def test_a_photograph_may_be_named_by_its_whole_path(tmp_path: Path) -> None:
    path = photo(tmp_path / "elsewhere" / "a.jpg")
    text(tmp_path / "table" / "heads.csv", f"image,x,y\n{path},1,2\n")
    (sample,) = read_dataset(tmp_path / "table")
    assert (sample.name, sample.path) == ("a", path)


STORED = "0a1b2c3d-WhatsApp_Image_2024-05-01_at_10.11.12_1.jpg"


@pytest.mark.parametrize("kind", ["label-studio", "coco"])
def test_an_upload_of_label_studio_is_found_under_its_own_name(tmp_path: Path, kind: str) -> None:
    """It stores names with underscores for blanks, and without brackets."""
    own = photo(tmp_path / "images" / "WhatsApp Image 2024-05-01 at 10.11.12 (1).jpg")
    size = {"original_width": 64, "original_height": 48}
    head = {"type": "keypointlabels", "value": {"x": 50, "y": 50}, **size}
    data = {"id": "7", "photo": f"/data/upload/1/{STORED}"}  # under any key
    content: Any = [{"data": data, "annotations": [{"result": [head]}]}]
    if kind == "coco":
        image = {"id": 0, "file_name": f"images/{STORED}", "width": 64, "height": 48}
        box = {"image_id": "0", "category_id": "1", "bbox": [30, 22, 4, 4]}  # as text, and numbers
        categories = [{"id": 1, "name": "head"}]
        content = {"images": [image], "annotations": [box], "categories": categories}
    text(tmp_path / "export.json", json.dumps(content))
    (sample,) = read_dataset(tmp_path, kind)
    assert sample.path == own
    assert sample.placed(48, 64).tolist() == [[32, 24]]
    photo(tmp_path / "images" / "WhatsApp Image 2024-05-01 at 10.11.12 [1].jpg")  # or this one
    text(tmp_path / "export.json", json.dumps(content, indent=1))  # read anew
    assert not read_dataset(tmp_path, kind)[0].path.exists()


def test_label_studios_short_export_is_told_from_that_with_the_sizes(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    short = {"image": "/data/upload/1/0a1b2c3d-a.jpg", "id": 1, "annotator": 1, "annotation_id": 2}
    text(tmp_path / "export.json", json.dumps([short]))
    with pytest.raises(DatasetError, match="JSON-MIN: export it as JSON"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("kind", ["polygonlabels", "brushlabels", "vector", "unheard-of", None])
def test_a_shape_of_label_studio_that_is_no_point_is_named(tmp_path: Path, kind: str) -> None:
    photo(tmp_path / "a.jpg")
    shapes = [{"type": kind, "value": {"points": [[1, 1], [5, 1], [5, 5]]}}]
    tasks = [{"data": {"image": "a.jpg"}, "annotations": [{"result": shapes}]}]
    text(tmp_path / "project.json", json.dumps(tasks))
    with pytest.raises(DatasetError, match="is not a point"):
        read_dataset(tmp_path)


def test_what_label_studio_says_beside_shapes_is_no_head(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    shapes = [{"type": "textarea", "value": {"text": ["dense"], "x": 1, "y": 1}}]
    shapes += [{"type": "rating", "value": {"rating": 3}}, {"type": "relation", "from_id": "1"}]
    tasks = [{"data": {"image": "a.jpg"}, "annotations": [{"result": shapes}]}]
    text(tmp_path / "project.json", json.dumps(tasks))
    assert len(read_dataset(tmp_path)[0].heads) == 0


@pytest.mark.parametrize(
    ("content", "trouble"),
    [
        ('{"a.jpg": [[1, 2]], "b.jpg": [], "a.jpg": [[3, 4]]}', "'a.jpg' is there twice"),
        (
            '{"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}],'
            ' "annotations": []}',
            "two images have the id 1",
        ),
    ],
)
def test_what_is_listed_twice_is_named_and_neither_is_taken(
    tmp_path: Path, content: str, trouble: str
) -> None:
    for name in ("a.jpg", "b.jpg"):
        photo(tmp_path / name)
    text(tmp_path / "heads.json", content)
    with pytest.raises(DatasetError, match=rf"heads\.json.*: .*{trouble}"):
        read_dataset(tmp_path)


def test_a_photograph_by_two_paths_is_one(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.jpg")
    rows = "image,x,y\na.jpg,1,1\nimages/../images/a.jpg,2,2\n"
    text(tmp_path / "heads.csv", rows)
    with pytest.raises(DatasetError, match="twice"):
        read_dataset(tmp_path)
    (tmp_path / "heads.csv").unlink()
    for split, name in (("train", "a.jpg"), ("val", "../images/a.jpg")):
        text(tmp_path / f"{split}.csv", f"image,x,y\n{name},1,1\n")
    with pytest.raises(DatasetError, match="in two splits"):
        read_dataset(tmp_path)


def test_links_to_one_file_are_photographs_of_their_own(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")  # of two equal ones, as git-annex stores them
    text(tmp_path / "heads.csv", "image,x,y\na.jpg,1,1\nb.jpg,2,2\n")
    assert len(read_dataset(tmp_path)) == 2


def test_a_photograph_outside_the_folder_is_another_of_that_name(tmp_path: Path) -> None:
    photo(tmp_path / "IMG_1.jpg")
    text(tmp_path / "crowds" / "heads.csv", "image,x,y\nIMG_1.jpg,1,1\n")
    (sample,) = read_dataset(tmp_path / "crowds")
    assert not sample.path.is_file()


def test_a_photograph_that_is_listed_twice_spoils_no_other(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        photo(tmp_path / name)
    text(tmp_path / "heads.csv", "image,x,y\na.jpg,1,1\nA.jpg,2,2\nb.jpg,3,3\n")
    report = check(tmp_path)
    assert (report["images"], report["heads"]) == (1, 1)
    (trouble,) = report["unreadable"]
    assert "A.jpg twice" in trouble["trouble"]
