"""Check a folder of annotated photographs: its contents and its faults."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..density import heads_in_frame
from ..images import SUFFIXES, ImageError, load_image
from ..paths import is_file, real
from ..render import without_latex
from .files import listed
from .pairs import Thumbnail, same_pictures, thumbnail
from .registry import find_format, find_splits, read_dataset
from .sample import DatasetError, Sample

FINDINGS = ("unreadable", "duplicates", "outside", "same")
BINS = 30  # of the histograms
SHOWN = 20  # lines of each kind in the text; the JSON has all


@dataclass(frozen=True)
class Row:
    """Measurements of one readable photograph."""

    sample: Sample
    width: int
    height: int
    heads: int
    duplicates: int
    outside: int
    file_mode: str
    colourless: bool
    digest: bytes
    thumbnail: Thumbnail


def check(folder: Path, format: str | None = None) -> dict[str, Any]:
    """Read every annotation and photograph in a folder and report the findings.

    Returns:
        ``format``, ``images``, ``heads``; ``splits`` with the images, heads, sizes and counts of
        each; and lists of names or records: ``unreadable`` (file, trouble), ``duplicates`` (points
        at exactly the same place), ``outside`` (heads outside the frame), ``empty`` (nobody
        annotated), ``greyscale`` (files with one channel), ``colourless`` (files with three equal
        channels), ``same`` (two or more images of the same picture: their heads, whether all
        pixels are equal, else the lowest likeness by which one belongs to the group),
        ``not_annotated`` (photographs that no annotation lists, for one's own formats).
        ``findings`` is the number of entries in unreadable, duplicates, outside and same.

    Raises:
        DatasetError: if the folder as a whole cannot be read.
    """
    name, kind = find_format(folder, format)
    bad: list[DatasetError] = []
    samples = read_dataset(folder, name, bad=bad)
    unreadable = [{"file": None, "trouble": str(error)} for error in bad]
    rows = []
    for sample in tqdm(samples, "check", unit="image", disable=None):
        try:
            rows.append(_look_at(sample))
        except (ImageError, DatasetError) as error:
            unreadable.append({"file": _short(sample.path, folder), "trouble": str(error)})
    report: dict[str, Any] = {
        "folder": str(folder),
        "format": name,
        "subject": kind.subject,
        "images": len(rows),
        "heads": sum(row.heads for row in rows),
        "splits": {
            split: _summary([row for row in rows if row.sample.split == split])
            for split in dict.fromkeys(row.sample.split for row in rows)
        },
        "splits_found": find_splits(folder, name),
        "unreadable": unreadable,
        "duplicates": [
            {"image": _label(row), "points": row.duplicates} for row in rows if row.duplicates
        ],
        "outside": [{"image": _label(row), "heads": row.outside} for row in rows if row.outside],
        "empty": [_label(row) for row in rows if not row.heads],
        "greyscale": [_label(row) for row in rows if row.file_mode in ("1", "L", "LA", "I;16")],
        "colourless": [_label(row) for row in rows if row.colourless],
        "same": list(_same(rows, exact_only=kind.video)),
        "not_annotated": not_annotated(folder, name),
        "sizes": [[row.width, row.height] for row in rows],
        "counts": [row.heads for row in rows],
    }
    report["findings"] = sum(len(report[key]) for key in FINDINGS)
    return report


def _look_at(sample: Sample) -> Row:
    pixels = load_image(sample.path)
    height, width = pixels.shape[:2]
    placed = sample.placed(height, width)
    _, copies = np.unique(placed, axis=0, return_counts=True)
    mode = _stored_mode(sample.path)
    grey = (pixels[..., :1] == pixels[..., 1:]).all()
    return Row(
        sample=sample,
        width=width,
        height=height,
        heads=len(sample.counted(height, width)),
        duplicates=int(copies[copies > 1].sum()),
        outside=heads_in_frame(placed, height, width)[1],
        file_mode=mode,
        colourless=bool(grey) and mode not in ("1", "L", "LA", "I;16"),
        digest=hashlib.sha256(pixels.tobytes()).digest() + height.to_bytes(4, "big"),
        thumbnail=thumbnail(pixels),
    )


def _stored_mode(path: Path) -> str:
    """How a file stores its pixels; unknown for kinds or sizes that Pillow does not open itself."""
    try:
        with Image.open(path) as image:
            return image.mode
    except (OSError, Image.DecompressionBombError):
        return ""


def _label(row: Row) -> str:
    return f"{row.sample.split}/{row.sample.name}"


def _short(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _summary(rows: list[Row]) -> dict[str, Any]:
    counts = [row.heads for row in rows]
    return {
        "images": len(rows),
        "heads": sum(counts),
        "count": {"min": min(counts), "median": float(np.median(counts)), "max": max(counts)},
        "width": [min(row.width for row in rows), max(row.width for row in rows)],
        "height": [min(row.height for row in rows), max(row.height for row in rows)],
    }


def _same(rows: list[Row], exact_only: bool) -> Iterator[dict[str, Any]]:
    # Neighbouring video frames always look alike; there only equal pixels are suspicious.
    equal: dict[bytes, list[int]] = {}
    for index, row in enumerate(rows):
        equal.setdefault(row.digest, []).append(index)
    groups = list(equal.values())
    alike = [] if exact_only else same_pictures([rows[first].thumbnail for first, *_ in groups])
    found = [(sorted(i for n in joined for i in groups[n]), score) for joined, score in alike]
    joined_already = {index for group, _ in found for index in group}
    found += [(g, 1.0) for g in groups if len(g) > 1 and g[0] not in joined_already]
    for group, score in sorted(found):
        same = [rows[index] for index in group]
        yield {
            "images": [_label(row) for row in same],
            "equal": len({row.digest for row in same}) == 1,
            "likeness": score,
            "heads": [row.heads for row in same],
            "across_splits": len({row.sample.split for row in same}) > 1,
        }


def not_annotated(folder: Path, format: str | None = None) -> list[str]:
    """The pictures in a folder that no annotation lists, for one's own formats; none for published
    data sets, whose layout says which are annotated.

    Raises:
        DatasetError: if the folder as a whole cannot be read.
    """
    name, kind = find_format(folder, format)
    if not kind.suffix:
        return []
    home = folder if folder.is_dir() else folder.parent
    entries = (one for split in find_splits(folder, name) for one in kind.entries(folder, split))
    known = {real(entry.path) for entry in entries if is_file(entry.path)}
    files = (path for path in listed(home, "*", deep=True) if path.suffix.lower() in SUFFIXES)
    return [_short(path, home) for path in files if real(path) not in known]


def as_text(report: dict[str, Any]) -> str:
    """The report as readable text, one fact per line."""
    lines = [
        f"{report['folder']}: {report['format']}, {report['images']:,} images, "
        f"{report['heads']:,} {'heads' if report['subject'] == 'people' else report['subject']}"
    ]
    for split, part in report["splits"].items():
        count = part["count"]
        lines.append(
            f"  {split}: {part['images']:,} images, {part['heads']:,} annotated "
            f"({count['min']} to {count['max']} per image, median {count['median']:g}), "
            f"{_range(part['width'])} by {_range(part['height'])} pixels"
        )
    points = sum(entry["points"] for entry in report["duplicates"])
    outside = sum(entry["heads"] for entry in report["outside"])
    same = [_same_line(group) for group in report["same"]]
    unreadable = [": ".join(filter(None, entry.values())) for entry in report["unreadable"]]
    lines += _section(len(unreadable), "cannot be read", unreadable)
    lines += _section(
        points,
        f"points lie exactly on another, in {len(report['duplicates'])} images",
        [f"{entry['image']}: {entry['points']}" for entry in report["duplicates"]],
    )
    lines += _section(
        outside,
        f"heads lie outside the frame, in {len(report['outside'])} images",
        [f"{entry['image']}: {entry['heads']}" for entry in report["outside"]],
    )
    lines += _section(len(same), "groups of images show the same picture", same)
    lines += _section(len(report["empty"]), "images have no heads annotated", report["empty"])
    lines += _section(len(report["greyscale"]), "greyscale files", report["greyscale"])
    lines += _section(
        len(report["colourless"]), "colour files hold no colour", report["colourless"]
    )
    lines += _section(
        len(report["not_annotated"]), "pictures that no annotation lists", report["not_annotated"]
    )
    found = report["findings"]
    lines.append(f"{found} finding{'s' * (found > 1)}" if found else "nothing to fix")
    return "\n".join(lines)


def _range(ends: list[int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _same_line(group: dict[str, Any]) -> str:
    what = "equal" if group["equal"] else f"likeness {group['likeness']:.2f}"
    where = ", in different splits" if group["across_splits"] else ""
    images, heads, left = group["images"], group["heads"], len(group["images"]) - SHOWN
    if left > 0:
        images, heads = [*images[:SHOWN], f"{left} more"], [*heads[:SHOWN], "..."]
    counts = ", ".join(map(str, heads))
    return f"{', '.join(images[:-1])} and {images[-1]} ({what}{where}; {counts} heads)"


def _section(number: int, title: str, entries: list[str]) -> list[str]:
    if not number:
        return [f"  0 {title}"]
    left = len(entries) - SHOWN
    more = [f"    and {left} more (--json lists all)"] if left > 0 else []
    return [f"  {number:,} {title}", *(f"    {entry}" for entry in entries[:SHOWN]), *more]


@without_latex()
def save_histograms(report: dict[str, Any], path: Path) -> None:
    """Draw histograms of the sizes and counts of a report to a PNG file."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    sizes = np.asarray(report["sizes"]).reshape(-1, 2)
    panels = [
        ("width in pixels", sizes[:, 0]),
        ("height in pixels", sizes[:, 1]),
        (f"{'heads' if report['subject'] == 'people' else report['subject']} per image",
         np.asarray(report["counts"])),
    ]  # fmt: skip
    for axes, (label, values) in zip(figure.subplots(1, 3), panels):
        low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        step = max(1, -(-(high - low + 1) // BINS))  # bins hold whole numbers
        low = max(0, low - max(0, BINS - (high - low)) // 2)
        axes.hist(values, bins=low + step * np.arange(BINS + 1) - 0.5)
        axes.set_xlabel(label)
        axes.set_ylabel("images")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator("auto", integer=True))
    figure.suptitle(f"{report['images']:,} images, {report['format']}")
    figure.savefig(path, format="png", dpi=100, bbox_inches="tight")
