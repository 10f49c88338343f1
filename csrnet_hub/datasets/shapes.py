"""Shapes in a picture, as annotation tools write them, and which of them are heads.

A point is a head; for a box, circle or ellipse, its centre is. If any shapes in a data set's files
are labelled head, only those count (the same people may also be marked as persons); else, if any
are labelled person, only those; else all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from .own import Annotated, Listing
from .sample import DatasetError, Heads, Stated, as_heads
from .tables import all_shares, in_pixels

Point = tuple[float, float]
NO_POINT = "a shape of type {} is not a point: mark heads with points."
HEADS = {"head", "heads"}
PEOPLE = {"person", "persons", "people", "pedestrian", "pedestrians", "human", "humans"}


class Pictured(NamedTuple):
    """A picture in a file and its shapes, with what else the file says about it."""

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
    """The pictures in a file, each with the labels of its shapes and a function that gives its
    heads from the labels of all files."""

    def heads(one: Pictured, used: frozenset[str]) -> Heads:
        return together(path, one.name, one.shapes, labels_of, point, used)

    @cache
    def shares(used: frozenset[str]) -> bool:
        return all_shares(map(partial(heads, used=used), pictures))

    def in_file(one: Pictured, used: Iterable[str] = ()) -> Heads:
        own = heads(one, frozenset(used))
        return in_pixels(own, f"{path}, {one.name}", shares(frozenset(used)))

    listing: Listing = []
    for one in pictures:
        labels = map(labels_of, one.shapes) if isinstance(one.shapes, list) else ()
        told = frozenset().union(*labels)
        listing.append(Annotated(one.name, partial(in_file, one), one.size, one.split, told))
    return listing


def that_count(labels: Iterable[str]) -> set[str]:
    """The labels in use, in lower case, whose shapes are heads; none: all shapes are."""
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
    """The heads of a picture's shapes, by a tool's functions for a shape's labels and points.

    Args:
        used: the labels in all files of the data set, which decide what counts.

    Raises:
        DatasetError: if a shape cannot be read; names the file and the picture.
    """
    where = f"{path}, {name}"
    counting = that_count(used)
    try:
        if counting:  # unlabelled shapes still count as heads
            told = [(shape, labels_of(shape)) for shape in shapes]
            shapes = [shape for shape, labels in told if not labels or labels & counting]
        return as_heads([found for shape in shapes for found in point(shape, where)], where)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{where}: a shape cannot be read ({error}).") from error


def middle(left: Any, top: Any, width: Any, height: Any) -> list[Point]:
    """The centre of a box, given its upper left corner and sides."""
    return [(float(left) + float(width) / 2, float(top) + float(height) / 2)]


def texts(values: Any) -> set[str]:
    """The values that are strings, in lower case, without surrounding whitespace."""
    plain = (value.strip().lower() for value in values if isinstance(value, str))
    return {value for value in plain if value}
