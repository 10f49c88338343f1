"""The simplest annotations: a CSV table of image, x, y, or a JSON file of points per image."""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..images import SUFFIXES
from .own import Annotated, Listing, field
from .sample import DatasetError, Heads, Stated, as_heads, stated
from .text import read_json, read_text

COLUMNS = ("image", "x", "y")
SIDES = [("width", "height"), ("w", "h")]  # columns for the sides of a box, or of the picture
SURE = 3  # heads: one or two may well be in a corner
# Other names of the first column, the surest first.
PHOTO = ["image_name", "image_path", "filename", "file_name", "filepath", "file", "photo", "path"]
PHOTO += ["img", "image_id"]


class Table:
    """The rows of a CSV table, grouped by photograph name.

    Attributes:
        rows: for each row with a head, its line in the file and x and y as written, in one flat
            list, as a table may have millions of rows.
        sides: by photograph, the cells of columns named after the sides of pictures or boxes.
        too_long: by photograph, the first line that has cells beyond the named columns.
        unnamed: the first line without a name, or 0.
    """

    def __init__(self, path: Path, delimiter: str) -> None:
        self.path, self.delimiter = path, delimiter
        self.rows: dict[str, list[Any]] = {}
        self.sides: dict[str, list[str]] = {}
        self.too_long: dict[str, int] = {}
        self.unnamed = 0

    def heads(self, name: str) -> Heads:
        """The heads of a photograph.

        Raises:
            DatasetError: naming the line that is wrong.
        """
        if not name and len(self.rows) > 1:
            raise self.wrong(self.unnamed, "the image is not named")
        if name in self.too_long:
            raise self.wrong(self.too_long[name], "more values than there are columns")
        rows = self.rows[name]
        heads = self._points(rows)
        where = f"{self.path}, line {rows[0]}" if rows else str(self.path)
        return in_pixels(heads, where, self.all_shares)

    def _points(self, rows: Sequence[Any]) -> Heads:
        points = array("d")
        for line, x, y in zip(*[iter(rows)] * 3):
            if self.delimiter != ",":
                x, y = x.replace(",", "."), y.replace(",", ".")
            try:
                points.extend((float(x), float(y)))
            except ValueError as error:
                raise self.wrong(line, f"x {x!r} and y {y!r} are not both numbers") from error
        return as_heads(np.array(points).reshape(-1, 2), self.path)

    @cached_property
    def all_shares(self) -> bool:
        """Whether the readable heads of all photographs together look like shares of the sides."""
        return all_shares(map(self._points, self.rows.values()))

    def size(self, name: str) -> Stated | None:
        """The size of a photograph that the table states."""
        return stated(*self.sides.get(name, ("", ""))[:2])

    def wrong(self, line: int, trouble: str) -> DatasetError:
        """The error for a line."""
        return DatasetError(f"{self.path}, line {line}: {trouble}.")


def parse_csv(path: Path) -> Listing:
    """The photographs in a table, as read by `read_table`."""
    table = read_table(path)
    return [Annotated(name, partial(table.heads, name), table.size(name)) for name in table.rows]


def read_table(path: Path, lone: bool = False) -> Table:
    """Read columns image, x, y (others are ignored; separated by , ; or tab), one row per head; the
    image column may have another name (`photo_column`). A row with empty x and y means a picture
    without people. Where commas do not separate columns, a comma in a number is a decimal one, as
    spreadsheets in many languages write it.

    Args:
        lone: the table may be for one photograph that it does not name, which is then called "";
            columns x,y or image,x,y need no header, and no further rows mean nobody.

    Raises:
        DatasetError: if the table is none of these, or one of boxes, whose x and y are corners. It
            is refused as a whole if the sides differ within one photograph's rows: for another with
            a single head, the corner would be taken for the head.
    """
    text = read_text(path)
    table = Table(path, delimiter_of(text))
    rows = partial(_lines, table, text)
    _, first = next(rows(), (0, []))
    names = [name.strip().lower() for name in first]
    bare = lone and len(names) in (2, 3) and not {"x", "y"} <= {*names}
    if bare:
        names = list(COLUMNS[-len(names) :])
    start = 0 if bare else 1
    columns = _columns(path, names, (row for _, row in islice(rows(), start, None)), lone)
    _fill(table, islice(rows(), start, None), columns, names, lone)
    if not table.rows:
        if not lone:
            raise DatasetError(f"{path} has no rows.")
        table.rows[""] = []
    return table


