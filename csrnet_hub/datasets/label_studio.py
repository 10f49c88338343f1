"""Label Studio's JSON export."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..images import SUFFIXES
from .own import Annotated, Listing, fails, field
from .places import uploaded_name
from .sample import DatasetError, Stated, stated
from .shapes import NO_POINT, Pictured, Point, texts, with_heads
from .text import read_json

# what Label Studio says about a picture or its content, besides shapes
NO_SHAPES = {
    "choices", "chatmessage", "datetime", "number", "pairwise", "ranker", "rating", "reactcode",
    "relation", "taxonomy", "textarea",
}  # fmt: skip


def parse(path: Path) -> Listing:
    """Parse the JSON export: key points or boxes in percent of the picture. Where a task has
    several annotations, the first that was not cancelled counts."""
    pictures: list[Pictured] = []
    tasks = read_json(path)
    if not isinstance(tasks, list):
        raise DatasetError(f"{path} is not a list of tasks: export it from Label Studio as JSON.")
    for number, task in enumerate(tasks, start=1):
        where = f"{path}, task {number}"
        if isinstance(task, dict) and "data" not in task and "annotation_id" in task:
            raise DatasetError(f"{path} is Label Studio's JSON-MIN: export it as JSON.")
        data = field(task, "data", where)
        given = [data["image"]] if "image" in data else list(data.values())
        named = [uploaded_name(one, path.parent) for one in given if isinstance(one, str)]
        if not named:
            raise DatasetError(f"{where}: there is no image.")
        name = next((one for one in named if Path(one).suffix.lower() in SUFFIXES), named[0])
        made = task.get("annotations", task.get("completions", []))
        valid = [item for item in made if not item.get("was_cancelled")]
        shapes = _with_labels(field(valid[0], "result", where)) if valid else None
        pictures.append(Pictured(name, shapes, _size(shapes)))
    listing = with_heads(path, pictures, _labels, _point)
    for index, picture in enumerate(pictures):
        if picture.shapes is None:
            nobody = DatasetError(f"{path}, {picture.name}: the task is not annotated.")
            listing[index] = Annotated(picture.name, fails(nobody))
    return listing


def _with_labels(results: Any) -> Any:
    """A task's shapes, each with the labels that Labels, used beside Rectangle and the like, stores
    as a separate result with the shape's id."""
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        return results
    apart = [one for one in results if one.get("type") == "labels"]
    labels = {one.get("id"): one["value"].get("labels") for one in apart if _has_value(one)}
    shapes = [one for one in results if one.get("type") != "labels"]
    lone = set(labels) - {one.get("id") for one in shapes}
    return [
        one | {"value": one["value"] | {"labels": labels[one.get("id")]}}
        if one.get("id") in labels and _has_value(one)
        else one
        for one in shapes
    ] + [one for one in apart if one.get("id") in lone]


def _has_value(result: dict[str, Any]) -> bool:
    return isinstance(result.get("value"), dict)


def _size(shapes: Any) -> Stated | None:
    sizes = (
        stated(shape.get("original_width"), shape.get("original_height"), relative=True)
        for shape in shapes or ()
        if isinstance(shape, dict)
    )
    return next((size for size in sizes if size), None)


def _labels(shape: Any) -> set[str]:
    value = shape.get("value") if isinstance(shape, dict) else None
    lists = value.items() if isinstance(value, dict) else ()
    return {
        label
        for key, given in lists
        if str(key).endswith("labels") and isinstance(given, list)
        for label in texts(given)
    }


def _point(shape: Any, where: str) -> list[Point]:
    kind = str(shape.get("type", ""))
    if not kind.startswith(("keypoint", "rectangle", "ellipse")):
        if kind in NO_SHAPES:
            return []
        raise DatasetError(f"{where}: {NO_POINT.format(kind or 'unknown')}")
    value = field(shape, "value", where)
    sides = [float(field(shape, f"original_{side}", where)) / 100 for side in ("width", "height")]
    x, y = (float(field(value, axis, where)) * side for axis, side in zip("xy", sides))
    if kind.startswith("rectangle"):  # rotated about its upper left corner, x and y
        wide, high = (
            float(field(value, key, where)) * side for key, side in zip(("width", "height"), sides)
        )
        turn = math.radians(float(value.get("rotation", 0)))
        x += (wide * math.cos(turn) - high * math.sin(turn)) / 2
        y += (wide * math.sin(turn) + high * math.cos(turn)) / 2
    return [(x, y)]
