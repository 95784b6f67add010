"""Files that a reader never sees half written, and the one way numbers go into JSON and tables into CSV."""

import csv
import io
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_file(path: Path, data: bytes) -> None:
    """Write a small file atomically: temporary name, fsync, rename, fsync of the directory, which must exist."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def json_number(value: Any) -> Any:
    """Return a value for JSON with infinities as ``"inf"`` and ``"-inf"``, which no JSON number can be."""
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, list | tuple):
        return [json_number(item) for item in value]
    if isinstance(value, dict):
        return {key: json_number(item) for key, item in value.items()}
    return value


def csv_text(titles: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table as CSV; None is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows(rows)
    return text.getvalue()