def _lines(table: Table, text: str) -> Iterator[tuple[int, list[str]]]:
    """The non-blank rows of a table, each with its line number in the file."""
    # not splitlines: names and remarks may contain Unicode line separators
    reader = csv.reader(io.StringIO(text), delimiter=table.delimiter, strict=True)
    try:
        for row in reader:
            if any(map(str.strip, row)):
                yield reader.line_num, row
    except csv.Error as error:
        raise table.wrong(reader.line_num, str(error)) from error


def _columns(
    path: Path, names: Sequence[str], rows: Iterable[Sequence[str]], lone: bool
) -> list[int | None]:
    """The columns of the photographs' names, x and y, then of the sides of possible boxes."""
    if lone and not names:
        raise DatasetError(
            f"{path}: the file is empty. For a photo of nobody, it must hold the line x,y."
        )
    if "region_shape_attributes" in names:
        raise DatasetError(f"{path} is a VIA table: export the annotations from VIA as JSON.")
    photos = photo_column(names, rows)
    missing = ["image"] * (photos is None and not lone)
    if missing := missing + [name for name in ("x", "y") if name not in names]:
        needed = "x and y" if lone else "image, x and y"
        raise DatasetError(f"{path} has no column {', '.join(missing)}; it needs {needed}.")
    if twice := next((name for name in COLUMNS if names.count(name) > 1), None):
        raise DatasetError(f"{path} has two columns {twice}.")  # one value would be lost
    sides = [side for pair in SIDES if {*pair} <= {*names} for side in pair]
    return [photos, *(names.index(name) for name in ("x", "y", *sides))]


def _fill(
    table: Table,
    lines: Iterable[tuple[int, list[str]]],
    columns: Sequence[int | None],
    names: Sequence[str],
    lone: bool,
) -> None:
    """Add rows to a table by photograph, taking only the cells in `columns`."""
    for line, row in lines:
        # short rows are not padded: in a table of a million columns they would fill memory
        image, x, y, *box = (
            row[i].strip() if i is not None and i < len(row) else "" for i in columns
        )
        if not image:
            if not lone:
                raise table.wrong(line, "the image is not named")
            table.unnamed = table.unnamed or line
        if any(box) and table.sides.setdefault(image, box) != box:  # a picture's size is constant
            sides = " and ".join(names[i] for i in columns[3:] if i is not None)
            raise table.wrong(
                line,
                f"{sides} differ between rows of the same image, as the sides of boxes do: give "
                "the centre of each box as x and y, without these columns",
            )
        if len(row) > len(names) and any(map(str.strip, row[len(names) :])):
            table.too_long.setdefault(image, line)
        cells = table.rows.setdefault(image, [])
        if x or y:
            cells += (line, x, y)


def photo_column(names: Sequence[str], rows: Iterable[Sequence[str]]) -> int | None:
    """The column of the photographs' names: ``image``, else one whose cells all end like picture
    names, preferably with a name in `PHOTO`, else the first of those names; None without any.

    Args:
        names: in lower case.
    """
    spelt = [name.replace(" ", "_") for name in names]
    if "image" in spelt:
        return spelt.index("image")
    called = [spelt.index(name) for name in PHOTO if name in spelt]
    lines = iter(rows)
    first = next(lines, ())
    files = [i for i in range(len(names)) if _is_file(first, i)]
    for row in lines:
        if not files:
            break
        files = [i for i in files if _is_file(row, i)]
    sure = [i for i in called if i in files]
    return next(iter([*sure, *files, *called]), None)


