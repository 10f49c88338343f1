"""Malformed annotations: each names the file and the trouble."""

from __future__ import annotations

import copy
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csrnet_hub.datasets import FORMATS, DatasetError, Sample, read_dataset
from csrnet_hub.datasets.check import check
from tests.test_datasets_formats import (
    NOBODY,
    SIZE,
    TWO,
    WRITERS,
    Points,
    cell,
    mall,
    mat,
    mat73,
    nwpu,
    own_photos,
    photo,
    struct,
    text,
    ucf_cc_50,
)


def shanghaitech(folder: Path, heads: Points = TWO) -> str:
    data = folder / "train_data"
    for number, points in ((1, heads), (2, NOBODY)):
        photo(data / "images" / f"IMG_{number}.jpg")
        record = struct(location=points, number=len(points))
        mat(data / "ground-truth" / f"GT_IMG_{number}.mat", image_info=cell([record]))
    return "train"


def nwpu_mats(folder: Path, heads: Points = TWO) -> str:
    nwpu(folder)
    (folder / "jsons" / "0001.json").unlink()
    mat(folder / "mats" / "0001.mat", annPoints=heads)
    return "train"


def hdf5(folder: Path, heads: Points = TWO) -> str:
    ucf_cc_50(folder)
    mat73(folder / "1_ann.mat", annPoints=np.asarray(heads))
    return "all"


READERS = {
    **WRITERS,
    "shanghaitech": shanghaitech,
    "nwpu as .mat": nwpu_mats,
    "ucf-cc-50 as HDF5": hdf5,
}
MATLAB = {  # what MATLAB wrote, of the first picture: the file, and the key of its heads
    "shanghaitech": ("train_data/ground-truth/GT_IMG_1.mat", "image_info"),
    "ucf-cc-50": ("1_ann.mat", "annPoints"),
    "ucf-cc-50 as HDF5": ("1_ann.mat", "annPoints"),
    "ucf-qnrf": ("Train/img_0001_ann.mat", "annPoints"),
    "worldexpo": (
        "test_label/104207/104207_1-04-S20100821071000000E20100821120000000_clip1_1.mat",
        "point_position",
    ),
    "ucsd": ("vidf-cvpr/vidf1_33_003_frame_full.mat", "frame"),
    "mall": ("mall_gt.mat", "frame"),
    "beijing-brt": ("train/ground_truth/1-20160620091221.mat", "loc"),
    "nwpu as .mat": ("mats/0001.mat", "annPoints"),
    "mat": ("GT_a.mat", "image_info"),
}
TEXT = {  # the same for text
    "trancos": "images/image-1-000001.txt",
    "jhu-crowd": "val/gt/0001.txt",
    "nwpu": "jsons/0001.json",
    "csv": "heads.csv",
    "json": "heads.json",
    "coco": "annotations/people.json",
    "via": "project.json",
    "labelme": "a.json",
    "cvat": "annotations.xml",
    "label-studio": "project.json",
}


def read(folder: Path, name: str) -> list[Sample]:
    return read_dataset(folder, name.split(" ")[0])


def file_of(name: str) -> str:
    return MATLAB[name][0] if name in MATLAB else TEXT[name]


def test_every_reader_is_tried() -> None:
    assert set(READERS) == set(MATLAB) | set(TEXT)
    assert {name.split(" ")[0] for name in READERS} == set(FORMATS)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "heads",
    [
        NOBODY,
        np.array([[3.0, 4.0]]),
        np.array([[3, 4], [50, 6], [7, 8]], dtype=np.uint8),
        np.array([[3, 4]], dtype=np.int64),
        np.array([[-3.5, 4.0]]),
    ],
    ids=["none", "one", "bytes", "integers", "negative"],
)
def test_empty_single_integer_and_negative_points_are_read(
    tmp_path: Path, name: str, heads: np.ndarray
) -> None:
    READERS[name](tmp_path, heads)
    found = read(tmp_path, name)[0].heads
    assert found.shape == heads.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, heads, rtol=1e-6)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_points_that_are_not_finite_are_named_with_their_file(
    tmp_path: Path, name: str, value: float
) -> None:
    READERS[name](tmp_path, np.array([[5.0, 6.0], [value, 1.0]]))
    with pytest.raises(DatasetError, match=rf"{Path(file_of(name)).name}.*not finite"):
        read(tmp_path, name)


