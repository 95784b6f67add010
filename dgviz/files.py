"""Files that a reader never sees half written, and the one way values become JSON and CSV."""

import csv
import io
import json
import math
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import platformdirs

from dgviz.errors import ExportError, StateError

PAGE, PICTURE = (".html", ".htm"), (".svg", ".png")
"""What the name of a page or of a picture may end in."""


def cache_dir() -> Path:
    """Return the directory of everything dgviz remembers: ``$DGVIZ_CACHE_DIR``, else the user's cache directory."""
    return Path(os.environ.get("DGVIZ_CACHE_DIR") or platformdirs.user_cache_dir("dgviz")).expanduser()


class FileStamp(NamedTuple):
    """What changes when a file does, however it was changed: its times can be set, that of its last change cannot."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def file_stamp(stat: os.stat_result) -> FileStamp:
    """Return the stamp of a file."""
    return FileStamp(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give the path of a fresh file, which takes the place of `path` in one step once it is written.

    Left by an error it is removed. The directory must exist. What can be made again need not be `durable`: it does
    not wait for the disk, and a crash of the machine may lose it.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
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


def check_ending(path: Path, endings: Iterable[str]) -> Path:
    """Return the path of a file to be written; raise where its name ends in something else than what is written.

    So no file of another kind is ever replaced, weights least of all.
    """
    if path.suffix.lower() not in endings:
        known = " or ".join(endings)
        raise ExportError(f"{path} does not end in {known}, as what is written does: choose such a name")
    if path.exists() and not path.is_file():
        raise ExportError(f"{path} is there and no file; choose another name")
    return path


def save_by_ending(file: str | Path, contents: Mapping[str, Callable[[], bytes]]) -> Path:
    """Write what a user saves in the form that the file's name ends in, in one step; return the file.

    Parameters
    ----------
    file : str or Path
        Where.
    contents : mapping
        By ending, what makes the bytes.

    Raises
    ------
    ExportError
        If the ending is another one, or the file cannot be written.
    """
    path = check_ending(Path(file).expanduser(), contents)
    try:
        write_file(path, contents[path.suffix.lower()]())
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}; choose another file") from None
    return path


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Write a value, paths as text, in one step: every file of state, so that none is ever seen half written."""
    write_file(path, json.dumps(value, default=os.fspath).encode(), durable)


def read_json(path: Path) -> Any | None:
    """Return what `path` holds, or None where there is no such file.

    Raises
    ------
    StateError
        If it is no JSON, or cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise StateError(f"{path} is not JSON ({error}): it was damaged, or changed by something else") from error


def read_record(path: Path, *keys: str) -> dict[str, Any] | None:
    """Return the JSON object in a file of state, or None where there is no such file.

    Raises
    ------
    StateError
        If it is no JSON object with these keys: damaged, or of another version.
    """
    found = read_json(path)
    if found is None and not path.exists():
        return None
    lacking = [key for key in keys if key not in found] if isinstance(found, dict) else ["any name"]
    if lacking:
        raise StateError(f"{path} holds no {' and no '.join(lacking)}: it was damaged, or is of another version")
    return found


def pretty_json(value: Any) -> bytes:
    """Return readable JSON with a final newline; text that is no Unicode, as names of files may be, is escaped."""
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


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
