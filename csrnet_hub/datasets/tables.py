"""The simplest annotation: a CSV table of image, x, y, or a JSON file of points an image."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..images import SUFFIXES
from .own import Annotated, Listing, field
from .sample import DatasetError, Heads, as_heads, stated
from .text import read_json, read_text

COLUMNS = ("image", "x", "y")
SIDES = [("width", "height"), ("w", "h")]  # columns of a box's, or of the picture's
SURE = 3  # heads: one or two may well lie in a corner
# What others call the first of them, the surest first.
PHOTO = ["image_name", "image_path", "filename", "file_name", "filepath", "file", "photo", "path"]
PHOTO += ["img", "image_id"]


def parse_csv(path: Path) -> Listing:
    """Columns image, x, y (others are ignored; , ; or tab between them), a row a head; that of the
    photographs may have another name (`photo_column`). A row with x and y left empty says that the
    picture holds nobody. Where columns are not told apart by commas, a comma in a number is a
    decimal one, as many languages' spreadsheets write it.

    Raises:
        DatasetError: if the table is none of these, or of boxes, whose x and y are corners.
    """
    text = read_text(path)
    delimiter = delimiter_of(text)
    # not splitlines: Unicode has separators of lines that may stand in a name or a remark
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        table = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}.") from error
    photos = photo_column(names, [row for _, row in table])
    missing = ["image"] * (photos is None) + [name for name in ("x", "y") if name not in names]
    if "region_shape_attributes" in names:
        raise DatasetError(f"{path} is VIA's table: export the annotations from it as JSON.")
    if missing or photos is None:
        raise DatasetError(f"{path} has no column {', '.join(missing)}; it needs image, x and y.")
    if twice := repeated(names):
        raise DatasetError(f"{path} has two columns {twice}.")
    sides = [side for pair in SIDES if {*pair} <= {*names} for side in pair]
    columns = [photos, *(names.index(name) for name in ("x", "y", *sides))]
    rows: dict[str, list[tuple[int, str, str, bool]]] = {}
    boxes: dict[str, list[str]] = {}
    for line, row in table:
        image, x, y, *box = (row[i].strip() if i < len(row) else "" for i in columns)
        if any(box) and boxes.setdefault(image, box) != box:  # a picture's size is one in all rows
            raise DatasetError(
                f"{path}, line {line}: {' and '.join(sides)} differ between rows of {image}, as "
                "boxes do: give the middle of each box as x and y, and leave these columns out."
            )
        x, y = with_point(x, delimiter), with_point(y, delimiter)
        rows.setdefault(image, []).append((line, x, y, any(row[len(names) :])))
    if not rows:
        raise DatasetError(f"{path} has no rows.")
    if "" in rows:
        raise DatasetError(f"{path}, line {rows[''][0][0]}: there is no image.")
    return [Annotated(image, partial(_csv_heads, path, found)) for image, found in rows.items()]


def photo_column(names: Sequence[str], rows: Sequence[Sequence[str]]) -> int | None:
    """Which column tells the photographs: ``image``, else one whose cells all end as a picture's
    name does, best under a name of `PHOTO`, else the first of these names; None without any.

    Args:
        names: in lower case.
    """
    spelt = [name.replace(" ", "_") for name in names]
    if "image" in spelt:
        return spelt.index("image")
    called = [spelt.index(name) for name in PHOTO if name in spelt]
    files = [i for i in range(len(names)) if rows and all(_is_file(row, i) for row in rows)]
    sure = [i for i in called if i in files]
    return next(iter([*sure, *files, *called]), None)


def _is_file(row: Sequence[str], column: int) -> bool:
    return column < len(row) and Path(row[column].strip()).suffix.lower() in SUFFIXES


def repeated(names: Sequence[str]) -> str | None:
    """The one of our columns that a table has twice: of two values one would be lost."""
    return next((name for name in COLUMNS if names.count(name) > 1), None)


def delimiter_of(table: str) -> str:
    """What stands between the columns of a table, by its first line: what parts x from y there, or
    without such names ; or tab if one is there, since commas beside them are decimal ones."""
    first = table.split("\n", 1)[0]
    for delimiter in ";\t,":
        if {"x", "y"} <= {name.strip().lower() for name in first.split(delimiter)}:
            return delimiter
    return next((delimiter for delimiter in ";\t" if delimiter in first), ",")


def is_points_table(path: Path) -> bool:
    """Whether a file may be a table of heads: .csv, and not the counts that ``csrnet count`` and
    the page write."""
    if path.suffix.lower() != ".csv":
        return False
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            names = {name.strip().lower() for name in file.readline(1000).split(",")}
    except OSError:
        return True  # said when it is read
    return not ({"image", "count"} <= names and not {"x", "y"} & names)


def with_point(number: str, delimiter: str) -> str:
    """A number as written between delimiters, with a decimal point."""
    return number if delimiter == "," else number.replace(",", ".")


def _csv_heads(path: Path, rows: list[tuple[int, str, str, bool]]) -> Heads:
    points = []
    for line, x, y, too_long in rows:
        if too_long:
            raise DatasetError(f"{path}, line {line}: more values than there are columns.")
        if not x and not y:
            continue
        try:
            points.append((float(x), float(y)))
        except ValueError as error:
            raise DatasetError(
                f"{path}, line {line}: x {x!r} and y {y!r} are no pixels."
            ) from error
    return in_pixels(as_heads(points, path), f"{path}, line {rows[0][0]}")


def in_pixels(heads: Heads, where: str) -> Heads:
    """The heads of a photograph, or a DatasetError: as pixels, shares of its sides would all lie in
    its corner."""
    in_corner = len(heads) >= SURE and ((heads >= 0) & (heads <= 1)).all()
    if in_corner and (heads % 1).any():
        raise DatasetError(
            f"{where}: x and y look like shares of the picture's sides: multiply them by its width "
            "and height in pixels."
        )
    return heads


def parse_json(path: Path) -> Listing:
    """``{"a.jpg": [[x, y], ...], ...}``, or ``[{"image": "a.jpg", "heads": [[x, y], ...]}, ...]``
    (``points`` for ``heads`` will do), or one such record alone; an empty list says that the
    picture holds nobody."""
    content = read_json(path)
    if isinstance(content, dict) and "images" in content and isinstance(content["images"], list):
        content = content["images"]
    if is_record(content):
        content = [content]
    if isinstance(content, dict):
        return [
            Annotated(name, partial(_points, points, path, name))
            for name, points in content.items()
        ]
    if not isinstance(content, list):
        raise DatasetError(f"{path} holds neither a list nor a table of images.")
    found: Listing = []
    for number, item in enumerate(content, start=1):
        name = field(item, "image", f"{path}, entry {number}")
        points = item.get("heads", item.get("points"))
        heads = partial(_points, points, path, str(name))
        found.append(Annotated(str(name), heads, stated(item.get("width"), item.get("height"))))
    return found


def is_record(content: Any) -> bool:
    """Whether this is one photograph's record, such as the page's JSON download."""
    return isinstance(content, dict) and isinstance(content.get("image"), str)


def _points(points: Any, path: Path, name: str) -> Heads:
    if points is None:
        raise DatasetError(f"{path}, {name}: there are no heads; give an empty list for nobody.")
    if isinstance(points, list) and points and all(isinstance(point, dict) for point in points):
        where = f"{path}, {name}"
        points = [(field(point, "x", where), field(point, "y", where)) for point in points]
    return in_pixels(as_heads(points, f"{path}, {name}"), f"{path}, {name}")
