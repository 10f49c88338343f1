"""Shapes of a picture, as annotation tools write them, and which of them are heads.

A point is a head; of a box, circle or ellipse it is the centre. Where shapes in use, in any file of
a data set, are labelled head, only those count (the same people may be marked as persons too), else
where some are labelled person, only those; else all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .own import Annotated, Listing
from .sample import DatasetError, Heads, Stated, as_heads

Point = tuple[float, float]
NO_POINT = "a shape of type {} is not a point: mark heads with points."
HEADS = {"head", "heads"}
PEOPLE = {"person", "persons", "people", "pedestrian", "pedestrians", "human", "humans"}


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
) -> Listing:
    """The pictures of a file, each with the labels of its shapes, and with what gives its heads by
    the labels of all files."""
    listing: Listing = []
    for name, shapes, size, split in pictures:
        own = map(labels_of, shapes) if isinstance(shapes, list) else ()
        heads = partial(together, path, name, shapes, labels_of, point)
        listing.append(Annotated(name, heads, size, split, frozenset().union(*own)))
    return listing


def that_count(labels: Iterable[str]) -> set[str]:
    """The labels, of those in use, in small letters, whose shapes are heads; none: all are."""
    used = set(labels)
    return used & HEADS or used & PEOPLE


def together(
    path: Path,
    name: str,
    shapes: Any,
    labels_of: Callable[[Any], set[str]],
    point: Callable[[Any, str], list[Point]],
    used: Set[str] = frozenset(),
) -> Heads:
    """The heads of a picture's shapes, by what a tool has for the labels and the places of one.

    Args:
        used: the labels of all files of the data set, which say what counts.

    Raises:
        DatasetError: a shape cannot be read; with the file and the picture.
    """
    where = f"{path}, {name}"
    counting = that_count(used)
    try:
        if counting:  # what has no label is taken for a head still
            told = [(shape, labels_of(shape)) for shape in shapes]
            shapes = [shape for shape, labels in told if not labels or labels & counting]
        return as_heads([found for shape in shapes for found in point(shape, where)], where)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{where}: a shape cannot be read ({error}).") from error


def middle(left: Any, top: Any, width: Any, height: Any) -> list[Point]:
    """The centre of a box, by its upper left corner."""
    return [(float(left) + float(width) / 2, float(top) + float(height) / 2)]


def texts(values: Any) -> set[str]:
    """Those values that are texts, in small letters, without blanks that were typed beside them."""
    plain = (value.strip().lower() for value in values if isinstance(value, str))
    return {value for value in plain if value}