@pytest.mark.parametrize("name", READERS)
def test_a_photograph_with_bad_points_is_left_out_when_asked_and_listed(
    tmp_path: Path, name: str
) -> None:
    READERS[name](tmp_path, np.array([[np.nan, 1.0]]))
    bad: list[DatasetError] = []
    samples = read_dataset(tmp_path, name.split(" ")[0], bad=bad)
    assert [len(sample.heads) for sample in samples] == [0]
    assert len(bad) == 1
    assert Path(file_of(name)).name in str(bad[0])


@pytest.mark.parametrize("name", MATLAB)
@pytest.mark.parametrize("shape", [(2, 5), (4, 1), (7,), (2, 2, 2)])
def test_points_of_a_wrong_shape_are_named(tmp_path: Path, name: str, shape: tuple) -> None:
    READERS[name](tmp_path, np.ones(shape))
    with pytest.raises(DatasetError, match=rf"{Path(file_of(name)).name}.*shape \("):
        read(tmp_path, name)


@pytest.mark.parametrize("name", [name for name in MATLAB if "HDF5" not in name])
def test_words_in_place_of_points_are_named(tmp_path: Path, name: str) -> None:
    READERS[name](tmp_path, np.array(["none"]))
    with pytest.raises(DatasetError, match=rf"{Path(file_of(name)).name}.*not numbers"):
        read(tmp_path, name)


TEXTS = ["x" * 10_000] + ["x"] * 1000  # as an array of NumPy's 40 MB


def assert_refused_in_little_memory(call: Callable[[], object], trouble: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=trouble):
            call()
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [*(name for name in MATLAB if "HDF5" not in name), "json"])
def test_a_long_text_in_place_of_points_takes_little_memory(tmp_path: Path, name: str) -> None:
    if name in MATLAB:
        READERS[name](tmp_path, cell(TEXTS))
    else:
        own_photos(tmp_path)
        text(tmp_path / TEXT[name], json.dumps({"a.jpg": [[1, text] for text in TEXTS]}))
    trouble = rf"{Path(file_of(name)).name}.*not numbers"
    assert_refused_in_little_memory(lambda: read(tmp_path, name), trouble)


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        (
            "worldexpo",
            "test_label/104207/roi.mat",
            {f"maskVertices{axis}Coordinates": cell(TEXTS) for axis in "XY"},
        ),
        ("ucsd", "vidf-cvpr/vidf1_33_roi_mainwalkway.mat", {"roi": struct(mask=cell(TEXTS))}),
        ("trancos", "images/image-1-000001mask.mat", {"BW": cell(TEXTS)}),
    ],
)
def test_a_long_text_in_place_of_a_region_takes_little_memory(
    tmp_path: Path, name: str, file: str, content: dict
) -> None:
    WRITERS[name](tmp_path)
    mat(tmp_path / file, **content)
    sample = read(tmp_path, name)[0]
    trouble = rf"{Path(file).name}.*not an array of numbers"
    assert_refused_in_little_memory(lambda: sample.counted(SIZE[1], SIZE[0]), trouble)


@pytest.mark.parametrize("name", MATLAB)
def test_a_missing_key_is_named(tmp_path: Path, name: str) -> None:
    READERS[name](tmp_path)
    file, key = MATLAB[name]
    write = mat73 if "HDF5" in name or name == "worldexpo" else mat
    write(tmp_path / file, other=TWO)
    missing = rf"{Path(file).name} has no entry (fgt|{key})"  # the last key that UCSD may have
    with pytest.raises(DatasetError, match=missing):
        read(tmp_path, name)


@pytest.mark.parametrize("name", MATLAB)
def test_a_key_that_holds_something_else_is_named(tmp_path: Path, name: str) -> None:
    READERS[name](tmp_path)
    file, key = MATLAB[name]
    for other in (struct(place=TWO), cell([TWO]), np.zeros((0, 0)), np.array(5), "none"):
        mat(tmp_path / file, **{key: other})
        if isinstance(other, np.ndarray) and other.size == 0 and key not in ("image_info", "frame"):
            assert len(read(tmp_path, name)[0].heads) == 0  # an empty array is nobody
            continue
        with pytest.raises(DatasetError, match=Path(file).name):
            read(tmp_path, name)


