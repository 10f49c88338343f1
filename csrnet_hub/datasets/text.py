"""Read whole text files, with clear errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import jsonkeys
from ..paths import is_file
from .files import actual
from .sample import DatasetError, Heads, as_heads

UTF16 = (b"\xff\xfe", b"\xfe\xff")  # byte-order marks


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
            raise DatasetError(
                f"{path}, line {number}: {line.strip()!r} is not a row of numbers."
            ) from error
        if len(values) < columns:
            raise DatasetError(f"{path}, line {number}: {len(values)} numbers, not {columns}.")
        found.append(values[:2])
    return as_heads(found, path)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte-order mark, as spreadsheets save
    "Unicode text"; line ends are normalised to ``\\n``.

    Raises:
        DatasetError: if it is missing or not such text.
    """
    path = actual(path)
    if not is_file(path):
        raise DatasetError(f"The annotation {path} is missing.")
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content.startswith(UTF16) else "utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}.") from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is not text in UTF-8 ({error.reason}): save it again as UTF-8."
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DatasetError: if it is missing or damaged, or an object has a key twice.
    """
    text = read_text(path)
    try:
        return jsonkeys.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError
        raise DatasetError(f"{path} cannot be read as JSON: {error}.") from error
