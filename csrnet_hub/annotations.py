"""Heads to and from files: CSV, JSON and ShanghaiTech's .mat, x and y in pixels of the photo."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.io import savemat

from . import jsonkeys
from .datasets import DatasetError
from .datasets.own import Annotated, Listing
from .datasets.shanghaitech import read_heads as read_mat
from .datasets.tables import (
    SIDES,
    delimiter_of,
    in_pixels,
    is_record,
    parse_json,
    photo_column,
    repeated,
    with_point,
)
from .datasets.text import read_json, read_text
from .images import SUFFIXES as PICTURES

Heads = NDArray[np.float32]
SUFFIXES = (".mat", ".csv", ".json")
LIMIT = 20_000_000  # bytes of a text file: some 500,000 heads


def read_annotation(path: str | Path, image: str | None = None) -> Heads:
    """The heads (N, 2) float32 of one photo from a .mat, .csv or .json file.

    - ``.mat``: as in ShanghaiTech (``image_info``).
    - ``.csv``: columns ``x,y``, or ``image,x,y`` for many photos; a first row of names is optional
      and may then put the columns in any order, with others beside them, and call that of the
      photos ``filename``, ``file``, ``image_name``, ``path``, ``photo`` or the like (or anything,
      where each of its rows ends as a picture's name does); it alone says that nobody is there.
      Semicolons or tabs between them, and then decimal commas, will do.
    - ``.json``: ``[[x, y], ...]``, or ``{"heads": [[x, y], ...]}``, or of many photos as
      `datasets.tables.parse_json` reads it.

    Args:
        image: file name of the photo; of a file of many photos only its heads are taken (its name
            is compared without folder, ending and case). Not needed where all are of one photo.

    Raises:
        DatasetError: saying what is wrong, without the file's folder.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DatasetError(f"{path.name} is none of {', '.join(SUFFIXES)}: give one of these.")
    try:
        if suffix == ".mat":
            return read_mat(path)
        if path.stat().st_size > LIMIT:
            raise DatasetError(f"{path.name} has more than {LIMIT:,} bytes: split it.")
        text = read_text(path)
    except DatasetError as error:
        raise DatasetError(str(error).replace(str(path), path.name)) from error
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read as a text file.") from error
    try:
        points = _from_csv(text, image) if suffix == ".csv" else _from_json(path, text, image)
    except DatasetError as error:
        reason = str(error).replace(str(path), path.name).removeprefix(f"{path.name}: ")
        raise DatasetError(f"{path.name}: {reason}") from error
    return in_pixels(_checked(points, path.name), path.name)


def to_csv(heads: ArrayLike, image: str) -> bytes:
    """A table ``image,x,y`` with one row a head, which `read_annotation` reads back exactly; of a
    photo of nobody one row without x and y."""
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerow(["image", "x", "y"])
    # a spreadsheet that splits at ; or tabs would take parts of a name for cells, even formulas
    splits = set(image) & set(";\t")
    writer = csv.writer(
        stream,
        lineterminator="\n",
        quoting=csv.QUOTE_NONNUMERIC if splits else csv.QUOTE_MINIMAL,
    )
    # the shortest decimals that are the same float32 again; a photo of nobody has an empty row
    rows = [[image, float(str(x)), float(str(y))] for x, y in _checked(heads, image)]
    writer.writerows(rows or [[image, "", ""]])
    return stream.getvalue().encode("utf-8", "backslashreplace")  # a name may be no Unicode


def to_json(heads: ArrayLike, image: str, width: int, height: int) -> bytes:
    """``{"image", "width", "height", "count", "heads": [[x, y], ...]}``."""
    points = [[float(str(value)) for value in head] for head in _checked(heads, image)]
    content = {"image": image, "width": width, "height": height}
    content |= {"count": len(points), "heads": points}
    return (json.dumps(content) + "\n").encode("utf-8")


def to_mat(heads: ArrayLike) -> bytes:
    """A .mat file laid out as ShanghaiTech's GT_IMG_n.mat: ``image_info{1}.location``, N x 2.

    `train.prepare SET` reads it to the same heads as ``SET/GT_NAME.mat`` beside the photo
    ``SET/NAME.jpg``, or as ``SET/ground-truth/GT_NAME.mat`` with ``SET/images/NAME.jpg``.
    """
    points = _checked(heads, "the annotation").astype(np.float64)
    info = np.empty((1, 1), dtype=[("location", object), ("number", object)])
    info[0, 0] = (points, np.array([[len(points)]], dtype=np.float64))
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = info
    stream = io.BytesIO()
    savemat(stream, {"image_info": cell}, do_compression=True)
    return stream.getvalue()


def photos_in(path: Path) -> set[str]:
    """The names, without folders, of the photos that a file which `read_annotation` reads says it
    is of; none where it names none."""
    named: list[str] = []
    if path.suffix.lower() == ".csv":
        names, rows, _ = _table(read_text(path))
        column = photo_column(names, rows)
        named = [_cell(row, column) for row in rows] if column is not None else []
    elif path.suffix.lower() == ".json":
        named = [item.name for item in _photos(path, read_json(path))]
    own = {name.strip().replace("\\", "/") for name in named}
    return {Path(name).name for name in own if name}


def _from_csv(text: str, image: str | None) -> list[tuple[str, str]]:
    names, rows, delimiter = _table(text)
    if (column := photo_column(names, rows)) is not None:
        rows = _of_one_image(rows, column, image)
    for pair in SIDES:
        columns = [names.index(side) for side in pair if side in names]
        if len(columns) == 2 and len({tuple(_cell(row, i) for i in columns) for row in rows}) > 1:
            raise DatasetError(
                f"{' and '.join(pair)} differ between rows, as boxes do: give the middle of each "
                "box as x and y, and leave these columns out."
            )
    at_x, at_y = names.index("x"), names.index("y")
    points = [(_cell(row, at_x), _cell(row, at_y)) for row in rows]
    return [(with_point(x, delimiter), with_point(y, delimiter)) for x, y in points if x or y]


def _table(text: str) -> tuple[list[str], list[list[str]], str]:
    """The columns of a table, its rows with a cell for each or the first alone, and what stands
    between."""
    delimiter = delimiter_of(text)
    try:
        reader = csv.reader(io.StringIO(text), strict=True, delimiter=delimiter)
        rows = [row for row in reader if any(row)]
    except csv.Error as error:
        raise DatasetError(f"this is not a table: {error}.") from error
    if not rows:
        raise DatasetError("the file is empty. Of a photo of nobody it holds the line x,y.")
    names = [name.strip().lower() for name in rows[0]]
    if "x" in names and "y" in names:
        rows = rows[1:]
    elif len(names) in (2, 3):
        names = ["image", "x", "y"][-len(names) :]
    else:
        raise DatasetError("the columns must be x,y or image,x,y.")
    for number, row in enumerate(rows, start=1):
        while len(row) > len(names) and not row[-1]:  # as spreadsheets fill a table up
            row.pop()
        # a photo's name alone: nobody is there; filled up to a million columns it would take memory
        alone = len(row) == 1 < len(names) - 1
        if len(row) != len(names) and not alone:
            raise DatasetError(f"row {number} has {len(row)} columns in place of {len(names)}.")
    if twice := repeated(names):
        raise DatasetError(f"there are two columns {twice}.")
    return names, rows, delimiter


def _cell(row: list[str], column: int) -> str:
    return row[column].strip() if column < len(row) else ""


def _of_one_image(rows: list[list[str]], column: int, image: str | None) -> list[list[str]]:
    wanted = _chosen([_cell(row, column) for row in rows], image)
    return [row for row in rows if _cell(row, column) == wanted]


def _chosen(names: Sequence[str], image: str | None) -> str | None:
    """Which of the names of a file of many photos is that of the image."""
    stems = {name: stem(name) for name in names}
    if len(stems) <= 1:
        return next(iter(stems), None)
    wanted = "" if image is None else stem(image)
    named = [name for name, own in stems.items() if own == wanted]
    if not named:
        named = [name for name, own in stems.items() if own.casefold() == wanted.casefold()]
    if not named:
        raise DatasetError(f"it has {len(stems)} photos, but none is called {image or '?'}.")
    if len(named) > 1:
        raise DatasetError(f"it has {' and '.join(named)}: leave only one of them.")
    return named[0]


def stem(name: str) -> str:
    """A photo's name without folder and ending, its accents in one form: systems write them in
    two."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0].strip()
    return unicodedata.normalize("NFC", last)


def _from_json(path: Path, text: str, image: str | None) -> Any:
    try:
        content = jsonkeys.loads(text)
    except jsonkeys.RepeatedKeyError as error:
        raise DatasetError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise DatasetError("this is not JSON.") from error
    points = content.get("heads") if isinstance(content, dict) else content
    if isinstance(points, list) and not any(isinstance(point, dict) for point in points):
        return points
    photos = _photos(path, content)
    wanted = _chosen([item.name for item in photos], image)
    if wanted is None:
        raise DatasetError('it must hold [[x, y], ...] or {"heads": [[x, y], ...]}.')
    return next(item.heads() for item in photos if item.name == wanted)


def _photos(path: Path, content: Any) -> Listing:
    """The photos that a JSON file names; none where it has the heads of one and no name."""
    if isinstance(content, list):
        return parse_json(path) if any(isinstance(item, dict) for item in content) else []
    return [item for item in parse_json(path) if is_record(content) or _is_photo(item)]


def _is_photo(item: Annotated) -> bool:
    return Path(item.name).suffix.lower() in PICTURES


def _checked(points: Sequence[Any] | ArrayLike, name: str) -> Heads:
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold is said below
            heads = np.asarray(points, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"{name}: a head must be two numbers, x and y.") from error
    if heads.size == 0:
        return np.zeros((0, 2), np.float32)
    if heads.ndim != 2 or heads.shape[1] != 2:
        raise DatasetError(f"{name}: a head must be two numbers, x and y, not {heads.shape}.")
    if not np.isfinite(heads).all():
        raise DatasetError(f"{name}: heads that are not finite numbers.")
    return heads
