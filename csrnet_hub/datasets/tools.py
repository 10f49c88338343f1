"""Files of annotation tools: COCO, VIA, LabelMe and CVAT; `shapes` decides which are heads."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from .own import Listing, field
from .places import name_beside
from .sample import DatasetError, stated
from .shapes import (
    HEADS,
    NO_POINT,
    PEOPLE,
    Pictured,
    Point,
    middle,
    texts,
    that_count,
    with_heads,
)
from .splits import of_folder
from .text import read_json, read_text


def parse_coco(path: Path) -> Listing:
    """Parse images, annotations and categories. A head is the key point named head, else nose, else
    the first labelled one, else the box's centre. A picture with a crowd region (iscrowd) has no
    known number and is an error."""
    content = read_json(path)
    images = field(content, "images", str(path))
    known_as = [one for one in content.get("categories", []) if isinstance(one, dict)]
    categories = {_identity(one.get("id")): one for one in known_as}
    names = {identity: str(one.get("name")).strip().lower() for identity, one in categories.items()}
    labels_of = partial(_coco_labels, names)
    told = that_count(names.values())  # people are distinguished from other things
    found: dict[str, list[Any]] = {}
    used: set[str] = set()
    for annotation in field(content, "annotations", str(path)):
        if told:
            used.add(_identity(field(annotation, "category_id", str(path))))
        identity = _identity(field(annotation, "image_id", str(path)))
        found.setdefault(identity, []).append(annotation)
    if used and not used & names.keys():  # a few may have been left out of the list on purpose
        raise DatasetError(f"{path} lists no category that it annotates, such as {min(used)}.")
    pictures: list[Pictured] = []
    known = set()
    for number, image in enumerate(images, start=1):
        name = str(field(image, "file_name", f"{path}, image {number}"))
        name = name_beside(name, path.parent)
        identity = _identity(field(image, "id", f"{path}, image {number}"))
        if identity in known:
            raise DatasetError(f"{path}: two images have the id {identity}.")
        known.add(identity)
        size = stated(image.get("width"), image.get("height"))
        pictures.append(Pictured(name, found.pop(identity, []), size))
    for identity, left in found.items():
        if not told or any(labels_of(one) & (HEADS | PEOPLE) for one in left):  # no other things
            raise DatasetError(f"{path} annotates image {identity}, which it does not list.")
    return with_heads(path, pictures, labels_of, partial(_coco_point, categories))


def _identity(value: Any) -> str:
    # some tools write an id as a number in one place and as text, or as 1.0, in another
    return re.sub(r"^(\d+)\.0$", r"\1", str(value))


def _coco_labels(names: dict[str, str], shape: Any) -> set[str]:
    category = _identity(shape.get("category_id"))
    return {names.get(category, category)} if names else set()


def _coco_point(categories: dict[Any, Any], shape: Any, where: str) -> list[Point]:
    if shape.get("iscrowd"):
        raise DatasetError(f"{where}: a crowd region (iscrowd), whose number of people is unknown.")
    keypoints = shape.get("keypoints") or []
    labelled = {
        index // 3: (float(keypoints[index]), float(keypoints[index + 1]))
        for index in range(0, len(keypoints), 3)
        if keypoints[index + 2]
    }
    names = categories.get(_identity(shape.get("category_id")), {}).get("keypoints", [])
    for wanted in ("head", "nose"):
        if wanted in names and names.index(wanted) in labelled:
            return [labelled[names.index(wanted)]]
    if labelled:
        return [labelled[min(labelled)]]
    return middle(*field(shape, "bbox", where))


def parse_via(path: Path) -> Listing:
    """Parse a project of the VGG Image Annotator 2, or annotations exported as JSON (1 and 2). If
    regions have several attributes, the one that most often names heads or people labels them; if
    none does, all do."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise DatasetError(f"{path} is not a project of the VGG Image Annotator.")
    if "metadata" in content and "file" in content:
        raise DatasetError(f"{path} is from VIA 3, which is not supported: annotate with VIA 2.")
    pictures: list[Pictured] = []
    told_by = partial(_via_labels, content.get("_via_attributes"))
    for key, item in content.get("_via_img_metadata", content).items():
        name = str(field(item, "filename", f"{path}, {key}"))
        regions = field(item, "regions", f"{path}, {key}")
        shapes = list(regions.values()) if isinstance(regions, dict) else regions
        pictures.append(Pictured(name, shapes))
    named: Counter[str] = Counter()
    lists = (one.shapes for one in pictures if isinstance(one.shapes, list))
    for region in chain.from_iterable(lists):
        for key, labels in told_by(region).items():
            named[key] += bool(labels & (HEADS | PEOPLE))
    label = max(named, key=named.__getitem__, default="")

    def labels_of(region: Any) -> set[str]:
        told = told_by(region)
        return told.get(label, set()) if named[label] else set().union(*told.values())

    return with_heads(path, pictures, labels_of, _via_point)


