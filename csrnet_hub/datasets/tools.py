"""What annotation tools write: COCO, VIA, LabelMe, CVAT and Label Studio.

A point is a head; of a box, circle or ellipse it is the centre. Where shapes in use are labelled
head, only those count (the same people may be marked as persons too), else where some are labelled
person, only those; else all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from ..images import SUFFIXES
from .files import listed
from .own import SPLITS, Annotated, Listing, fails, field, name_beside, uploaded_name
from .sample import DatasetError, Heads, Stated, as_heads, stated
from .text import read_json, read_text

Point = tuple[float, float]
# what Label Studio says of a picture, or of what is in it, beside shapes
NO_SHAPES = {
    "choices", "chatmessage", "datetime", "number", "pairwise", "ranker", "rating", "reactcode",
    "relation", "taxonomy", "textarea",
}  # fmt: skip
HEADS, PEOPLE = {"head", "heads"}, {"person", "people", "pedestrian"}


def _that_count(labels: Iterable[Any]) -> set[str]:
    """The labels, of those in use, whose shapes are heads; none: all shapes are."""
    used = {str(label).lower() for label in labels}
    return used & HEADS or used & PEOPLE


def _together(
    path: Path, name: str, shapes: Any, point: Callable[[Any, str], list[Point]]
) -> Heads:
    where = f"{path}, {name}"
    try:
        return as_heads([found for shape in shapes for found in point(shape, where)], where)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{where}: a shape that cannot be read ({error}).") from error


def _middle(left: Any, top: Any, width: Any, height: Any) -> list[Point]:
    return [(float(left) + float(width) / 2, float(top) + float(height) / 2)]


def parse_coco(path: Path) -> Listing:
    """images, annotations and categories; of the key points the one named head, else nose, else
    the first that is labelled, else the box's centre; a picture with a crowd region (iscrowd) has
    no known number and is an error."""
    content = read_json(path)
    images = field(content, "images", str(path))
    # some tools write an id as a number here and as text there
    known_as = [one for one in content.get("categories", []) if isinstance(one, dict)]
    categories = {str(one.get("id")): one for one in known_as}
    names = {identity: str(one.get("name")).lower() for identity, one in categories.items()}
    annotations = field(content, "annotations", str(path))
    used = [str(one.get("category_id")) for one in annotations if isinstance(one, dict)]
    counting = _that_count(names.get(category) for category in used)
    found: dict[Any, list[Any]] = {}
    for annotation in annotations:
        category = field(annotation, "category_id", str(path)) if counting else None
        if not counting or names.get(str(category)) in counting:
            found.setdefault(str(field(annotation, "image_id", str(path))), []).append(annotation)
    point = partial(_coco_point, categories)
    listing: Listing = []
    known = set()
    for number, image in enumerate(images, start=1):
        name = str(field(image, "file_name", f"{path}, image {number}"))
        name = name_beside(name, path.parent)
        identity = str(field(image, "id", f"{path}, image {number}"))
        if identity in known:
            raise DatasetError(f"{path}: two images have the id {identity}.")
        known.add(identity)
        heads = partial(_together, path, name, found.pop(identity, []), point)
        size = stated(image.get("width"), image.get("height"))
        listing.append(Annotated(name, heads, size))
    if found:
        raise DatasetError(f"{path}: annotations of image {next(iter(found))}, which is not there.")
    return listing


def _coco_point(categories: dict[Any, Any], shape: Any, where: str) -> list[Point]:
    if shape.get("iscrowd"):
        raise DatasetError(f"{where}: a crowd region, of which nobody knows the number.")
    keypoints = shape.get("keypoints") or []
    labelled = {
        index // 3: (float(keypoints[index]), float(keypoints[index + 1]))
        for index in range(0, len(keypoints), 3)
        if keypoints[index + 2]
    }
    names = categories.get(str(shape.get("category_id")), {}).get("keypoints", [])
    for wanted in ("head", "nose"):
        if wanted in names and names.index(wanted) in labelled:
            return [labelled[names.index(wanted)]]
    if labelled:
        return [labelled[min(labelled)]]
    return _middle(*field(shape, "bbox", where))


def parse_via(path: Path) -> Listing:
    """A project of the VGG Image Annotator 2, or its annotations exported as JSON (1 and 2). Of
    several attributes of its regions the one that names heads or people most often labels them."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise DatasetError(f"{path} is no project of the VGG Image Annotator.")
    if "metadata" in content and "file" in content:
        raise DatasetError(f"{path} is of VIA 3, which is not read: annotate with VIA 2.")
    pictures: list[Pictured] = []
    for key, item in content.get("_via_img_metadata", content).items():
        name = str(field(item, "filename", f"{path}, {key}"))
        regions = field(item, "regions", f"{path}, {key}")
        shapes = list(regions.values()) if isinstance(regions, dict) else regions
        pictures.append(Pictured(name, shapes))
    named: Counter[str] = Counter()
    for region in _every_shape(pictures):
        for key, labels in _via_labels(region).items():
            named[key] += bool(labels & (HEADS | PEOPLE))
    label = max(named, key=named.__getitem__, default="")
    return _listed(path, pictures, lambda region: _via_labels(region).get(label, set()), _via_point)


