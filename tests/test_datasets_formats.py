"""Every format read from small files written as the data set or the tool writes them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from csrnet_hub.annotations import to_mat
from csrnet_hub.datasets import (
    FORMATS,
    DatasetError,
    find_splits,
    guess_format,
    paper_sigma,
    read_dataset,
)
from tests.test_datasets import write_part

SIZE = (64, 48)  # width and height in pixels of every picture here
TWO = np.array([[10.5, 20.25], [30.0, 5.0]])


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def mat(path: Path, **content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, content)
    return path


def mat73(path: Path, **content: np.ndarray) -> Path:
    """A file as MATLAB 7.3 writes it: HDF5 behind 512 bytes, columns first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, value in content.items():
            empty = value.size == 0
            shape = np.array(value.shape, dtype=np.uint64)
            file[key] = shape if empty else np.asarray(value, dtype=float).T
            file[key].attrs["MATLAB_class"] = np.bytes_("double")
            if empty:
                file[key].attrs["MATLAB_empty"] = np.uint8(1)
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(128))
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def cell(items: list) -> np.ndarray:
    array = np.empty((1, len(items)), dtype=object)
    array[0] = items
    return array


def struct(**fields: object) -> np.ndarray:
    record = np.zeros((1, 1), dtype=[(name, object) for name in fields])
    record[0, 0] = tuple(fields.values())
    return record


# Each writes a data set whose split holds two pictures: the first with `heads`, the second with
# nobody. Where an annotation may be a point or a box, the first head is a point and the rest boxes.
NOBODY = np.zeros((0, 2))
Points: TypeAlias = Any  # what a file may hold in place of (N, 2) too


def ucf_cc_50(folder: Path, heads: Points = TWO) -> str:
    for number, points in ((1, heads), (2, NOBODY)):
        photo(folder / f"{number}.jpg")
        mat(folder / f"{number}_ann.mat", annPoints=points)
    return "all"


def ucf_qnrf(folder: Path, heads: Points = TWO) -> str:
    for number, points in ((1, heads), (2, NOBODY)):
        photo(folder / "Train" / f"img_{number:04}.jpg")
        mat(folder / "Train" / f"img_{number:04}_ann.mat", annPoints=points)
    return "train"


def worldexpo(folder: Path, heads: Points = TWO) -> str:
    for number, points in ((1, heads), (2, np.zeros((0, 0)))):
        name = f"104207_1-04-S20100821071000000E20100821120000000_clip1_{number}"
        photo(folder / "test_frame" / "104207" / f"{name}.jpg")
        label = folder / "test_label" / "104207" / f"{name}.mat"
        numbers = np.asarray(points).dtype.kind in "iuf"
        (mat73 if numbers else mat)(label, point_position=points)
    x, y = [[0.0], [40.0], [40.0], [0.0]], [[0.0], [0.0], [30.0], [30.0]]
    roi = folder / "test_label" / "104207" / "roi.mat"
    mat(roi, maskVerticesXCoordinates=x, maskVerticesYCoordinates=y)
    return "test"


def ucsd(folder: Path, heads: Points = TWO, key: str = "frame") -> str:
    frames = []
    for number, points in ((1, heads), (2, NOBODY)):
        photo(folder / "vidf" / "vidf1_33_003.y" / f"vidf1_33_003_f{number:03}.png")
        if np.shape(points)[1:] == (2,):  # the third column is no part of the place
            points = np.hstack([points, np.ones((len(points), 1))])
        frames.append(struct(loc=points, id=np.arange(2)[None]))
    content = {"frame": cell(frames)} if key == "frame" else {"fgt": struct(frame=cell(frames))}
    mat(folder / "vidf-cvpr" / "vidf1_33_003_frame_full.mat", **content)
    mask = np.zeros((SIZE[1], SIZE[0]), dtype=np.uint8)
    mask[:30, :25] = 1
    roi = folder / "vidf-cvpr" / "vidf1_33_roi_mainwalkway.mat"
    mat(roi, roi=struct(xi=[[0.0]], yi=[[0.0]], mask=mask))
    mat(folder / "vidf-cvpr" / "vidf1_33_003_count_roi_mainwalkway.mat", count=1)
    return "train"