ROWS = ("trancos", "jhu-crowd", "csv")  # of a table cut off after a row nothing can be told


@pytest.mark.parametrize("name", [name for name in READERS if name not in ROWS])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, keep: float) -> None:
    READERS[name](tmp_path, np.random.default_rng(0).integers(9, 40, (90, 2)))
    path = tmp_path / file_of(name)
    content = path.read_bytes().strip()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DatasetError, match=path.name):
        read(tmp_path, name)


@pytest.mark.parametrize("name", MATLAB)
def test_an_unreadable_hdf5_file_is_named(tmp_path: Path, name: str) -> None:
    READERS[name](tmp_path)
    path = tmp_path / file_of(name)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\xff" * 300)
    with pytest.raises(DatasetError, match=rf"{path.name} cannot be read"):
        read(tmp_path, name)


def nodes(value: Any, place: tuple = ()) -> Iterator[tuple]:
    """The places of everything in a JSON document."""
    yield place
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from nodes(item, (*place, key))


def with_item(value: Any, place: tuple, item: Any) -> Any:
    """The document with something else at a place; for ``...``, without what is there."""
    changed = inner = copy.deepcopy(value)
    for key in place[:-1]:
        inner = inner[key]
    if item is Ellipsis:
        del inner[place[-1]]
    else:
        inner[place[-1]] = item
    return changed


