"""What a user's own annotations are read as, and what is said of wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from csrnet_hub.datasets import DatasetError, find_splits, read_dataset
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
        ("image,x,y\n,1,2\n", "line 2: there is no image"),
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


@pytest.mark.parametrize(
    ("name", "old", "new", "trouble"),
    [
        ("json", "[10.5, 20.25]", "[10.5]", "not all pairs|in place of"),
        ("json", "[10.5, 20.25]", '["a", "b"]', "not numbers"),
        ("json", "[[10.5, 20.25], [30.0, 5.0]]", "null", "no heads"),
        ("coco", '"bbox": [25, 0, 10, 10]', '"box": []', "no bbox"),
        ("coco", '"image_id": 7', '"image_id": 99', "image 99"),
        ("coco", '"iscrowd": 0', '"iscrowd": 1', "crowd region"),
        ("via", '"name": "point"', '"name": "polygon"', "polygon, which is no point"),
        ("via", '"cx": 10.5', '"dx": 1', "no cx"),
        ("labelme", '"shape_type": "point"', '"shape_type": "polygon"', "no point"),
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
    files = [*tmp_path.rglob("*.json"), *tmp_path.rglob("*.xml")]
    files[0].write_bytes(content)
    with pytest.raises(DatasetError):
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
