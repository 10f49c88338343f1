"""Shapes of a picture, as annotation tools write them, and which of them are heads.

A point is a head; of a box, circle or ellipse it is the centre. Where shapes in use are labelled
head, only those count (the same people may be marked as persons too), else where some are labelled
person, only those; else all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .own import Annotated, Listing
from .sample import DatasetError, Heads, Stated, as_heads

Point = tuple[float, float]
HEADS, PEOPLE = {"head", "heads"}, {"person", "people", "pedestrian"}


class Pictured(NamedTuple):
    """A picture of a file and its shapes, with what else the file tells of it."""

    name: str
    shapes: Any
    size: Stated | None = None
    split: str = ""


def with_heads(
    path: Path,
    pictures: list[Pictured],
    labels_of: Callable[[Any], set[str]],
    point: Callable[[Any, str], list[Point]],
    used: Iterable[str] | None = None,
) -> Listing:
    """The pictures of a file, each with its shapes whose labels are among those that count, of the
    ``used`` ones or of those in the file."""
    if used is None:
        used = labels_used(pictures, labels_of)
    counting = that_count(used)
    listing: Listing = []
    for name, shapes, size, split in pictures:
        if counting and isinstance(shapes, list):  # what has no label is taken for a head still
            own = ((shape, labels_of(shape)) for shape in shapes)
            shapes = [shape for shape, labels in own if not labels or labels & counting]
        heads = partial(together, path, name, shapes, point)
        listing.append(Annotated(name, heads, size, split))
    return listing


def that_count(labels: Iterable[Any]) -> set[str]:
    """The labels, of those in use, whose shapes are heads; none: all shapes are."""
    used = {str(label).lower() for label in labels}
    return used & HEADS or used & PEOPLE


def together(path: Path, name: str, shapes: Any, point: Callable[[Any, str], list[Point]]) -> Heads:
    """The heads of a picture's shapes, by what a tool has for the places of one.

    Raises:
        DatasetError: a shape cannot be read; with the file and the picture.
    """
    where = f"{path}, {name}"
    try:
        return as_heads([found for shape in shapes for found in point(shape, where)], where)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{where}: a shape that cannot be read ({error}).") from error


def middle(left: Any, top: Any, width: Any, height: Any) -> list[Point]:
    """The centre of a box, by its upper left corner."""
    return [(float(left) + float(width) / 2, float(top) + float(height) / 2)]


def every_shape(pictures: list[Pictured]) -> list[Any]:
    """The shapes of all pictures."""
    return [shape for one in pictures if isinstance(one.shapes, list) for shape in one.shapes]


def labels_used(pictures: list[Pictured], labels_of: Callable[[Any], set[str]]) -> set[str]:
    """The labels of all shapes."""
    return {label for shape in every_shape(pictures) for label in labels_of(shape)}


def texts(values: Any) -> set[str]:
    """Those values that are texts, in small letters."""
    return {value.lower() for value in values if isinstance(value, str) and value}