@pytest.mark.parametrize("name", [name for name in TEXT if TEXT[name].endswith(".json")])
def test_nothing_in_a_tools_file_is_a_crash_whatever_it_holds(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    file = tmp_path / TEXT[name]
    good = json.loads(file.read_text(encoding="utf-8"))
    refused = 0
    for place in filter(None, nodes(good)):
        for item in (Ellipsis, None, "word", [], [1], {"a": 1}):
            file.write_text(json.dumps(with_item(good, place, item)), encoding="utf-8")
            try:
                read(tmp_path, name)
            except DatasetError as error:  # anything else is a crash
                refused += 1
                told = str(error)
                assert file.name in told or "no photographs" in told
    assert refused > 20


@pytest.mark.parametrize(
    ("name", "path", "trouble"),
    [
        ("worldexpo", "test_label/104207/roi.mat", "roi.mat is missing"),
        ("beijing-brt", "train/ground_truth/1-20160620091221.mat", "1221.mat is missing"),
        ("trancos", "images/image-1-000001.txt", "000001.txt is missing"),
        ("jhu-crowd", "val/gt/0001.txt", "0001.txt is missing"),
        ("nwpu", "jsons/0001.json", "0001.json is missing"),
        ("shanghaitech", "train_data/ground-truth/GT_IMG_2.mat", "GT_IMG_2.mat is missing"),
    ],
)
def test_a_missing_annotation_is_named(tmp_path: Path, name: str, path: str, trouble: str) -> None:
    READERS[name](tmp_path)
    (tmp_path / path).unlink()
    with pytest.raises(DatasetError, match=trouble):
        [sample.counted(SIZE[1], SIZE[0]) for sample in read_dataset(tmp_path, name)]


@pytest.mark.parametrize(
    ("name", "path", "content", "trouble"),
    [
        ("jhu-crowd", "val/gt/0001.txt", "1 2 3\n", "line 1: 3 numbers, not 6"),
        ("jhu-crowd", "val/gt/0001.txt", "1 2 3 4 5 6\nfew\n", "line 2: 'few'"),
        ("trancos", "images/image-1-000001.txt", "nan\t2\n", "not finite"),
        ("nwpu", "jsons/0001.json", "[]", "neither points nor boxes"),
        ("nwpu", "jsons/0001.json", '{"points": [[1, 2, 3]]}', "shape"),
    ],
)
def test_a_line_that_is_wrong_is_named(
    tmp_path: Path, name: str, path: str, content: str, trouble: str
) -> None:
    WRITERS[name](tmp_path)
    text(tmp_path / path, content)
    with pytest.raises(DatasetError, match=rf"{Path(path).stem}.*{trouble}"):
        read_dataset(tmp_path, name)


def test_a_frame_without_annotation_is_named(tmp_path: Path) -> None:
    mall(tmp_path)
    photo(tmp_path / "frames" / "seq_000003.jpg")
    with pytest.raises(DatasetError, match=r"mall_gt\.mat has no frame 3, only 2"):
        read_dataset(tmp_path)


def test_a_frame_without_points_is_named(tmp_path: Path) -> None:
    mall(tmp_path)
    mat(tmp_path / "mall_gt.mat", frame=cell([struct(place=TWO)]))
    with pytest.raises(DatasetError, match=r"mall_gt\.mat, frame 1: there is no loc"):
        read_dataset(tmp_path)


def test_a_bad_row_spoils_no_other_photograph(tmp_path: Path) -> None:
    own_photos(tmp_path)
    text(tmp_path / "heads.csv", "image,x,y\na.jpg,wide,2\nb.jpg,1,2\n")
    bad: list[DatasetError] = []
    assert [sample.name for sample in read_dataset(tmp_path, bad=bad)] == ["b"]
    assert "line 2" in str(bad[0])


@pytest.mark.parametrize(
    "label",
    [
        {"boxes": [[1, 2], [3]]},
        {"boxes": [["a", "b", "c", "d"]]},
        {"boxes": [[1, 2, 3, 10**400]]},
        {"boxes": 5},
        {"boxes": None},
        {"points": [[1.5, 10**400]]},
    ],
)
def test_boxes_and_points_that_are_none_are_named(tmp_path: Path, label: dict) -> None:
    nwpu(tmp_path)
    text(tmp_path / "jsons" / "0001.json", json.dumps(label))
    with pytest.raises(DatasetError, match=r"0001\.json"):
        read_dataset(tmp_path, "nwpu")


def test_numbers_that_no_float_holds_are_named(tmp_path: Path) -> None:
    WRITERS["coco"](tmp_path)
    path = tmp_path / TEXT["coco"]
    content = json.loads(path.read_text(encoding="utf-8"))
    for annotation in content["annotations"]:
        annotation |= {"bbox": [10**400, 0, 10, 10], "keypoints": []}
    text(path, json.dumps(content))
    with pytest.raises(DatasetError, match=path.name):
        read_dataset(tmp_path, "coco")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("heads.csv", '"image,x,y\n' + "a.jpg,1,2\n" * 15_000),  # a quote that never ends
        ("heads.csv", 'image,x,y,note\na.jpg,1,2,"by a pole\na.jpg,3,4,\nb.jpg,5,6,\n'),
        ("heads.json", '{"a.jpg": [[' + "1" * 5000 + ", 2]]}"),
    ],
)
def test_a_field_or_number_without_end_is_named(tmp_path: Path, name: str, content: str) -> None:
    own_photos(tmp_path)
    text(tmp_path / name, content)
    with pytest.raises(DatasetError, match=name):
        read_dataset(tmp_path)


@pytest.mark.parametrize("name", ["z" * 300 + ".png", "z\0.png", "z" * 300 + "/a.png"])
def test_a_name_that_no_file_can_have_spoils_no_other(tmp_path: Path, name: str) -> None:
    own_photos(tmp_path)
    text(tmp_path / "heads.json", json.dumps({"a.jpg": [[1, 2]], name: [[3, 4]]}))
    samples = read_dataset(tmp_path)
    assert [len(sample.heads) for sample in samples] == [1, 1]
    report = check(tmp_path)
    assert (report["images"], len(report["unreadable"])) == (1, 1)


def test_a_list_of_names_too_long_for_files_is_named(tmp_path: Path) -> None:
    nwpu(tmp_path)
    text(tmp_path / "train.txt", "z" * 300 + " 0 0\n0001 1 4\n")
    bad: list[DatasetError] = []
    assert [sample.name for sample in read_dataset(tmp_path, "nwpu", bad=bad)] == ["0001"]
    assert "is missing" in str(bad[0])
