"""Files that a reader never sees half written, and the one way values become JSON and CSV."""

import csv
import io
import json
import math
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give the path of a fresh file, which takes the place of `path` in one step once it is written.

    Left by an error it is removed. The directory must exist. What can be made again need not be `durable`: it does
    not wait for the disk, and a crash of the machine may lose it.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_native_id()}.partial")
    try:
        yield fresh
        if durable:
            sync(fresh)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def write_file(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a file in one step; see `replacing`."""
    with replacing(path, durable) as fresh:
        fresh.write_bytes(data)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Write a value, paths as text, in one step."""
    write_file(path, json.dumps(value, default=os.fspath).encode(), durable)


def read_json(path: Path) -> Any | None:
    """Return what `path` holds, or None where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); it was changed by something else") from error


def pretty_json(value: Any) -> bytes:
    """Return readable JSON with a final newline."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


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
