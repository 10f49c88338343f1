"""Annotations: what is saved is read back to the same heads; what is no annotation says why."""

from __future__ import annotations

import json
import struct
import tracemalloc
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from csrnet_hub import annotations
from csrnet_hub.annotations import photos_in, read_annotation, to_csv, to_json, to_mat
from csrnet_hub.datasets import DatasetError, guess_format, read_dataset
from csrnet_hub.datasets.matlab import load_mat
from csrnet_hub.datasets.tables import parse_csv

HEADS = np.random.default_rng(3).uniform(0, 999, (50, 2)).astype(np.float32)


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("heads", [HEADS, HEADS[:1], HEADS[:0]])
@pytest.mark.parametrize("suffix", [".csv", ".json", ".mat"])
def test_what_is_saved_is_read_back_to_the_same_heads(heads, suffix, tmp_path):
    makers = {
        ".csv": lambda: to_csv(heads, "a, b.jpg"),
        ".json": lambda: to_json(heads, "a.jpg", 1000, 999),
        ".mat": lambda: to_mat(heads),
    }
    back = read_annotation(written(tmp_path / f"GT_a{suffix}", makers[suffix]()))
    assert back.dtype == np.float32
    assert back.shape == heads.shape
    assert (back == heads).all()


def test_saved_json_has_the_shortest_decimals_of_a_head():
    assert b'"heads": [[0.1, 2.3]]' in to_json([[0.1, 2.3]], "a.jpg", 10, 9)


def test_a_saved_table_of_nobody_is_a_picture_without_people_to_training(tmp_path):
    Image.new("RGB", (96, 64)).save(tmp_path / "a.jpg")
    written(tmp_path / "a.csv", to_csv(HEADS[:0], "a.jpg"))
    (sample,) = read_dataset(tmp_path, "csv", "all")
    assert len(sample.counted(64, 96)) == 0


@pytest.mark.parametrize(
    "table",
    ["12,5;30,25\n1,5;2\n", "12,5\t30,25\n1,5\t2\n", "a.jpg;12,5;30,25\na.jpg;1,5;2\n"],
)
def test_decimal_commas_need_no_names_of_columns(table, tmp_path):
    heads = read_annotation(written(tmp_path / "a.csv", table))
    assert heads.tolist() == [[12.5, 30.25], [1.5, 2.0]]


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.mat"])
def test_a_missing_annotation_is_named_without_its_folder(name, tmp_path):
    with pytest.raises(DatasetError, match=f"The annotation {name} is missing.") as caught:
        read_annotation(tmp_path / name)
    assert str(tmp_path) not in str(caught.value)


def test_names_of_photos_may_hold_a_semicolon(tmp_path):
    table = "image,x,y\na;b.jpg,12.5,30\n"
    assert read_annotation(written(tmp_path / "a.csv", table)).tolist() == [[12.5, 30.0]]


def test_a_name_with_a_semicolon_is_one_cell_where_they_part_cells(tmp_path):
    table = to_csv([[1.5, 2]], "a;=1+1;.jpg")
    assert table == b'image,x,y\n"a;=1+1;.jpg",1.5,2.0\n'
    assert read_annotation(written(tmp_path / "a.csv", table)).tolist() == [[1.5, 2]]
    assert photos_in(tmp_path / "a.csv") == {"a;=1+1;.jpg"}


def test_a_table_of_counts_in_the_same_folder_is_no_annotation(tmp_path):
    Image.new("RGB", (96, 64)).save(tmp_path / "a.jpg")
    written(tmp_path / "points.csv", to_csv(HEADS[:3] / 20, "a.jpg"))
    written(tmp_path / "counts.csv", "image,count,low,high\na.jpg,3.1,2,4\n")
    (sample,) = read_dataset(tmp_path, guess_format(tmp_path), "all")
    assert len(sample.heads) == 3


