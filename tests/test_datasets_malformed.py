"""Malformed annotations: each names the file and the trouble."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from csrnet_hub.datasets import DatasetError, read_dataset
from tests.test_datasets_formats import (
    SIZE,
    TWO,
    WRITERS,
    cell,
    mall,
    mat,
    mat73,
    own_photos,
    photo,
    struct,
    text,
    ucf_cc_50,
)


def broken(folder: Path, heads: object, form: str = "5") -> Path:
    """UCF_CC_50's layout with two pictures, the first annotation being `heads`."""
    ucf_cc_50(folder)
    path = folder / "1_ann.mat"
    (mat73 if form == "7.3" else mat)(path, annPoints=np.asarray(heads))
    return path


@pytest.mark.parametrize("form", ["5", "7.3"])
@pytest.mark.parametrize(
    ("heads", "shape"),
    [
        (np.zeros((0, 0)), (0, 2)),
        (np.zeros((0, 2)), (0, 2)),
        ([[3.0, 4.0]], (1, 2)),
        (np.array([[3, 4], [5, 6], [7, 8]], dtype=np.uint16), (3, 2)),
        (np.array([[-3, 4]], dtype=np.int32), (1, 2)),
    ],
)
def test_empty_single_integer_and_negative_points_are_read(
    tmp_path: Path, heads: object, shape: tuple[int, int], form: str
) -> None:
    broken(tmp_path, heads, form)
    found = read_dataset(tmp_path)[0].heads
    assert found.shape == shape
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.asarray(heads).reshape(shape))


@pytest.mark.parametrize("form", ["5", "7.3"])
@pytest.mark.parametrize(
    ("heads", "trouble"),
    [
        ([[1.0, np.nan]], "not finite"),
        ([[np.inf, 1.0]], "not finite"),
        (np.zeros((4, 3)), r"shape \(4, 3\)"),
        (np.zeros((2, 5)), r"shape \(2, 5\)"),
        ([[1.0], [2.0]], r"shape \(2, 1\)"),
    ],
)
def test_points_that_are_none_are_named(
    tmp_path: Path, heads: object, trouble: str, form: str
) -> None:
    broken(tmp_path, heads, form)
    with pytest.raises(DatasetError, match=rf"1_ann\.mat.*{trouble}"):
        read_dataset(tmp_path)


def test_words_in_place_of_points_are_named(tmp_path: Path) -> None:
    broken(tmp_path, "none")
    with pytest.raises(DatasetError, match=r"1_ann\.mat.*not numbers"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("form", ["5", "7.3"])
def test_a_missing_key_is_named(tmp_path: Path, form: str) -> None:
    ucf_cc_50(tmp_path)
    (mat73 if form == "7.3" else mat)(tmp_path / "1_ann.mat", points=TWO)
    with pytest.raises(DatasetError, match=r"1_ann\.mat has no entry annPoints"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("form", ["5", "7.3"])
@pytest.mark.parametrize("keep", [0, 20, 150, 600, 900])
def test_a_truncated_file_is_named(tmp_path: Path, form: str, keep: int) -> None:
    path = broken(tmp_path, np.random.default_rng(0).random((90, 2)), form)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DatasetError, match=r"1_ann\.mat"):
        read_dataset(tmp_path)


def test_an_unreadable_hdf5_file_is_named(tmp_path: Path) -> None:
    path = broken(tmp_path, TWO)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\xff" * 300)
    with pytest.raises(DatasetError, match=r"1_ann\.mat cannot be read"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "path", "trouble"),
    [
        ("worldexpo", "test_label/104207/roi.mat", "roi.mat is missing"),
        ("beijing-brt", "train/ground_truth/1-20160620091221.mat", "1221.mat is missing"),
        ("trancos", "images/image-1-000001.txt", "000001.txt is missing"),
        ("jhu-crowd", "val/gt/0001.txt", "0001.txt is missing"),
        ("nwpu", "jsons/0001.json", "0001.json is missing"),
    ],
)
def test_a_missing_annotation_is_named(tmp_path: Path, name: str, path: str, trouble: str) -> None:
    WRITERS[name](tmp_path)
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
        ("nwpu", "jsons/0001.json", '{"points": [[1, 2, 3]]}', "in place of"),
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


def test_reading_goes_on_past_bad_annotations_and_lists_them(tmp_path: Path) -> None:
    broken(tmp_path, [[np.nan, 1.0]])
    bad: list[DatasetError] = []
    samples = read_dataset(tmp_path, bad=bad)
    assert [sample.name for sample in samples] == ["2"]
    assert len(bad) == 1
    assert "1_ann.mat" in str(bad[0])


def test_a_bad_row_spoils_no_other_photograph(tmp_path: Path) -> None:
    own_photos(tmp_path)
    text(tmp_path / "heads.csv", "image,x,y\na.jpg,wide,2\nb.jpg,1,2\n")
    bad: list[DatasetError] = []
    assert [sample.name for sample in read_dataset(tmp_path, bad=bad)] == ["b"]
    assert "line 2" in str(bad[0])