class Pictured(NamedTuple):
    """A picture of a file and its shapes, with what else the file tells of it."""

    name: str
    shapes: Any
    size: Stated | None = None
    split: str = ""


def _listed(
    path: Path,
    pictures: list[Pictured],
    labels_of: Callable[[Any], set[str]],
    point: Callable[[Any, str], list[Point]],
    used: Iterable[str] | None = None,
) -> Listing:
    """The pictures of a file, each with its shapes whose labels are among those that count, of the
    ``used`` ones or of those in the file."""
    if used is None:
        used = _used(pictures, labels_of)
    counting = _that_count(used)
    listing: Listing = []
    for name, shapes, size, split in pictures:
        if counting and isinstance(shapes, list):  # what has no label is taken for a head still
            own = ((shape, labels_of(shape)) for shape in shapes)
            shapes = [shape for shape, labels in own if not labels or labels & counting]
        heads = partial(_together, path, name, shapes, point)
        listing.append(Annotated(name, heads, size, split))
    return listing


def _every_shape(pictures: list[Pictured]) -> list[Any]:
    return [shape for one in pictures if isinstance(one.shapes, list) for shape in one.shapes]


def _used(pictures: list[Pictured], labels_of: Callable[[Any], set[str]]) -> set[str]:
    return {label for shape in _every_shape(pictures) for label in labels_of(shape)}


def _texts(values: Any) -> set[str]:
    return {value.lower() for value in values if isinstance(value, str) and value}


def _via_labels(region: Any) -> dict[str, set[str]]:
    """What each attribute of a region says: a text, or the boxes that are ticked."""
    attributes = region.get("region_attributes") if isinstance(region, dict) else None
    if not isinstance(attributes, dict):
        return {}
    return {
        key: _texts([ticked for ticked, on in value.items() if on])
        if isinstance(value, dict)
        else _texts([value])
        for key, value in attributes.items()
    }


def _via_point(region: Any, where: str) -> list[Point]:
    shape = field(region, "shape_attributes", where)
    if shape.get("name") in ("point", "circle", "ellipse"):
        return [(float(field(shape, "cx", where)), float(field(shape, "cy", where)))]
    if shape.get("name") == "rect":
        return _middle(*(field(shape, key, where) for key in ("x", "y", "width", "height")))
    raise DatasetError(f"{where}: a {shape.get('name')}, which is no point; mark heads by points.")


def parse_labelme(path: Path) -> Listing:
    """One file a photograph, which imagePath names; it is looked for beside the file too. Which
    labels count all files of the folder say together."""
    content = read_json(path)
    name = str(field(content, "imagePath", str(path)))
    shapes = field(content, "shapes", str(path))
    used = _labelme_used(path.parent, path.parent.stat().st_mtime_ns)
    size = stated(content.get("imageWidth"), content.get("imageHeight"))
    picture = Pictured(name, shapes, size)
    return _listed(path, [picture], _labelme_labels, _labelme_point, used)


@lru_cache(maxsize=4)
def _labelme_used(folder: Path, modified: int) -> frozenset[str]:
    used: set[str] = set()
    for file in listed(folder, "*.json"):
        with suppress(DatasetError):
            content = read_json(file)
            if isinstance(content, dict):
                used |= _used([Pictured("", content.get("shapes"))], _labelme_labels)
    return frozenset(used)


def _labelme_labels(shape: Any) -> set[str]:
    return _texts([shape.get("label")]) if isinstance(shape, dict) else set()