def test_training_reads_a_saved_mat_to_the_same_heads(tmp_path):
    pytest.importorskip("h5py")
    import h5py

    from train.prepare import prepare

    folder = tmp_path / "part" / "train_data"
    for name in ("images", "ground-truth"):
        (folder / name).mkdir(parents=True)
    heads = np.array([[3.25, 4.5], [60, 20.125], [33, 33]], np.float32)
    Image.new("RGB", (96, 64)).save(folder / "images" / "IMG_7.jpg")
    written(folder / "ground-truth" / "GT_IMG_7.mat", to_mat(heads))
    samples = read_dataset(tmp_path / "part", "shanghaitech", "train")
    prepare(samples, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["heads/IMG_7"][()].tolist() == heads.tolist()


def test_a_mat_has_what_the_readers_of_shanghaitech_look_for(tmp_path):
    from scipy.io import loadmat

    content = loadmat(written(tmp_path / "GT.mat", to_mat(HEADS)))
    info = content["image_info"][0, 0][0, 0]
    assert (info["location"] == HEADS).all()
    assert info["number"].item() == 50


@pytest.mark.parametrize(
    ("text", "heads"),
    [
        ("x,y\n1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("1,2\r\n3.5,4\r\n", [[1, 2], [3.5, 4]]),
        ("y, x\n2,1\n", [[1, 2]]),
        ("\ufeffimage,x,y\na.jpg,1,2\na.jpg,3,4\n", [[1, 2], [3, 4]]),
        ("a.jpg,1,2\n\n", [[1, 2]]),
        ("image;X;Y\na.jpg;1,5;2\n", [[1.5, 2]]),
        ("1,5\t2\n3\t4\n", [[1.5, 2], [3, 4]]),
        ("x,y\n", []),
    ],
)
def test_tables_with_and_without_names_are_read(text, heads, tmp_path):
    assert read_annotation(written(tmp_path / "a.csv", text)).tolist() == heads


def test_of_a_table_of_many_photos_only_the_photos_rows_are_taken(tmp_path):
    table = written(tmp_path / "all.csv", "image,x,y\nd/a.jpg,1,2\nb.jpg,3,4\nd/a.jpg,5,6\n")
    assert read_annotation(table, "a.png").tolist() == [[1, 2], [5, 6]]
    with pytest.raises(DatasetError, match=r"2 photos.*c\.jpg"):
        read_annotation(table, "c.jpg")


@pytest.mark.parametrize(
    "column", ["filename", "File", "image_name", "Image Name", "path", "img", "whatever"]
)
def test_the_column_of_the_photos_has_other_names_too(column, tmp_path):
    """Or the heads of all photos would be taken for those of one."""
    table = written(tmp_path / "all.csv", f"{column},x,y,label\na.jpg,1,2,old\nb.jpg,3,4,young\n")
    assert read_annotation(table, "b.jpg").tolist() == [[3, 4]]
    table = written(tmp_path / "one.csv", "x,y,label\n1,2,old\n3,4,young\n")
    assert read_annotation(table, "b.jpg").tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("column", ["image", "filename", "Image Name", "whatever"])
def test_training_and_the_page_read_one_table_alike(column, tmp_path):
    table = written(tmp_path / "all.csv", f"x,{column},y\n1,a.jpg,2\n3,b.jpg,4\n")
    parsed = {one.name: one.heads().tolist() for one in parse_csv(table)}
    assert parsed == {"a.jpg": [[1, 2]], "b.jpg": [[3, 4]]}
    assert read_annotation(table, "b.jpg").tolist() == parsed["b.jpg"]
    twice = written(tmp_path / "twice.csv", f"{column},x,y,x\na.jpg,1,2,9\n")
    for read in (parse_csv, read_annotation):
        with pytest.raises(DatasetError, match="two columns x"):
            read(twice)


@pytest.mark.parametrize("text", ["image,x,y,remark\na.jpg,1,2\n", "\n\nimage;x;y\na.jpg;1;2\n"])
def test_short_rows_and_blank_lines_are_nobodys_fault(text, tmp_path):
    table = written(tmp_path / "a.csv", text)
    assert [(one.name, one.heads().tolist()) for one in parse_csv(table)] == [("a.jpg", [[1, 2]])]
    assert read_annotation(table, "a.jpg").tolist() == [[1, 2]]


def test_a_bad_row_of_one_photo_spoils_no_other(tmp_path):
    table = written(tmp_path / "all.csv", "image,x,y\na.jpg,1,2\nb.jpg,3\n")
    assert read_annotation(table, "a.jpg").tolist() == [[1, 2]]
    with pytest.raises(DatasetError, match=r"^all\.csv, line 3: x '3' and y '' are not both"):
        read_annotation(table, "b.jpg")


def test_a_row_of_blanks_is_no_photo(tmp_path):
    table = written(tmp_path / "all.csv", "image,x,y\na.jpg,1,2\n , , \n")
    assert read_annotation(table).tolist() == [[1, 2]]
    assert photos_in(table) == {"a.jpg"}


@pytest.mark.parametrize("text", ["image,x,y\n{}", "x,y,image\n{}", "x,y\n{}", "{}"])
def test_a_table_without_rows_says_to_the_page_alone_that_nobody_is_there(text, tmp_path):
    table = written(tmp_path / "a.csv", text.format(""))
    if text == "{}":
        with pytest.raises(DatasetError, match="is empty"):
            read_annotation(table)
    else:
        assert read_annotation(table, "a.jpg").shape == (0, 2)
    with pytest.raises(DatasetError, match=r"no rows|no column image"):
        parse_csv(table)


@pytest.mark.parametrize(
    "text", ["image,x,y\n,1,2\n,3,4\n", "x,y,file\n1,2,\n3,4,\n", ",1,2\n,3,4\n"]
)
def test_a_table_that_leaves_its_only_photo_without_a_name_is_of_any(text, tmp_path):
    table = written(tmp_path / "a.csv", text)
    assert read_annotation(table, "a.jpg").tolist() == [[1, 2], [3, 4]]
    assert photos_in(table) == set()
    with pytest.raises(DatasetError, match=r"line \d: the image is not named|has no column image"):
        parse_csv(table)


def test_a_row_without_a_name_is_no_matter_where_a_named_photo_is_chosen(tmp_path):
    table = written(tmp_path / "a.csv", "image,x,y\na.jpg,1,2\n,3,4\n")
    assert read_annotation(table, "a.jpg").tolist() == [[1, 2]]
    assert photos_in(table) == {"a.jpg"}
    with pytest.raises(DatasetError, match=r"^a\.csv, line 3: the image is not named"):
        read_annotation(table)


@pytest.mark.parametrize(
    ("rows", "least"),
    [("{:04x},,\n", 20_000), ("image,x,y\n" + "a\n" * 20_000, 1), ("1,1\n" * 20_000, 1)],
)
def test_a_table_of_very_many_rows_takes_little_memory(rows, least, tmp_path):
    table = written(tmp_path / "a.csv", "".join(map(rows.format, range(least))))
    tracemalloc.start()
    try:
        read_annotation(table, "0000")
        photos_in(table)
        assert tracemalloc.get_traced_memory()[1] < 20_000 * 300  # twice as much with tuples
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("separator", "\u2028\x85\x0b\x1c")
def test_a_separator_of_lines_in_a_name_or_a_remark_ends_no_row(separator, tmp_path):
    name = f"a{separator}b.jpg"
    table = written(tmp_path / "a.csv", f"image,x,y,remark\n{name},1,2,old{separator}man\n")
    assert [(one.name, one.heads().tolist()) for one in parse_csv(table)] == [(name, [[1, 2]])]
    assert read_annotation(table, name).tolist() == [[1, 2]]


@pytest.mark.parametrize("others", ["image_id", "img", "path", "name", "photo"])
def test_of_several_columns_that_of_the_files_tells_the_photos(others, tmp_path):
    text = f"{others},filename,x,y\n1,a.jpg,1,2\n1,b.jpg,3,4\n"
    table = written(tmp_path / "all.csv", text)
    assert read_annotation(table, "b.jpg").tolist() == [[3, 4]]
    assert [one.name for one in parse_csv(table)] == ["a.jpg", "b.jpg"]


def test_photos_of_one_name_in_two_folders_are_never_taken_for_one(tmp_path):
    table = written(tmp_path / "all.csv", "image,x,y\nd/a.jpg,1,2\ne/a.jpg,3,4\n")
    for image in ("a.jpg", None):
        with pytest.raises(DatasetError, match=r"photos, so the name|d/a\.jpg and e/a\.jpg: leave"):
            read_annotation(table, image)


@pytest.mark.parametrize("content", [[[1, 2]], {"heads": [[1, 2]], "image": "x"}])
def test_json_is_a_list_of_heads_or_has_one(content, tmp_path):
    assert read_annotation(written(tmp_path / "a.json", json.dumps(content))).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "1,2", r"\.mat, \.csv, \.json"),
        ("a.csv", "", "is empty. For a photo of nobody, it must hold the line x,y."),
        ("a.csv", "\ufeff\n", "is empty"),
        ("a.csv", "x,y\n1,b\n", "line 2: x '1' and y 'b' are not both numbers"),
        ("a.csv", "x,y\n1,2\n\n3\n", "line 4: x '3' and y ''"),
        ("a.csv", "1,2,3,4\n", "no column x, y; it needs x and y"),
        ("a.csv", "x,y\n1,inf\n", "finite"),
        ("a.csv", "x,y\n1,1e300\n", "finite"),
        ("a.csv", b"\xff\xfe\x00", "not text"),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "[" * 100_000, "cannot be read as JSON"),
        ("a.json", '{"heads": [[1, 2]], "heads": []}', "'heads' is there twice"),
        ("a.json", '{"points": []}', "heads"),
        ("a.json", "[[1, 2], [3]]", "a pair of x and y"),
        ("a.json", '{"heads": [["1", "2"]]}', r"not numbers \(text\)"),
        ("a.json", "[1, 2]", "shape"),
        ("a.json", "[[1, NaN]]", "finite"),
        ("a.mat", "MATLAB, it says", "mat"),
        ("a.mat", b"", "mat"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_annotation_says_why_without_its_folder(name, content, words, tmp_path):
    with pytest.raises(DatasetError, match=words) as caught:
        read_annotation(written(tmp_path / name, content))
    assert str(tmp_path) not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"d/IMG_1.JPG": [[1, 2]], "b.jpg": []},
        [{"image": "img_1.jpg", "heads": [[1, 2]]}, {"image": "b.jpg", "points": []}],
        [{"image": "b.jpg", "points": []}, {"image": "IMG_1.png", "points": [{"x": 1, "y": 2}]}],
    ],
)
def test_json_of_many_photos_is_read_as_training_reads_it(content, tmp_path):
    path = written(tmp_path / "all.json", json.dumps(content))
    assert read_annotation(path, "img_1.jpg").tolist() == [[1, 2]]
    assert read_annotation(path, "B.jpg").tolist() == []
    with pytest.raises(DatasetError, match=r"^all\.json has 2 photos, but none called c"):
        read_annotation(path, "c.jpg")


