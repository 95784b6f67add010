"""Files of a checkpoint, read with care: no link out of the directory, no size without a cap, strict JSON.

A checkpoint is somebody else's directory. A link in it could lead to any file of this machine, and an export copies
configs and tokenizers: only what the directory itself holds is read. The one exception is the Hugging Face cache,
whose snapshots are links to the blobs of the same repository.
"""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgviz.errors import CheckpointError

MAX_CONFIG_BYTES = 64_000_000
"""Real ones have kilobytes, a megabyte with 20,000 class names; beyond this the file is no config."""


def refuse_stray_link(file: Path) -> None:
    """Raise where a file of a checkpoint is a link that leads out of its directory."""
    target = Path(os.path.realpath(file))
    directory = Path(os.path.realpath(file.parent))
    parents = [directory, *directory.parents]
    allowed = [directory, *(folder.parent / "blobs" for folder in parents if folder.name == "snapshots")]
    # Compared as they are: blobs that were a link themselves would lead anywhere.
    if not any(target.is_relative_to(folder) for folder in allowed):
        raise CheckpointError(
            f"{file} is a link to {target}, outside its directory, and only links of the Hugging Face cache to its "
            "own blobs are followed: copy the file there, or give the directory it lies in"
        )


def read_document(file: Path, most: int, what: str) -> bytes:
    """Return the bytes of a small file."""
    refuse_stray_link(file)
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for, a device never ends
            raise CheckpointError(f"{file} is no regular file: put the {what} itself there")
        if found.st_size > most:
            article = "an" if what[0] in "aeiou" else "a"
            raise CheckpointError(
                f"{file} has {found.st_size} bytes, above the cap of {most}: it is not {article} {what}"
            )
        return file.read_bytes()
    except FileNotFoundError as error:
        if file.is_symlink():
            raise CheckpointError(f"{file} is a link to a file that is gone: fetch it again") from error
        raise
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error


def config_sections(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return a config and the sections inside it at any depth (text_config, ...), by what to call them."""
    found = {"config.json": config}
    waiting = [("", config)]
    while waiting:
        path, section = waiting.pop(0)
        inner = [(f"{path}.{key}".strip("."), value) for key, value in section.items() if isinstance(value, dict)]
        found |= {f"config.json's {name}": value for name, value in inner}
        waiting += inner
    return found


def parse_json_object(raw: bytes, where: str, constants: bool = False) -> dict[str, Any]:
    """Parse a JSON object, refusing what readers disagree on: duplicate keys, anything but an object."""
    refuse = None if constants else _no_constant
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        cause = " ".join(str(error).split())
        raise CheckpointError(f"{where} is not valid JSON ({cause}): the file is damaged, fetch it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} is a JSON {type(value).__name__}, not an object: the file is damaged")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"key {twice!r} is there twice")
    return result


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
