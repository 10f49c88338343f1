"""Which shapes are heads the labels of a whole data set say, in whatever files and splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from csrnet_hub.datasets import DatasetError, read_dataset
from tests.test_datasets_formats import SIZE, photo, text

SHAPES = {  # how tools call a point and a line
    "via": ("point", "polyline"),
    "labelme": ("point", "line"),
    "cvat": ("points", "polyline"),
    "label-studio": ("keypointlabels", "brushlabels"),
}
KINDS = ["coco", *SHAPES]


def mark(path: Path, kind: str, labels: list[str]) -> None:
    """A photograph, and beside it a file of a tool with a point a label, at (1, 1), (2, 2) ...;
    a road is a line."""
    name, numbered = photo(path).name, list(enumerate(labels, start=1))
    shapes = [SHAPES[kind][label == "road"] for label in labels if kind in SHAPES]
    if kind == "cvat":
        marks = "".join(
            f'<{shape} label="{label}" points="{i},{i}"/>'
            for shape, (i, label) in zip(shapes, numbered)
        )
        image = f'<image id="0" name="{name}">{marks}</image>'
        text(path.with_suffix(".xml"), f"<annotations>{image}</annotations>")
        return
    content: Any = {"imagePath": name}
    if kind == "coco":
        kinds = ["person", "car", "head"]  # all of them declared in each file
        content = {"images": [{"id": 1, "file_name": name}]}
        content["annotations"] = [
            {"image_id": 1, "category_id": kinds.index(label), "bbox": [i, i, 0, 0]}
            for i, label in numbered
        ]
        content["categories"] = [{"id": i, "name": label} for i, label in enumerate(kinds)]
    elif kind == "labelme":
        content["shapes"] = [
            {"label": label, "points": [[i, i]], "shape_type": shape}
            for shape, (i, label) in zip(shapes, numbered)
        ]
    elif kind == "via":
        regions = [
            {
                "shape_attributes": {"name": shape, "cx": i, "cy": i},
                "region_attributes": {"quality": "", "type": label},
            }
            for shape, (i, label) in zip(shapes, numbered)
        ]
        content = {name: {"filename": name, "regions": regions}}
    else:
        size = {"original_width": 100, "original_height": 100}
        result = [
            {"type": shape, "value": {"x": i, "y": i, shape: [label]}, **size}
            for shape, (i, label) in zip(shapes, numbered)
        ]
        content = [{"data": {"image": name}, "annotations": [{"result": result}]}]
    text(path.with_suffix(".json"), json.dumps(content))


def counted(folder: Path) -> dict[str, list[float]]:
    return {sample.name: sample.heads[:, 0].tolist() for sample in read_dataset(folder)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["a file a task", "a folder a split"])
def test_cars_are_no_heads_in_a_file_whose_photographs_show_nobody(
    tmp_path: Path, kind: str, layout: str
) -> None:
    homes = ("train", "valid") if "split" in layout else ("", "")
    mark(tmp_path / homes[0] / "street.jpg", kind, ["person", "car", "person"])
    mark(tmp_path / homes[1] / "car park.jpg", kind, ["car", "car"])
    assert counted(tmp_path) == {"street": [1, 3], "car park": []}
    if "split" in layout:
        (sample,) = read_dataset(tmp_path, split="val")
        assert len(sample.heads) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_where_one_file_marks_heads_the_persons_of_another_are_none(
    tmp_path: Path, kind: str
) -> None:
    mark(tmp_path / "train" / "street.jpg", kind, ["person", "head"])
    mark(tmp_path / "test" / "square.jpg", kind, ["person", "car"])
    assert counted(tmp_path) == {"street": [2], "square": []}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(
    ("labels", "heads"),
    [(["person", "car", "Person", "road"], [1, 3]), (["person", "head", "car", "road"], [2])],
)
def test_of_people_and_other_things_the_people_count(
    tmp_path: Path, kind: str, labels: list[str], heads: list[float]
) -> None:
    mark(tmp_path / "street.jpg", kind, labels)
    assert counted(tmp_path) == {"street": heads}


@pytest.mark.parametrize("kind", KINDS)
def test_where_nobody_is_marked_in_any_file_all_shapes_are_heads(tmp_path: Path, kind: str) -> None:
    mark(tmp_path / "train" / "street.jpg", kind, ["car", "car"])
    mark(tmp_path / "test" / "square.jpg", kind, ["car"])
    assert counted(tmp_path) == {"street": [1, 2], "square": [1]}


@pytest.mark.parametrize(
    "word", ["person", "Persons", "PEOPLE", "pedestrian", "Pedestrians", "human", "humans"]
)
def test_people_are_called_by_many_words(tmp_path: Path, word: str) -> None:
    mark(tmp_path / "street.jpg", "cvat", [word, "car"])
    assert counted(tmp_path) == {"street": [1]}


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_without_a_label_are_heads_in_whatever_file(tmp_path: Path, kind: str) -> None:
    mark(tmp_path / "street.jpg", kind, ["person", "car"])
    mark(tmp_path / "square.jpg", kind, ["", "car"])
    assert counted(tmp_path) == {"street": [1], "square": [1]}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_blank_beside_a_label_loses_no_head(tmp_path: Path, kind: str) -> None:
    mark(tmp_path / "square.jpg", kind, ["head", "head ", " Head", " ", "car"])
    assert counted(tmp_path) == {"square": [1, 2, 3, 4]}


def test_a_photograph_of_cars_shows_nobody_when_its_own_file_is_given_too(tmp_path: Path) -> None:
    mark(tmp_path / "street.jpg", "labelme", ["person"])
    mark(tmp_path / "car park.jpg", "labelme", ["car"])
    assert counted(tmp_path / "car park.json") == {"car park": []}


def test_a_label_that_is_changed_in_one_file_counts_in_all(tmp_path: Path) -> None:
    for name in ("street", "car park"):
        mark(tmp_path / f"{name}.jpg", "cvat", ["car"])
    assert counted(tmp_path) == {"street": [1], "car park": [1]}
    mark(tmp_path / "street.jpg", "cvat", ["person"])
    assert counted(tmp_path) == {"street": [1], "car park": []}


def test_a_damaged_file_hides_no_label_of_the_others(tmp_path: Path) -> None:
    mark(tmp_path / "street.jpg", "cvat", ["person"])
    mark(tmp_path / "car park.jpg", "cvat", ["car"])
    text(tmp_path / "more.xml", "<annotations")
    bad: list[DatasetError] = []
    samples = read_dataset(tmp_path, bad=bad)
    assert {sample.name: len(sample.heads) for sample in samples} == {"street": 1, "car park": 0}
    assert "more.xml" in str(bad[0])


@pytest.mark.parametrize(("category", "refused"), [(1, False), (0, True)])
def test_of_photographs_that_coco_does_not_list_what_is_no_person_may_be_left(
    tmp_path: Path, category: int, refused: bool
) -> None:
    mark(tmp_path / "street.jpg", "coco", ["person"])
    content = json.loads((tmp_path / "street.json").read_text(encoding="utf-8"))
    content["annotations"] += [{"image_id": 2, "category_id": category, "bbox": [9, 9, *SIZE]}]
    text(tmp_path / "street.json", json.dumps(content))
    if refused:
        with pytest.raises(DatasetError, match="annotates image 2, which it does not list"):
            read_dataset(tmp_path)
    else:
        assert counted(tmp_path) == {"street": [1]}