def test_names_that_differ_in_case_alone_are_told_apart(tmp_path):
    table = written(tmp_path / "all.csv", "image,x,y\na.jpg,1,2\nA.jpg,3,4\n")
    assert read_annotation(table, "a.jpg").tolist() == [[1, 2]]
    assert read_annotation(table, "A.jpg").tolist() == [[3, 4]]


def test_json_of_many_photos_names_the_one_that_is_wrong(tmp_path):
    path = written(tmp_path / "all.json", json.dumps({"a.jpg": [[1]], "b.jpg": [[1, 2]]}))
    assert read_annotation(path, "b.jpg").tolist() == [[1, 2]]
    with pytest.raises(DatasetError, match=r"a\.jpg: heads have shape") as caught:
        read_annotation(path, "a.jpg")
    assert str(tmp_path) not in str(caught.value)


def test_a_photos_name_alone_says_that_nobody_is_there(tmp_path):
    table = written(tmp_path / "a.csv", "image,x,y\nA.jpg\nb.jpg,1,2,,\n")
    assert read_annotation(table, "a.jpg").tolist() == []
    assert read_annotation(table, "b.jpg").tolist() == [[1, 2]]


def test_short_rows_of_a_wide_table_take_no_more_memory_than_they_hold(tmp_path):
    wide = "image" + "," * 20_000 + ",y,x\n" + "a.jpg\n" * 1000
    table = written(tmp_path / "a.csv", wide)
    tracemalloc.start()
    try:
        assert read_annotation(table, "a.jpg").tolist() == []
        assert photos_in(table) == {"a.jpg"}
        assert tracemalloc.get_traced_memory()[1] < 20e6  # filled up they have 160 MB
    finally:
        tracemalloc.stop()