def mall(folder: Path, heads: Points = TWO) -> str:
    frames = [struct(loc=heads), struct(loc=NOBODY)]
    for number in (1, 2):
        photo(folder / "frames" / f"seq_{number:06}.jpg")
    mat(folder / "mall_gt.mat", frame=cell(frames), count=[[2], [0]])
    return "train"


def beijing_brt(folder: Path, heads: Points = TWO) -> str:
    for name, points in (("1-20160620091221", heads), ("1-20160620091222", np.zeros((0, 0)))):
        photo(folder / "train" / "frame" / f"{name}.jpg")
        mat(folder / "train" / "ground_truth" / f"{name}.mat", loc=points)
    return "train"


def trancos(folder: Path, heads: Points = TWO) -> str:
    for number, points in ((1, heads), (2, NOBODY)):
        name = f"image-1-00000{number}"
        photo(folder / "images" / f"{name}.jpg")
        photo(folder / "images" / f"{name}dots.png")
        lines = "".join(f"{x:g}\t{y:g}\r\n" for x, y in points)
        text(folder / "images" / f"{name}.txt", lines)
        mask = np.ones((SIZE[1], SIZE[0]), dtype=bool)
        mask[:10] = False
        mat(folder / "images" / f"{name}mask.mat", BW=mask)
    names = "image-1-000001.jpg\nimage-1-000002.jpg\n"
    for file in ("training", "trainval"):
        text(folder / "image_sets" / f"{file}.txt", names)
    return "train"


def jhu_crowd(folder: Path, heads: Points = TWO) -> str:
    for name, points in (("0001", heads), ("0002", NOBODY)):
        photo(folder / "val" / "images" / f"{name}.jpg")
        lines = "".join(f"{x} {y} 8 9 1 0 \n" for x, y in points)
        text(folder / "val" / "gt" / f"{name}.txt", lines)
    text(folder / "val" / "image_labels.txt", "0001,2,street,0,0\n0002,0,water,0,1\n")
    return "val"


def nwpu(folder: Path, heads: Points = TWO) -> str:
    for name, points in (("0001", heads), ("3110", NOBODY)):
        photo(folder / ("images_part1" if name == "0001" else "images_part4") / f"{name}.jpg")
        label = {"img_id": f"{name}.jpg", "human_num": len(points)}
        label |= {"points": np.asarray(points).tolist(), "boxes": []}
        text(folder / "jsons" / f"{name}.json", json.dumps(label))
    text(folder / "train.txt", "0001 1 4\n3110 0 0\n")
    return "train"


def own_photos(folder: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        photo(folder / name)


def csv(folder: Path, heads: Points = TWO) -> str:
    own_photos(folder)
    rows = "".join(f"a.jpg,{x},{y}\n" for x, y in heads) or "a.jpg,,\n"
    text(folder / "heads.csv", f"image,x,y\n{rows}b.jpg,,\n")
    return "all"


def json_points(folder: Path, heads: Points = TWO) -> str:
    own_photos(folder)
    text(folder / "heads.json", json.dumps({"a.jpg": np.asarray(heads).tolist(), "b.jpg": []}))
    return "all"


def point_and_boxes(heads: Points) -> tuple[list[list[float]], list[list[float]]]:
    """The first of the heads, and the upper left corners of 10 x 10 pixels about the others."""
    lists = np.asarray(heads, dtype=float).tolist()
    return lists[:1], [[x - 5, y - 5] for x, y in lists[1:]]


def coco(folder: Path, heads: Points = TWO) -> str:
    own_photos(folder / "images")
    points, boxes = point_and_boxes(heads)
    person = {"image_id": 7, "category_id": 1, "iscrowd": 0}
    annotations: list[dict[str, Any]] = [
        *({**person, "keypoints": [0, 0, 0, x, y, 2]} for x, y in points),
        *({**person, "bbox": [x, y, 10, 10]} for x, y in boxes),
        {"image_id": 9, "category_id": 2, "bbox": [1, 2, 3, 4], "iscrowd": 0},
    ]
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
        "annotations": [{"id": number, **each} for number, each in enumerate(annotations)],
        "categories": [
            {"id": 1, "name": "person", "keypoints": ["left_foot", "nose"]},
            {"id": 2, "name": "dog"},
        ],
    }
    text(folder / "annotations" / "people.json", json.dumps(content))
    return "all"


