"""Every shape of an annotation tool that is a head, at the place where the tool shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csrnet_hub.datasets import DatasetError, read_dataset
from tests.test_datasets_formats import photo, text


def heads_of(folder: Path, content: str, name: str = "heads.json") -> list[list[float]]:
    """The heads of a.jpg, 64 x 48 pixels, by a file of annotations beside it."""
    photo(folder / "a.jpg")
    text(folder / name, content)
    (sample,) = read_dataset(folder, split="all")
    return np.asarray(sample.heads).tolist()


def coco(*annotations: dict[str, Any]) -> str:
    person = {"id": 1, "name": "person", "keypoints": ["left_eye", "nose", "head"]}
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 7, "category_id": 1, **one} for one in annotations],
        "categories": [person],
    }
    return json.dumps(content)


BOX = [20, 10, 10, 20]  # a whole body, whose middle is (25, 20)


@pytest.mark.parametrize(
    ("keypoints", "place"),
    [
        pytest.param([1, 2, 2, 3, 4, 2, 5, 6, 2], [5, 6], id="the head before all others"),
        pytest.param([1, 2, 2, 3, 4, 2, 0, 0, 0], [3, 4], id="then the nose"),
        pytest.param([1, 2, 2, 3, 4, 0, 5, 6, 0], [1, 2], id="then the first that is labelled"),
        pytest.param([1, 2, 2, 3, 4, 1, 0, 0, 0], [3, 4], id="labelled, though out of sight"),
        pytest.param([1, 2, 0, 3, 4, 0, 5, 6, 0], [25, 20], id="else the middle of the box"),
    ],
)
def test_one_key_point_of_cocos_is_the_head(
    keypoints: list[float], place: list[float], tmp_path: Path
) -> None:
    assert heads_of(tmp_path, coco({"keypoints": keypoints, "bbox": BOX})) == [place]


def test_an_id_of_cocos_may_be_a_float(tmp_path: Path) -> None:
    one = {"bbox": BOX, "category_id": 1.0, "image_id": 7.0}
    assert heads_of(tmp_path, coco(one)) == [[25, 20]]


def test_categories_of_which_cocos_lists_none_are_named(tmp_path: Path) -> None:
    other = {"bbox": [0, 0, 2, 2], "category_id": 2}
    assert heads_of(tmp_path, coco({"bbox": BOX}, other)) == [[25, 20]]
    with pytest.raises(DatasetError, match="lists no category that it annotates, such as 2"):
        heads_of(tmp_path, coco(other))


def test_shares_of_the_sides_are_no_pixels(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="look like fractions"):
        heads_of(tmp_path, coco(*({"bbox": [i / 9, 0.5, 0, 0]} for i in range(9))))
    pictures = [{"id": i, "file_name": f"{i}.jpg"} for i in range(9)]
    boxes = [{"image_id": i, "bbox": [0.5, i / 9, 0, 0]} for i in range(9)]
    text(tmp_path / "heads.json", json.dumps({"images": pictures, "annotations": boxes}))
    bad: list[DatasetError] = []
    assert not read_dataset(tmp_path, bad=bad)
    assert "look like fractions" in str(bad[-1])


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "2"), ({"1": True}, {"1": False, "2": True}), ("head", "2")],
)
def test_vias_options_are_known_by_their_names(tmp_path: Path, one: object, other: object) -> None:
    regions = [
        {"shape_attributes": {"name": "point", "cx": 5, "cy": 6}, "region_attributes": {"is": kind}}
        for kind in (one, other)
    ]
    kinds = {"region": {"is": {"options": {"1": "head", "2": "car", "head": "a face"}}}}
    images = {"a": {"filename": "a.jpg", "regions": regions}}
    content = json.dumps({"_via_attributes": kinds, "_via_img_metadata": images})
    assert heads_of(tmp_path, content) == [[5, 6]]


@pytest.mark.parametrize(
    ("shape", "place"),
    [
        ({"name": "point", "cx": 5, "cy": 6}, [5, 6]),
        ({"name": "circle", "cx": 5, "cy": 6, "r": 3}, [5, 6]),
        ({"name": "ellipse", "cx": 5, "cy": 6, "rx": 3, "ry": 2, "theta": 0.5}, [5, 6]),
        ({"name": "rect", "x": 20, "y": 10, "width": 10, "height": 20}, [25, 20]),
    ],
)
def test_a_shape_of_vias_is_a_head_at_its_middle(
    shape: dict[str, Any], place: list[float], tmp_path: Path
) -> None:
    region = {"shape_attributes": shape, "region_attributes": {}}
    content = {"a.jpg9": {"filename": "a.jpg", "size": 9, "regions": [region]}}
    assert heads_of(tmp_path, json.dumps(content)) == [place]


@pytest.mark.parametrize(
    ("kind", "points", "places"),
    [
        ("point", [[5, 6]], [[5, 6]]),
        ("points", [[5, 6], [7, 8]], [[5, 6], [7, 8]]),
        ("circle", [[5, 6], [9, 6]], [[5, 6]]),
        ("rectangle", [[30, 30], [20, 10]], [[25, 20]]),
    ],
)
def test_shapes_of_labelmes(
    kind: str, points: list[list[float]], places: list[list[float]], tmp_path: Path
) -> None:
    shape = {"label": "head", "points": points, "shape_type": kind}
    content = {"version": "5.1", "shapes": [shape], "imagePath": "a.jpg", "imageData": None}
    assert heads_of(tmp_path, json.dumps(content), "a.json") == places


@pytest.mark.parametrize(
    ("shape", "places"),
    [
        ('<points label="head" points="5.00,6.00;7.00,8.00" />', [[5, 6], [7, 8]]),
        ('<box label="head" xtl="20" ytl="10" xbr="30" ybr="30" />', [[25, 20]]),
        ('<ellipse label="head" cx="5.00" cy="6.00" rx="3" ry="2" />', [[5, 6]]),
    ],
)
def test_shapes_of_cvats(shape: str, places: list[list[float]], tmp_path: Path) -> None:
    image = f'<image id="0" name="a.jpg" width="64" height="48">{shape}</image>'
    content = f"<annotations><version>1.1</version>{image}</annotations>"
    assert heads_of(tmp_path, content, "annotations.xml") == places


def label_studio(*annotations: dict[str, Any]) -> str:
    return json.dumps([{"id": 1, "data": {"image": "a.jpg"}, "annotations": annotations}])


def of_label_studio(kind: str, **value: float) -> dict[str, Any]:
    return {"type": kind, "original_width": 64, "original_height": 48, "value": value}


@pytest.mark.parametrize(
    ("shape", "place"),
    [
        (of_label_studio("keypointlabels", x=25, y=50, width=1), [16, 24]),
        (of_label_studio("ellipselabels", x=25, y=50, radiusX=10, radiusY=20), [16, 24]),
        (of_label_studio("ellipse", x=25, y=50, width=1, height=1, rotation=30), [16, 24]),
        (of_label_studio("rectanglelabels", x=25, y=50, width=50, height=25), [32, 30]),
    ],
)
def test_shapes_of_label_studios(shape: dict[str, Any], place: list[float], tmp_path: Path) -> None:
    assert heads_of(tmp_path, label_studio({"result": [shape]})) == [place]


def test_of_several_annotations_of_a_task_the_first_that_was_not_cancelled_counts(
    tmp_path: Path,
) -> None:
    first, second, third = (of_label_studio("keypoint", x=x, y=50) for x in (25, 50, 75))
    cancelled = {"was_cancelled": True, "result": [first]}
    content = label_studio(cancelled, {"result": [second]}, {"result": [third]})
    assert heads_of(tmp_path, content) == [[32, 24]]