def heads_of(path: Path, fill: Callable[[Any], object]) -> Path:
    """An HDF5 file laid out as ShanghaiTech, of which `fill` writes the group with the heads."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        group = file.create_group("group")
        file["image_info"] = np.array([[group.ref]], dtype=h5py.ref_dtype)
        fill(group)
    return path


def test_a_mat_file_of_matlab_7_3_is_read(tmp_path: Path) -> None:
    def fill(group: Any) -> None:
        heads = np.random.default_rng(0).random((2, 3000))
        group.create_dataset(
            "location",
            data=heads,
            chunks=(2, 700),
            compression="gzip",
            shuffle=True,
            fletcher32=True,
        )
        group["again"] = group["location"]

    assert read_annotation(heads_of(tmp_path / "a.mat", fill)).shape == (3000, 2)
    path = heads_of(tmp_path / "b.mat", lambda group: group.update(location=np.ones((2, 4))))
    assert read_annotation(path).tolist() == [[1, 1]] * 4


@pytest.mark.parametrize("kind", ["external", "virtual", "soft", "link", "key", "names", "path"])
def test_a_mat_file_never_leads_to_another_file(tmp_path: Path, kind: str) -> None:
    h5py = pytest.importorskip("h5py")
    secret, other = tmp_path / "secret", tmp_path / "other.h5"
    secret.write_bytes(bytes(range(1, 9)))
    with h5py.File(other, "w") as file:
        file["heads"] = np.ones((2, 4))
        file["info/location"] = np.ones((2, 4))

    def fill(group: Any) -> None:
        if kind == "external":
            group.create_dataset("location", (2, 4), dtype="u1", external=[(str(secret), 0, 8)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((2, 4), "f8")
            layout[:] = h5py.VirtualSource(str(other), "heads", (2, 4))
            group.create_virtual_dataset("location", layout)
        elif kind == "soft":
            group["location"] = h5py.SoftLink("/elsewhere")
            group.file["elsewhere"] = np.ones((2, 4))
        elif kind == "path":
            group.file["elsewhere"] = h5py.ExternalLink(str(other), "info")
            group["_elsewhere_location"] = np.ones((2, 4))
        elif kind == "link":
            group["location"] = h5py.ExternalLink(str(other), "heads")
        else:
            del group.file["image_info"]
            group.file["elsewhere"] = h5py.ExternalLink(str(other), "info")
            if kind == "key":
                group.file["image_info"] = h5py.ExternalLink(str(other), "info")
            else:  # a name in place of a reference
                group.file["image_info"] = np.array(["/elsewhere"], dtype=h5py.string_dtype())

    path = heads_of(tmp_path / "evil.mat", fill)
    if kind == "path":  # a name that leads through a link of another group
        path.write_bytes(path.read_bytes().replace(b"_elsewhere_location", b"/elsewhere/location"))
    with pytest.raises(DatasetError, match=r"^evil\.mat (refers to|holds values of)"):
        read_annotation(path)


def grown(group: Any, kind: str) -> None:
    """A few bytes that are to be many values."""
    h5py = pytest.importorskip("h5py")
    if kind == "empty":
        group["location"] = np.array([20_000_000, 2])
        group["location"].attrs["MATLAB_empty"] = 1
    elif kind == "declared":
        group.create_dataset("location", (2, 2**40), dtype="f8", chunks=(2, 1024))
    elif kind == "several":
        for number in range(9):
            group.create_dataset(str(number), (2, 2**20), dtype="f8", chunks=(2, 2**16))
    elif kind == "chunk":
        part = {"maxshape": (2, None), "chunks": (2, 4), "compression": "gzip"}
        group.create_dataset("location", (2, 4), dtype="f8", **part)
        group["location"].id.write_direct_chunk((0, 0), zlib.compress(bytes(2**20)))
    elif kind == "short chunk":  # what is missing would come out of the memory
        part = {"chunks": (2, 4), "compression": "gzip"}
        group.create_dataset("location", (2, 4), dtype="f8", **part)
        group["location"].id.write_direct_chunk((0, 0), zlib.compress(bytes(8)))
    elif kind == "masked chunk":
        part = {"chunks": (2, 4), "compression": "gzip"}
        group.create_dataset("location", (2, 4), dtype="f8", **part)
        group["location"].id.write_direct_chunk((0, 0), zlib.compress(bytes(64)), filter_mask=1)
    elif kind == "short shuffled":
        group.create_dataset("location", (2, 4), dtype="f8", chunks=(2, 4), shuffle=True)
        group["location"].id.write_direct_chunk((0, 0), bytes(8))
    elif kind == "chunks":
        group.create_dataset("location", (2, 9999), dtype="u1", chunks=(1, 1), compression="gzip")
    elif kind == "large chunks":
        group.create_dataset(
            "location", (99, 2), dtype="u1", chunks=(1, 2**22), maxshape=(99, None)
        )
    elif kind == "groups":  # each level twice the one below: 2^64 ways down
        level = group.file.create_group("level0")
        for number in range(1, 65):
            above = group.file.create_group(f"level{number}")
            above["a"] = above["b"] = level
            level = above
        group["location"] = level
    elif kind == "cells":
        level = group.file.create_dataset("level0", data=np.ones((1, 2)))
        for number in range(1, 30):
            pair = np.array([level.ref] * 2, dtype=h5py.ref_dtype)
            level = group.file.create_dataset(f"level{number}", data=pair)
        group["location"] = level
    elif kind == "circle":
        group["location"] = group


@pytest.mark.parametrize(
    "kind",
    [
        *("empty", "declared", "several", "chunk", "groups", "cells", "circle"),
        *("short chunk", "masked chunk", "short shuffled", "chunks", "large chunks"),
    ],
)
def test_a_small_hdf5_file_that_would_fill_the_memory_is_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "several":  # their sum counts
        monkeypatch.setattr("csrnet_hub.datasets.hdf5.MOST", 2**23)
    path = heads_of(tmp_path / "a.mat", lambda group: grown(group, kind))
    with pytest.raises(DatasetError, match=r"a\.mat (has|holds|unpacks|cannot be read)"):
        read_annotation(path)


class Mat5:
    """Writes elements of a .mat file of MATLAB 5, honest or not."""

    def __init__(self, order: str = "<") -> None:
        self.order = order

    def element(self, number: int, content: bytes, length: int | None = None) -> bytes:
        length = len(content) if length is None else length
        return struct.pack(f"{self.order}II", number, length) + content + bytes(-len(content) % 8)

    def ints(self, *numbers: int) -> bytes:
        return struct.pack(f"{self.order}{len(numbers)}i", *numbers)

    def array(
        self, kind: int, content: bytes, sides: tuple[int, ...] = (1, 1), length: int | None = None
    ) -> bytes:
        header = self.element(6, self.ints(kind, 0)) + self.element(5, self.ints(*sides))
        return self.element(14, header + self.element(1, b"image_info") + content, length)

    def struct(self, names: bytes, width: int, *fields: bytes, number: int = 1) -> bytes:
        head = self.element(5, self.ints(width)) + self.element(1, names)
        return self.array(2, head + b"".join(fields), (1, number))


def nested(write: Mat5, depth: int) -> bytes:
    content = write.array(6, write.element(9, bytes(8)))
    for _ in range(depth):
        content = write.array(1, content)
    return content


HOSTILE: dict[str, tuple[Callable[[Mat5], bytes], str]] = {
    "text": (lambda m: m.array(4, m.element(16, b""), (1, 2**28)), "holds more than"),
    "short text": (lambda m: m.array(4, m.element(16, b"a"), (1, 2**20)), "cannot be read"),
    "texts": (
        lambda m: m.array(1, m.array(4, m.element(16, b""), (1, 2**23)) * 60, (60, 1)),
        "cannot be read|holds more",
    ),
    "numbers": (lambda m: m.array(6, m.element(9, bytes(8)), (2, 1)), "cannot be read"),
    "too few cells": (lambda m: m.array(1, b"", (1, 200_000)), "has more than 65,536 arrays"),
    "too many cells": (lambda m: m.array(1, m.element(14, b"") * 99_999), "cannot be read"),
    "negative": (lambda m: m.array(1, b"", (-1, 1)), "cannot be read"),
    "deep": (lambda m: nested(m, 17), "more than 16 deep"),
    "fields": (lambda m: m.struct(bytes(300), 1), "more than 256 fields"),
    "structs": (
        lambda m: m.struct(b"a\0", 2, number=2**17),
        "has more than 65,536 arrays",
    ),
    "names without length": (lambda m: m.struct(b"abc\0", 0), "cannot be read"),
    "names of odd length": (lambda m: m.struct(b"abc\0", 3), "cannot be read"),
    "sparse": (
        lambda m: m.array(
            5,
            m.element(5, m.ints(-5, 2**30, 0, 0))
            + m.element(5, m.ints(0, 1, -9, 2**30, 4))
            + m.element(9, bytes(32)),
            (4, 4),
        ),
        "of a kind that is not read",
    ),
    "function": (lambda m: m.array(16, m.array(4, b"", (1, 2**28))), "of a kind that is not read"),
    "lying length": (
        lambda m: m.array(4, m.element(16, b""), (1, 2**20), length=16),
        "cannot be read",
    ),
    "bytes": (lambda m: m.array(6, m.element(9, bytes(8 * 2**16)), (2**16, 1)), "more than"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("end", [b"IM", b"XI"])  # scipy takes what it does not know for big-endian
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_of_matlab_5_that_lies_or_holds_too_much_is_refused(
    tmp_path: Path, kind: str, end: bytes, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, trouble = HOSTILE[kind]
    if kind in ("bytes", "texts"):
        monkeypatch.setattr("csrnet_hub.datasets.matlab5.MOST", 2**15)
    order = "<" if end == b"IM" else ">"
    content = write(Mat5(order))
    path = tmp_path / "a.mat"
    path.write_bytes(mat5_head(end) + (packed_element(order, content) if packed else content))
    with pytest.raises(DatasetError, match=rf"a\.mat .*({trouble})"):
        read_annotation(path)


def mat5_head(end: bytes = b"IM") -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + (b"\0\1" if end == b"IM" else b"\1\1") + end


def packed_element(order: str, content: bytes) -> bytes:
    packed = zlib.compress(content)
    return struct.pack(f"{order}II", 15, len(packed)) + packed


def test_a_small_honest_file_of_matlab_5_is_read(tmp_path: Path) -> None:
    write = Mat5()
    heads = write.array(6, write.element(9, np.array([[1.5, 2, 3, 4]]).tobytes()), (2, 2))
    info = write.array(1, write.struct(b"location", 8, heads))
    other = write.array(5, b"what is not asked for may be of any kind").replace(b"_info", b"_more")
    path = tmp_path / "a.mat"
    for content in (info, other + info, packed_element("<", info)):
        path.write_bytes(mat5_head() + content)
        assert read_annotation(path).tolist() == [[1.5, 3], [2, 4]]


@pytest.mark.parametrize("number", [-22, 0, 2**30])
def test_a_file_of_matlab_4_is_refused_since_its_sizes_could_be_any(
    tmp_path: Path, number: int
) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(struct.pack("<5i", 50, number, 1, 0, 11) + b"image_info\0" + bytes(100))
    with pytest.raises(DatasetError, match="save it with -v7"):
        read_annotation(path)


def test_a_file_of_too_many_variables_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {f"v{i}": 1 for i in range(1001)})
    with pytest.raises(DatasetError, match="more than 1,000 variables"):
        read_annotation(path)


def test_a_mask_of_a_large_picture_and_many_cells_are_read(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"BW": np.ones((4096, 4096), bool)}, do_compression=True)
    assert load_mat(tmp_path / "a.mat", "BW").shape == (4096, 4096)
    frames = np.empty((1, 2000), dtype=object)
    for number in range(2000):
        frames[0, number] = {"loc": np.full((10, 2), 14, np.int32), "id": [14, 14]}
    savemat(tmp_path / "b.mat", {"frame": frames})
    assert len(load_mat(tmp_path / "b.mat", "frame")) == 2000
    path = tmp_path / "c.mat"
    path.write_bytes(to_mat(np.ones((200_000, 2))))
    assert len(read_annotation(path)) == 200_000


def test_a_photo_whose_name_is_no_unicode_is_saved(tmp_path: Path) -> None:
    name = "a\ud800.jpg"
    table = written(tmp_path / "a.csv", to_csv([[1, 2]], name))
    assert read_annotation(table).tolist() == [[1, 2]]
    assert json.loads(to_json([[1, 2]], name, 9, 9))["image"] == name


def test_a_text_file_that_is_too_large_for_an_annotation_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(annotations, "LIMIT", 100)
    rows = "image,x,y\n" + "a.jpg,1,2\n" * 9
    assert len(read_annotation(written(tmp_path / "a.csv", rows))) == 9
    with pytest.raises(DatasetError, match=r"^a.csv has more than 100 bytes: split it\.$"):
        read_annotation(written(tmp_path / "a.csv", rows + "a.jpg,1,2\n"))


def test_a_name_whose_accent_another_system_wrote_is_the_same_photo(tmp_path):
    composed, apart = (unicodedata.normalize(form, "Zürich") for form in ("NFC", "NFD"))
    assert composed != apart
    table = written(tmp_path / "a.csv", f"image,x,y\n{composed}.jpg,1,2\nb.jpg,3,4\n")
    assert read_annotation(table, f"{apart}.jpg").tolist() == [[1, 2]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [",", ";"])
def test_a_table_may_have_the_line_ends_of_any_system(end, mark, tmp_path):
    rows = [f"image{mark}x{mark}y", f"a.jpg{mark}1{mark}2", f"a.jpg{mark}3{mark}4", ""]
    table = written(tmp_path / "a.csv", end.join(rows))
    assert read_annotation(table).tolist() == [[1, 2], [3, 4]]
    (photo,) = parse_csv(table)
    assert np.asarray(photo.heads()).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("name", "content", "photos"),
    [
        ("a.csv", "image,x,y\nsub/a.jpg,1,2\n b.jpg ,3,4\n", {"a.jpg", "b.jpg"}),
        ("a.csv", "a.jpg;1,5;2\n", {"a.jpg"}),
        ("a.csv", "x,y,image\n5,6,a.jpg\n   \n", {"a.jpg"}),
        ("a.csv", "x,y\n1,2\n", set()),
        ("a.json", '{"image": "C:\\\\photos\\\\a.jpg", "heads": []}', {"a.jpg"}),
        ("a.json", '{"d/a.jpg": [[1, 2]]}', {"a.jpg"}),
        ("a.json", '[{"image": "a.jpg", "heads": []}]', {"a.jpg"}),
        ("a.json", '{"images": [{"image": "a.jpg", "points": []}]}', {"a.jpg"}),
        ("a.json", '{"heads": [[1, 2]], "by": "me"}', set()),
        ("a.json", "[[1, 2]]", set()),
        ("a.json", "[]", set()),
        ("a.mat", b"rubbish", set()),
    ],
)
def test_which_photos_an_annotation_names(name, content, photos, tmp_path):
    assert photos_in(written(tmp_path / name, content)) == photos


def test_a_table_of_boxes_is_refused_and_a_photos_size_in_it_is_not(tmp_path):
    boxes = "image,x,y,width,height\na.jpg,1,2,{},9\na.jpg,3,4,{},9\n"
    table = written(tmp_path / "a.csv", boxes.format(8, 7))
    with pytest.raises(DatasetError, match=r"^a.csv, line 3: width and height differ between"):
        read_annotation(table)
    assert len(read_annotation(written(tmp_path / "a.csv", boxes.format(8, 8)))) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "x,y\n0.1,0.2\n0.5,1\n0.3,0.4\n"),
        ("a.json", "[[0.1, 0.2], [0.5, 1], [0.3, 0.4]]"),
        ("a.json", '{"a.jpg": [[0.1, 0.2], [0.5, 1], [0.3, 0.4]]}'),
    ],
)
def test_shares_of_a_photos_sides_are_not_taken_for_pixels(name, content, tmp_path):
    with pytest.raises(DatasetError, match=r"^a\..*look like fractions of the picture's sides"):
        read_annotation(written(tmp_path / name, content))