def via(folder: Path, heads: Points = TWO) -> str:
    own_photos(folder)
    points, boxes = point_and_boxes(heads)
    shapes: list[dict[str, Any]] = [{"name": "point", "cx": x, "cy": y} for x, y in points]
    shapes += [{"name": "rect", "x": x, "y": y, "width": 10, "height": 10} for x, y in boxes]
    regions = [{"shape_attributes": shape, "region_attributes": {}} for shape in shapes]
    content = {
        "_via_settings": {},
        "_via_img_metadata": {
            "a.jpg123": {"filename": "a.jpg", "size": 123, "regions": regions},
            "b.jpg456": {"filename": "b.jpg", "size": 456, "regions": []},
        },
    }
    text(folder / "project.json", json.dumps(content))
    return "all"


def labelme(folder: Path, heads: Points = TWO) -> str:
    own_photos(folder)
    points, boxes = point_and_boxes(heads)
    shapes: list[dict[str, Any]] = [{"points": [point], "shape_type": "point"} for point in points]
    shapes += [{"points": [[x, y], [x + 10, y + 10]], "shape_type": "rectangle"} for x, y in boxes]
    shapes = [{"label": "head", **shape} for shape in shapes]
    for name, own in (("a", shapes), ("b", [])):
        content = {"version": "5.1", "shapes": own, "imagePath": f"..\\photos\\{name}.jpg"}
        text(folder / f"{name}.json", json.dumps({**content, "imageData": None}))
    return "all"


def cvat(folder: Path, heads: Points = TWO) -> str:
    own_photos(folder / "images")
    points, boxes = point_and_boxes(heads)
    same = 'label="head" source="manual" occluded="0" z_order="0"'
    shapes = [f'<points {same} points="{x:.2f},{y:.2f}"></points>' for x, y in points]
    shapes += [
        f'<box {same} xtl="{x}" ytl="{y}" xbr="{x + 10}" ybr="{y + 10}"></box>' for x, y in boxes
    ]
    content = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><name>heads</name></task></meta>
