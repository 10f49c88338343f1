"""Text files: read whole, their trouble named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .sample import DatasetError, Heads, as_heads


def rows_of_numbers(path: Path, columns: int) -> Heads:
    """x and y, the first two of `columns` numbers on each line of a text file."""
    found = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            raise DatasetError(f"{path}, line {number}: {line.strip()!r} is no row.") from error
        if len(values) < columns:
            raise DatasetError(f"{path}, line {number}: {len(values)} numbers, not {columns}.")
        found.append(values[:2])
    return as_heads(found, path)


def read_text(path: Path) -> str:
    """The text of a file, whatever byte-order mark it starts with.

    Raises:
        DatasetError: if it is missing or no text.
    """
    if not path.is_file():
        raise DatasetError(f"The annotation {path} is missing.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as text: {error}.") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DatasetError: if it is missing or damaged.
    """
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DatasetError(f"{path} cannot be read as JSON: {error}.") from error
