"""Small JSON files that a reader never sees half written."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` by atomic replace.

    Parameters
    ----------
    path : Path
        File in an existing directory.
    value : object
        What `json` can write; paths are written as text.

    Raises
    ------
    TypeError
        When `value` holds anything else; the file is then left as it was.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(value, default=os.fspath), encoding="utf-8")
    fresh.replace(path)


def read_json(path: Path) -> Any | None:
    """Return what `path` holds, or None where there is no such file.

    Parameters
    ----------
    path : Path
        File written by `write_json`.

    Raises
    ------
    ValueError
        When the file is not JSON; the message names it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); it was changed by something else") from error
