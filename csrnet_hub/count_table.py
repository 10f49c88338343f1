"""The table of counts that the command line writes, and its earlier rows when a run resumes."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from .paths import is_file

COLUMNS = [
    "image",
    "count",
    "low",
    "high",
    "width",
    "height",
    "model",
    "seconds",
    "device",
    "scale",
    "map",
    "notices",
    "error",
]
# how our tables begin; other people's tables of counts begin with image,count too
TABLE = ",".join(COLUMNS[:6])
OPTIONS: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}


def spelt(path: Path) -> str:
    """A photograph's path as in the table: bytes that are not UTF-8, as on Linux, are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def rows_before(table: Path, model: str) -> list[dict[str, str]]:
    """The rows of an earlier run's table; empty if there is no such file.

    Raises:
        ValueError: if the table has other columns or another model's counts, or is unreadable.
    """
    if not table.is_file():
        return []
    try:
        columns, rows = _read(table)
    except csv.Error as error:
        raise ValueError(f"{table} cannot be read as a table: {error}") from error
    if columns and columns != COLUMNS:
        raise ValueError(
            f"{table} was written with different columns, so --resume cannot continue it: give "
            "another name for the table."
        )
    rows = _newest(rows)
    if others := {row["model"] for row in rows if row["count"]} - {model}:
        raise ValueError(
            f"{table} holds counts by {', '.join(sorted(others))}, not {model}: give "
            "the model of that name with --model (without it, the one that comes with the package "
            "counts), or give another name for the table."
        )
    return rows


def spare_counts(table: Path) -> None:
    """Refuse to replace a table that has more than its header, readable or not.

    Raises:
        ValueError: if there is one.
    """
    if table.is_file() and len(table.read_bytes().splitlines()) > 1:
        raise ValueError(
            f"{table} holds counts: add --resume to continue it, --force to replace it, or give "
            "another name."
        )


def is_counted(row: dict[str, str], with_map: bool) -> bool:
    """Whether a row already has what a run would compute again."""
    return bool(row["count"] and not row["error"] and (is_file(row["map"]) or not with_map))


def open_table(
    path: Path, stack: ExitStack, rows: Sequence[dict[str, str]] = ()
) -> Callable[[dict[str, Any]], None]:
    """Begin a table with these `rows` and return a function that writes one more. A photograph's
    new row replaces its older one, but only at the end: a run killed earlier has lost none.

    The table is opened before the first picture is counted and each row is written at once, so a
    stopped run keeps its counts.
    """
    if rows:  # none is lost, even if the disk is full by now
        path = Path(os.path.realpath(path))
        _rewrite(path, rows)
        stack.callback(_tidy, path)
    file = stack.enter_context(path.open("a" if rows else "w", **OPTIONS))
    writer = csv.DictWriter(file, COLUMNS, restval="") if rows else _writer(file)

    def write(row: dict[str, Any]) -> None:
        try:
            writer.writerow(row)
            file.flush()
        except OSError as error:  # a full disk names no file
            with suppress(OSError):  # it would fail again, later
                file.close()
            raise OSError(error.errno, error.strerror, str(path)) from error

    return write


def as_row(line: dict[str, Any]) -> dict[str, Any]:
    """The cells for what the command line reports on a picture."""
    cells = {key: value for key, value in line.items() if key != "interval"}
    low, high = line.get("interval") or ("", "")
    return {**cells, "low": low, "high": high, "notices": " ".join(line.get("notices", ()))}


def _read(table: Path) -> tuple[Sequence[str], list[dict[str, str]]]:
    """The columns of a table, and its rows except a last one that a killed run left incomplete: it
    may have half a letter. A spreadsheet leaves out empty cells at the end of any row."""
    with table.open(newline="", encoding="utf-8-sig", errors="backslashreplace") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        if rows and (None in rows[-1] or None in rows[-1].values()):
            del rows[-1]
        names = reader.fieldnames or []
        return names, [{name: row[name] or "" for name in names} for row in rows]


def _newest(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The last row of each photograph, in the place of its first; an error replaces no count."""
    newest: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["count"] or not newest.get(row["image"], row)["count"]:
            newest[row["image"]] = row
    return list(newest.values())


def _tidy(table: Path) -> None:
    with suppress(OSError, csv.Error):  # a photograph with two rows is no reason to fail at the end
        _, rows = _read(table)
        newest = _newest(rows)
        if len(newest) < len(rows):
            _rewrite(table, newest)


def _rewrite(table: Path, rows: Sequence[dict[str, str]]) -> None:
    partial = table.with_name(f"{table.name}.partial")
    try:
        with partial.open("w", **OPTIONS) as file:
            _writer(file).writerows(rows)
        shutil.copymode(table, partial)
        partial.replace(table)
    finally:
        partial.unlink(missing_ok=True)


def _writer(file: Any) -> csv.DictWriter[str]:
    writer = csv.DictWriter(file, COLUMNS, restval="")
    writer.writeheader()
    return writer