<image id="0" name="a.jpg" width="64" height="48">
{"".join(shapes)}
</image>
<image id="1" name="b.jpg" width="64" height="48"><tag label="empty"></tag></image>
</annotations>"""
    text(folder / "annotations.xml", content)
    return "all"


def label_studio(folder: Path, heads: Points = TWO) -> str:
    own_photos(folder)
    size = {"original_width": 64, "original_height": 48, "image_rotation": 0}
    points, boxes = point_and_boxes(heads)
    wide, high = 1000 / 64, 1000 / 48  # 10 pixels in percent
    result: list[dict[str, Any]] = [
        {"type": "keypointlabels", "value": {"x": x / 64 * 100, "y": y / 48 * 100, "width": 0.5}}
        for x, y in points
    ]
    result += [
        {
            "type": "rectanglelabels",
            "value": {"x": x / 64 * 100, "y": y / 48 * 100, "width": wide, "height": high},
        }
        for x, y in boxes
    ]
    result.append({"type": "choices", "value": {"choices": ["day"]}})
    result = [{**shape, **size} for shape in result]
    upload, local = "/data/upload/3/1f2e3d4c-a.jpg", "/data/local-files/?d=photos%2Fb.jpg"
    cancelled = {"was_cancelled": True, "result": [{"type": "keypointlabels"}]}
    tasks = [
        {"id": 1, "data": {"image": upload}, "annotations": [cancelled, {"result": result}]},
        {"id": 2, "data": {"image": local}, "annotations": [{"result": []}]},
    ]
    text(folder / "project.json", json.dumps(tasks))
    return "all"


def mats_beside(folder: Path, heads: Points = TWO) -> str:
    own_photos(folder)
    for name, points in (("a", heads), ("b", NOBODY)):
        image_info = cell([struct(location=points, number=len(points))])
        mat(folder / f"GT_{name}.mat", image_info=image_info)
    return "all"


WRITERS: dict[str, Callable[..., str]] = {
    "ucf-cc-50": ucf_cc_50,
    "ucf-qnrf": ucf_qnrf,
    "worldexpo": worldexpo,
    "ucsd": ucsd,
    "mall": mall,
    "beijing-brt": beijing_brt,
    "trancos": trancos,
    "jhu-crowd": jhu_crowd,
    "nwpu": nwpu,
    "csv": csv,
    "json": json_points,
    "coco": coco,
    "via": via,
    "labelme": labelme,
    "cvat": cvat,
    "label-studio": label_studio,
    "mat": mats_beside,
}


def test_every_format_but_shanghaitech_is_written_here() -> None:
    assert set(WRITERS) | {"shanghaitech"} == set(FORMATS)


@pytest.mark.parametrize("name", WRITERS)
def test_a_format_is_guessed_and_read(tmp_path: Path, name: str) -> None:
    split = WRITERS[name](tmp_path)
    assert guess_format(tmp_path) == name
    assert split in find_splits(tmp_path)
    first, second = read_dataset(tmp_path, split=split)
    np.testing.assert_allclose(first.heads, TWO, rtol=1e-6)
    assert first.heads.dtype == np.float32
    assert second.heads.shape == (0, 2)
    assert first.path.is_file()
    assert second.path.is_file()
    assert first.name != second.name
    assert "/" not in first.name
    assert first.split == split
    again = read_dataset(tmp_path, name)
    assert [sample.name for sample in again] == [first.name, second.name]


def test_shanghaitech_is_guessed_and_read(tmp_path: Path) -> None:
    part = write_part(tmp_path / "part_B_final", [3, 0])
    assert guess_format(part) == "shanghaitech"
    assert [len(sample.heads) for sample in read_dataset(part)] == [3, 0]
    with pytest.raises(DatasetError, match=r"folder of one part, such as .*part_B_final"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_endings_in_capitals_are_read_alike(tmp_path: Path, name: str) -> None:
    split = WRITERS[name](tmp_path)
    for path in [*tmp_path.rglob("*.*")]:
        if path.is_file() and "image_sets" not in path.parts:
            path.rename(path.with_name(path.stem + path.suffix.upper()))
    samples = read_dataset(tmp_path, split=split)
    assert [len(sample.heads) for sample in samples] == [2, 0]
    assert all(sample.path.is_file() for sample in samples)
    masked = {"ucsd": 1, "trancos": 1}.get(name, 2)  # finds its mask
    assert [len(sample.counted(SIZE[1], SIZE[0])) for sample in samples] == [masked, 0]


@pytest.mark.parametrize("name", WRITERS)
def test_folders_in_capitals_are_read_alike(tmp_path: Path, name: str) -> None:
    split = WRITERS[name](tmp_path)
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    for path in sorted(folders, key=lambda path: -len(path.parts)):  # the inner ones first
        path.rename(path.with_name(path.name.upper()))
    samples = read_dataset(tmp_path, split=split)
    assert [len(sample.heads) for sample in samples] == [2, 0]
    assert all(sample.path.is_file() for sample in samples)


def test_photographs_of_ones_own_laid_out_as_shanghaitech_need_no_split(tmp_path: Path) -> None:
    for kind in ("images", "ground-truth"):
        (tmp_path / "set" / kind).mkdir(parents=True)
    photo(tmp_path / "set" / "images" / "crowd.jpg")
    (tmp_path / "set" / "ground-truth" / "GT_crowd.mat").write_bytes(to_mat(TWO))
    assert find_splits(tmp_path / "set") == ["all"]
    (sample,) = read_dataset(tmp_path / "set")
    np.testing.assert_allclose(sample.heads, TWO, rtol=1e-6)
    assert paper_sigma(tmp_path / "set") is None


def test_a_part_from_another_system_is_read(tmp_path: Path) -> None:
    part = write_part(tmp_path / "Münster, 2. Tag" / "part_A final", [3, 2])
    data = part / "train_data"
    (data / "images" / "IMG_1.jpg").rename(data / "images" / "IMG_1.JPG")
    (data / "ground-truth" / "GT_IMG_1.mat").rename(data / "ground-truth" / "gt_img_1.MAT")
    (data / "images" / "._IMG_2.jpg").write_bytes(b"\x00\x05\x16\x07")  # left by macOS
    assert [len(sample.heads) for sample in read_dataset(part)] == [3, 2]


# regions of interest


def test_a_polygon_holds_its_inside(tmp_path: Path) -> None:
    worldexpo(tmp_path)
    sample = read_dataset(tmp_path)[0]
    assert sample.mask is not None
    mask = sample.mask(SIZE[1], SIZE[0])
    assert mask[15, 20]
    assert not mask[40, 20]
    assert not mask[15, 50]
    assert mask.sum() == 31 * 41


@pytest.mark.parametrize("name", ["ucsd", "trancos"])
def test_a_mask_of_another_size_is_named(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    sample = read_dataset(tmp_path)[0]
    assert sample.mask is not None
    with pytest.raises(DatasetError, match=r"(mainwalkway|000001mask)\.mat.*mask has shape"):
        sample.mask(10, 10)


def test_the_first_800_frames_of_mall_are_for_training(tmp_path: Path) -> None:
    for number in (1, 800, 801, 2000):
        photo(tmp_path / "frames" / f"seq_{number:06}.jpg")
    photo(tmp_path / "frames" / "seq_000001 (2).jpg")  # a copy: it is no frame 12
    mat(tmp_path / "mall_gt.mat", frame=cell([struct(loc=NOBODY)] * 2000))
    names = {
        split: [s.name for s in read_dataset(tmp_path, "mall", split)]
        for split in ("train", "test")
    }
    assert names == {
        "train": ["seq_000001", "seq_000800"],
        "test": ["seq_000801", "seq_002000"],
    }


def test_mall_has_no_mask_and_all_points_count_without_one(tmp_path: Path) -> None:
    mall(tmp_path)
    assert len(read_dataset(tmp_path)[0].counted(1, 1)) == 2


# protocols


def test_both_releases_of_ucsd_are_read(tmp_path: Path) -> None:
    ucsd(tmp_path, key="fgt")
    np.testing.assert_allclose(read_dataset(tmp_path, "ucsd", "train")[0].heads, TWO)


def test_ucsd_trains_on_clips_three_to_six_and_tests_on_the_rest(tmp_path: Path) -> None:
    ucsd(tmp_path)
    for clip in ("000", "002", "006", "007", "012"):
        photo(tmp_path / "vidf" / f"vidf1_33_{clip}.y" / f"vidf1_33_{clip}_f001.png")
        frames = [struct(loc=np.zeros((0, 3)))]
        mat(tmp_path / "vidf-cvpr" / f"vidf1_33_{clip}_frame_full.mat", frame=cell(frames))
    groups = {
        split: {sample.group[-3:] for sample in read_dataset(tmp_path, split=split)}
        for split in ("train", "test")
    }
    assert groups == {"train": {"003", "006"}, "test": {"000", "002", "007"}}


def test_the_five_folds_are_disjoint_and_cover_everything(tmp_path: Path) -> None:
    for number in range(1, 51):
        photo(tmp_path / f"{number}.jpg")
        mat(tmp_path / f"{number}_ann.mat", annPoints=TWO)
    held_out: list[str] = []
    for fold in range(1, 6):
        test = [s.name for s in read_dataset(tmp_path, split=f"fold{fold}")]
        train = [s.name for s in read_dataset(tmp_path, split=f"but{fold}")]
        assert (len(test), len(train)) == (10, 40)
        assert not set(test) & set(train)
        held_out += test
    assert held_out == [str(number) for number in range(1, 51)]
    assert len(read_dataset(tmp_path)) == 50


def test_trancos_counts_vehicles_and_its_trainval_repeats_nothing(tmp_path: Path) -> None:
    trancos(tmp_path)
    assert find_splits(tmp_path) == ["train", "trainval"]
    assert len(read_dataset(tmp_path)) == 2
    assert FORMATS["trancos"].subject == "vehicles"


def test_nwpu_takes_mats_and_boxes_where_there_are_no_points(tmp_path: Path) -> None:
    nwpu(tmp_path)
    (tmp_path / "jsons" / "0001.json").unlink()
    mat(tmp_path / "mats" / "0001.mat", annPoints=TWO)
    text(tmp_path / "jsons" / "3110.json", json.dumps({"boxes": [[0, 0, 4, 8], [2, 2, 4, 4]]}))
    first, second = read_dataset(tmp_path)
    np.testing.assert_allclose(first.heads, TWO)
    assert second.heads.tolist() == [[2, 4], [3, 3]]


@pytest.mark.parametrize(
    ("name", "folder", "sigma"),
    [
        ("shanghaitech", "part_A_final", None),
        ("shanghaitech", "part_B", 15),
        ("ucf-cc-50", "UCF_CC_50", None),
        ("trancos", "TRANCOS_v3", 10),
        ("worldexpo", "x", 3),
        ("ucsd", "x", 3),
    ],
)
def test_kernels_are_those_of_the_paper(name: str, folder: str, sigma: float | None) -> None:
    assert paper_sigma(folder, name) == sigma


# folders


def test_a_folder_of_no_format_is_a_sentence_with_the_formats(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none of the formats shanghaitech, .*need annotations"):
        read_dataset(tmp_path)
    with pytest.raises(DatasetError, match="no folder"):
        read_dataset(tmp_path / "gone")
    with pytest.raises(DatasetError, match="no format 'voc'; choose"):
        read_dataset(tmp_path, "voc")


@pytest.mark.parametrize("name", [*WRITERS, "shanghaitech"])
def test_a_folder_that_holds_nothing_of_a_format_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=tmp_path.name):
        read_dataset(tmp_path, name)
    with pytest.raises(DatasetError, match=rf"{tmp_path.name}|no split 'train'"):
        read_dataset(tmp_path, name, "train")


@pytest.mark.parametrize("name", WRITERS)
def test_a_split_that_is_not_there_is_a_sentence(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    with pytest.raises(DatasetError, match="holdout"):
        read_dataset(tmp_path, name, "holdout")


def test_an_annotation_that_was_changed_is_read_anew(tmp_path: Path) -> None:
    mall(tmp_path)
    assert len(read_dataset(tmp_path)[0].heads) == 2
    mall(tmp_path, np.ones((5, 2)))
    later = (tmp_path / "mall_gt.mat").stat().st_mtime_ns + 10**9
    os.utime(tmp_path / "mall_gt.mat", ns=(later, later))
    assert len(read_dataset(tmp_path)[0].heads) == 5