def _is_file(row: Sequence[str], column: int) -> bool:
    return column < len(row) and Path(row[column].strip()).suffix.lower() in SUFFIXES


def delimiter_of(table: str) -> str:
    """The delimiter of a table, from its first line: what separates x from y there or, without such
    names, ; or tab if present, since commas beside them are decimal ones."""
    first = table.lstrip().split("\n", 1)[0]
    for delimiter in ";\t,":
        if {"x", "y"} <= {name.strip().lower() for name in first.split(delimiter)}:
            return delimiter
    return next((delimiter for delimiter in ";\t" if delimiter in first), ",")


def is_points_table(path: Path) -> bool:
    """Whether a file may be a table of heads: a .csv file other than the counts that
    ``csrnet count`` and the page write."""
    if path.suffix.lower() != ".csv":
        return False
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            names = {name.strip().lower() for name in file.readline(1000).split(",")}
    except OSError:
        return True  # said when it is read
    return not ({"image", "count"} <= names and not {"x", "y"} & names)


def all_shares(lists: Iterable[Heads]) -> bool:
    """Whether lists of heads, of which some may raise a DatasetError, together look like shares of
    the photographs' sides."""
    number, whole, lists = 0, True, iter(lists)
    while True:
        with suppress(DatasetError):  # said when it is read
            if (heads := next(lists, None)) is None:
                return number >= SURE and not whole
            if not ((heads >= 0) & (heads <= 1)).all():
                return False
            number, whole = number + len(heads), whole and not (heads % 1).any()


def in_pixels(heads: Heads, where: str, shares: bool = False) -> Heads:
    """Return the heads, or raise a DatasetError if they look like shares of the photograph's sides,
    as those of all photographs may (`shares`): as pixels, these would all lie in its corner."""
    if len(heads) and (shares or all_shares([heads])):
        raise DatasetError(
            f"{where}: x and y look like fractions of the picture's sides: multiply them by its "
            "width and height in pixels."
        )
    return heads


def parse_json(path: Path) -> Listing:
    """``{"a.jpg": [[x, y], ...], ...}``, or ``[{"image": "a.jpg", "heads": [[x, y], ...]}, ...]``
    (or ``points`` for ``heads``), or a single such record; an empty list means a picture without
    people."""
    content = read_json(path)
    if isinstance(content, dict) and "images" in content and isinstance(content["images"], list):
        content = content["images"]
    if is_record(content):
        content = [content]
    if isinstance(content, dict):
        content = [{"image": name, "heads": points} for name, points in content.items()]
    if not isinstance(content, list):
        raise DatasetError(f"{path} holds neither a list nor a dictionary of images.")
    names = [field(item, "image", f"{path}, entry {n}") for n, item in enumerate(content, start=1)]
    lists = [item.get("heads", item.get("points")) for item in content]
    shares = all_shares(map(partial(_pairs, where=path), lists))
    return [
        Annotated(
            str(name),
            partial(points_of, points, path, str(name), shares),
            stated(item.get("width"), item.get("height")),
        )
        for item, name, points in zip(content, names, lists)
    ]


def is_record(content: Any) -> bool:
    """Whether this is a single photograph's record, such as the page's JSON download."""
    return isinstance(content, dict) and isinstance(content.get("image"), str)


def points_of(points: Any, path: Path, name: str, shares: bool = False) -> Heads:
    """The heads of a photograph in a JSON file, listed as pairs or as records of x and y.

    Args:
        shares: those of all its photographs look like shares of the sides.

    Raises:
        DatasetError: if they are not; names the file and the photograph, if it has a name.
    """
    where = f"{path}, {name}" if name else str(path)
    return in_pixels(_pairs(points, where), where, shares)


def _pairs(points: Any, where: str | Path) -> Heads:
    if points is None:
        raise DatasetError(f"{where}: there are no heads: give an empty list for nobody.")
    if isinstance(points, list) and points and all(isinstance(point, dict) for point in points):
        points = [(field(point, "x", where), field(point, "y", where)) for point in points]
    return as_heads(points, where)