def _labelme_point(shape: Any, where: str) -> list[Point]:
    points, kind = field(shape, "points", where), shape.get("shape_type", "polygon")
    if kind in ("point", "points", "circle"):  # a circle's first point is its centre
        return [(float(x), float(y)) for x, y in points[: 1 if kind == "circle" else None]]
    if kind == "rectangle":
        xs, ys = zip(*points)  # two corners, or all four
        return _middle(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    raise DatasetError(f"{where}: a {kind}, which is no point; mark heads by points.")


def parse_cvat(path: Path) -> Listing:
    """XML 1.1 exported as "CVAT for images"."""
    text = read_text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # CVAT writes none, and they can be harmful
        raise DatasetError(f"{path} holds a document type, which is not read.")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DatasetError(f"{path} cannot be read as XML: {error}.") from error
    if root.tag != "annotations" or root.find("track") is not None:
        raise DatasetError(f'{path} is no export "CVAT for images"; export the task anew as one.')
    pictures: list[Pictured] = []
    for image in root.iter("image"):
        name = image.get("name")
        if not name:
            raise DatasetError(f"{path}: an image without a name.")
        subset = str(image.get("subset")).lower()
        split = next((split for split, names in SPLITS.items() if subset in names), "")
        shapes = [shape for shape in image if shape.tag != "tag"]
        size = stated(image.get("width"), image.get("height"))
        pictures.append(Pictured(name, shapes, size, split))
    if not pictures:
        raise DatasetError(f"{path} holds no images.")
    return _listed(path, pictures, lambda shape: _texts([shape.get("label")]), _cvat_point)


def _cvat_point(shape: ElementTree.Element, where: str) -> list[Point]:
    if shape.tag == "points":
        pairs = (pair.split(",") for pair in shape.get("points", "").split(";") if pair)
        return [(float(x), float(y)) for x, y in pairs]
    if shape.tag == "box":
        left, top, right, bottom = (float(shape.get(k, "")) for k in ("xtl", "ytl", "xbr", "ybr"))
        return _middle(left, top, right - left, bottom - top)
    if shape.tag == "ellipse":
        return [(float(shape.get("cx", "")), float(shape.get("cy", "")))]
    raise DatasetError(f"{where}: a {shape.tag}, which is no point; mark heads by points.")


def parse_label_studio(path: Path) -> Listing:
    """The JSON export: key points or boxes in percent of the picture, whatever its size. Of several
    annotations of a task, the first that was not cancelled counts."""
    pictures: list[Pictured] = []
    tasks = read_json(path)
    if not isinstance(tasks, list):
        raise DatasetError(f"{path} is no list of tasks; export it from Label Studio as JSON.")
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
        pictures.append(Pictured(name, shapes, _label_studio_size(shapes)))
    listing = _listed(path, pictures, _label_studio_labels, _label_studio_point)
    for index, picture in enumerate(pictures):
        if picture.shapes is None:
            nobody = DatasetError(f"{path}, {picture.name}: the task is not annotated.")
            listing[index] = Annotated(picture.name, fails(nobody))
    return listing


def _with_labels(results: Any) -> Any:
    """The shapes of a task, each with the labels that Labels beside Rectangle and its kin gives as
    a result of its own, of the shape's id."""
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


def _label_studio_size(shapes: Any) -> Stated | None:
    sizes = (
        stated(shape.get("original_width"), shape.get("original_height"), relative=True)
        for shape in shapes or ()
        if isinstance(shape, dict)
    )
    return next((size for size in sizes if size), None)


def _label_studio_labels(shape: Any) -> set[str]:
    value = shape.get("value") if isinstance(shape, dict) else None
    lists = value.items() if isinstance(value, dict) else ()
    return {
        label
        for key, given in lists
        if str(key).endswith("labels") and isinstance(given, list)
        for label in _texts(given)
    }


def _label_studio_point(shape: Any, where: str) -> list[Point]:
    kind = str(shape.get("type", ""))
    if not kind.startswith(("keypoint", "rectangle", "ellipse")):
        if kind in NO_SHAPES:
            return []
        raise DatasetError(
            f"{where}: a {kind or 'shape'}, which is no point; mark heads by points."
        )
    value = field(shape, "value", where)
    sides = [float(field(shape, f"original_{side}", where)) / 100 for side in ("width", "height")]
    x, y = (float(field(value, axis, where)) * side for axis, side in zip("xy", sides))
    if kind.startswith("rectangle"):  # turned about its upper left corner, x and y
        wide, high = (
            float(field(value, key, where)) * side for key, side in zip(("width", "height"), sides)
        )
        turn = math.radians(float(value.get("rotation", 0)))
        x += (wide * math.cos(turn) - high * math.sin(turn)) / 2
        y += (wide * math.sin(turn) + high * math.cos(turn)) / 2
    return [(x, y)]