def _via_labels(kinds: Any, region: Any) -> dict[str, set[str]]:
    """The value of each attribute of a region: a text, or the chosen options and their names in the
    project."""
    attributes = region.get("region_attributes") if isinstance(region, dict) else None
    if not isinstance(attributes, dict):
        return {}
    found = {}
    for key, value in attributes.items():
        try:
            named = {str(one): name for one, name in kinds["region"][key]["options"].items()}
        except (TypeError, LookupError, AttributeError):  # a text, or annotations without a project
            named = {}
        chosen = [one for one, on in value.items() if on] if isinstance(value, dict) else [value]
        found[key] = texts([*chosen, *(named.get(str(one)) for one in chosen)])
    return found


def _via_point(region: Any, where: str) -> list[Point]:
    shape = field(region, "shape_attributes", where)
    if shape.get("name") in ("point", "circle", "ellipse"):
        return [(float(field(shape, "cx", where)), float(field(shape, "cy", where)))]
    if shape.get("name") == "rect":
        return middle(*(field(shape, key, where) for key in ("x", "y", "width", "height")))
    raise DatasetError(f"{where}: {NO_POINT.format(shape.get('name'))}")


def parse_labelme(path: Path) -> Listing:
    """Parse one file per photograph, named by imagePath and also searched for beside the file."""
    content = read_json(path)
    name = str(field(content, "imagePath", str(path)))
    shapes = field(content, "shapes", str(path))
    size = stated(content.get("imageWidth"), content.get("imageHeight"))
    return with_heads(path, [Pictured(name, shapes, size)], _labelme_labels, _labelme_point)


def _labelme_labels(shape: Any) -> set[str]:
    return texts([shape.get("label")]) if isinstance(shape, dict) else set()


def _labelme_point(shape: Any, where: str) -> list[Point]:
    points, kind = field(shape, "points", where), shape.get("shape_type", "polygon")
    if kind in ("point", "points", "circle"):  # a circle's first point is its centre
        return [(float(x), float(y)) for x, y in points[: 1 if kind == "circle" else None]]
    if kind == "rectangle":
        xs, ys = zip(*points)  # two corners, or all four
        return middle(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    raise DatasetError(f"{where}: {NO_POINT.format(kind)}")


def parse_cvat(path: Path) -> Listing:
    """Parse XML 1.1 exported as "CVAT for images"."""
    text = read_text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # CVAT writes neither, and both can be harmful
        raise DatasetError(f"{path} has a document type (DOCTYPE), which is not read.")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DatasetError(f"{path} cannot be read as XML: {error}.") from error
    if root.tag != "annotations" or root.find("track") is not None:
        raise DatasetError(
            f'{path} is not in "CVAT for images 1.1": export the task in that format.'
        )
    pictures: list[Pictured] = []
    for image in root.iter("image"):
        name = image.get("name")
        if not name:
            raise DatasetError(f"{path}: an image has no name.")
        split = of_folder([image.get("subset", "")])
        shapes = [shape for shape in image if shape.tag != "tag"]
        size = stated(image.get("width"), image.get("height"))
        pictures.append(Pictured(name, shapes, size, split))
    if not pictures:
        raise DatasetError(f"{path} holds no images.")
    return with_heads(path, pictures, lambda shape: texts([shape.get("label")]), _cvat_point)


def _cvat_point(shape: ElementTree.Element, where: str) -> list[Point]:
    if shape.tag == "points":
        pairs = (pair.split(",") for pair in shape.get("points", "").split(";") if pair)
        return [(float(x), float(y)) for x, y in pairs]
    if shape.tag == "box":
        left, top, right, bottom = (float(shape.get(k, "")) for k in ("xtl", "ytl", "xbr", "ybr"))
        return middle(left, top, right - left, bottom - top)
    if shape.tag == "ellipse":
        return [(float(shape.get("cx", "")), float(shape.get("cy", "")))]
    raise DatasetError(f"{where}: {NO_POINT.format(shape.tag)}")
