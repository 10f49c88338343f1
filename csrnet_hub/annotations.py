"""Reads and writes heads as CSV, JSON and ShanghaiTech's .mat, x and y in photo pixels."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy.io import savemat

from .datasets import DatasetError
from .datasets.own import Annotated, Listing
from .datasets.sample import Heads, as_heads
from .datasets.shanghaitech import read_heads as read_mat
from .datasets.tables import is_record, parse_json, points_of, read_table
from .datasets.text import read_json
from .images import SUFFIXES as PICTURES

SUFFIXES = (".mat", ".csv", ".json")
LIMIT = 20_000_000  # bytes of a text file: about 500,000 heads


def read_annotation(path: str | Path, image: str | None = None) -> Heads:
    """The heads (N, 2) float32 of one photo from a .mat, .csv or .json file.

    - ``.mat``: as in ShanghaiTech (``image_info``).
    - ``.csv``: columns ``x,y``, or ``image,x,y`` for many photos. An optional header row may put
      the columns in any order, with others beside them, and call the photo column ``filename``,
      ``file``, ``image_name``, ``path``, ``photo`` or the like (or anything, if each of its rows
      ends like a picture's name); a header alone means that there is nobody.
      Semicolons or tabs as separators are accepted, and with them decimal commas.
    - ``.json``: ``[[x, y], ...]``, or ``{"heads": [[x, y], ...]}``, or many photos in a form that
      `datasets.tables.parse_json` reads.

    Args:
        image: file name of the photo whose heads are taken from a file of many photos (compared
            without folder, extension and case). Not needed if all heads are of one photo.

    Raises:
        DatasetError: saying what is wrong, without the file's folder.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DatasetError(f"{path.name} is not an annotation: give {', '.join(SUFFIXES)}.")
    try:
        if suffix == ".mat":
            return read_mat(path)
        if path.stat().st_size > LIMIT:
            raise DatasetError(f"{path.name} has more than {LIMIT:,} bytes: split it.")
        names, heads_at = _photos(path)
        return heads_at(_chosen(names, image, path))
    except DatasetError as error:
        raise DatasetError(str(error).replace(str(path), path.name)) from error
    except FileNotFoundError as error:
        raise DatasetError(f"The annotation {path.name} is missing.") from error
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read as a text file.") from error


def to_csv(heads: ArrayLike, image: str) -> bytes:
    """A table ``image,x,y`` with one row per head, which `read_annotation` reads back exactly; a
    photo of nobody gets one row without x and y."""
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerow(["image", "x", "y"])
    # a spreadsheet that splits at ; or tabs would read parts of a name as cells, even formulas
    splits = set(image) & set(";\t")
    writer = csv.writer(
        stream,
        lineterminator="\n",
        quoting=csv.QUOTE_NONNUMERIC if splits else csv.QUOTE_MINIMAL,
    )
    # the shortest decimals that give the same float32; a photo of nobody has an empty row
    rows = [[image, float(str(x)), float(str(y))] for x, y in as_heads(heads, image)]
    writer.writerows(rows or [[image, "", ""]])
    return stream.getvalue().encode("utf-8", "backslashreplace")  # a name may not be Unicode


def to_json(heads: ArrayLike, image: str, width: int, height: int) -> bytes:
    """``{"image", "width", "height", "count", "heads": [[x, y], ...]}``."""
    points = [[float(str(value)) for value in head] for head in as_heads(heads, image)]
    content = {"image": image, "width": width, "height": height}
    content |= {"count": len(points), "heads": points}
    return (json.dumps(content) + "\n").encode("utf-8")


def to_mat(heads: ArrayLike) -> bytes:
    """A .mat file laid out like ShanghaiTech's GT_IMG_n.mat: ``image_info{1}.location``, N x 2.

    `train.prepare SET` reads the same heads from it as ``SET/GT_NAME.mat`` beside the photo
    ``SET/NAME.jpg``, or as ``SET/ground-truth/GT_NAME.mat`` with ``SET/images/NAME.jpg``.
    """
    points = as_heads(heads, "the annotation").astype(np.float64)
    info = np.empty((1, 1), dtype=[("location", object), ("number", object)])
    info[0, 0] = (points, np.array([[len(points)]], dtype=np.float64))
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = info
    stream = io.BytesIO()
    savemat(stream, {"image_info": cell}, do_compression=True)
    return stream.getvalue()


def photos_in(path: Path) -> set[str]:
    """The photo names, without folders, that occur in a file for `read_annotation`; empty if it
    names none."""
    if path.suffix.lower() == ".mat":
        return set()
    names = _photos(path)[0]
    # not Path.name, which is slow: a table may have a million names
    own = {name.strip().replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] for name in names}
    return own - {""}


def _photos(path: Path) -> tuple[list[str], Callable[[int], Heads]]:
    """The photo names of a CSV or JSON file ("" for an unnamed photo), and a function that returns
    the heads of the photo at a given index."""
    if path.suffix.lower() == ".csv":
        table = read_table(path, lone=True)
        names = list(table.rows)
        return names, lambda place: table.heads(names[place])
    listing = _of_json(path)
    return [one.name for one in listing], lambda place: listing[place].heads()


def _of_json(path: Path) -> Listing:
    content = read_json(path)
    of_one = isinstance(content, dict) and isinstance(content.get("heads"), list)
    if of_one or (isinstance(content, list) and not any(isinstance(one, dict) for one in content)):
        points = content["heads"] if of_one else content
        name = content["image"] if is_record(content) else ""
        return [Annotated(name, partial(points_of, points, path, name))]
    if isinstance(content, list) or is_record(content):
        return parse_json(path)
    return [one for one in parse_json(path) if Path(one.name).suffix.lower() in PICTURES]


def _chosen(names: Sequence[str], image: str | None, path: Path) -> int:
    """The index of `image` among the names, or of the only name."""
    if not names:
        raise DatasetError(f'{path} must hold [[x, y], ...] or {{"heads": [[x, y], ...]}}.')
    if len(names) == 1:
        return 0
    wanted = "" if image is None else stem(image)
    # stems are computed twice rather than kept: a table may have a million names
    named = [place for place, name in enumerate(names) if stem(name) == wanted]
    if not named:
        wanted = wanted.casefold()
        named = [place for place, name in enumerate(names) if stem(name).casefold() == wanted]
    if not named:
        trouble = f"but none called {image}" if image else "so the name of one is needed"
        raise DatasetError(f"{path} has {len(names)} photos, {trouble}.")
    if len(named) > 1:
        both = " and ".join(names[place] for place in named)
        raise DatasetError(f"{path} has {both}: leave only one of them.")
    return named[0]


def stem(name: str) -> str:
    """A photo's name without folder and extension, its accents normalised: systems write them in
    two forms."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0].strip()
    return unicodedata.normalize("NFC", last)
