"""Files of a checkpoint, read with care: no link out of the directory, no size without a cap, strict JSON.

A checkpoint is somebody else's directory. A link in it could lead to any file of this machine, at any time, and an
export copies configs and tokenizers: only what the directory itself holds is read, as the opened file tells. The one
exception is the Hugging Face cache, whose snapshots are links to the blobs of the same repository.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from dgviz.checkpoint.remote.record import mirrors_opened
from dgviz.errors import CheckpointError
from dgviz.opening import lies_in, open_named

MAX_CONFIG_BYTES = 64_000_000
"""Real ones have kilobytes, a megabyte with 20,000 class names; beyond this the file is no config."""
MAX_INDEX_BYTES = 256_000_000
"""Real indices reach 23.5 MB; beyond this the file is not an index."""


def open_own(file: Path, directory: Path | None = None) -> BinaryIO:
    """Open a file of a checkpoint; raise where it does not lie in its directory, by default the file's own.

    The directory is given as it was resolved when the checkpoint was opened: it may have become a link since.
    """
    directory = directory or file.parent
    stream, target = open_named(file, mirrors_opened(file))
    # Compared as they are: blobs that were a link themselves would lead anywhere.
    if not lies_in(target, directory) and not any(lies_in(target, blobs) for blobs in _blobs(directory)):
        stream.close()
        raise CheckpointError(
            f"{file} is a link to {target}, outside its directory, and only links of the Hugging Face cache to its "
            "own blobs are followed: copy the file there, or give the directory it lies in"
        )
    return stream


def _blobs(directory: Path) -> Iterator[Path]:
    """Yield the folder that the links of a snapshot in the Hugging Face cache lead to."""
    for folder in (directory, *directory.parents):
        if folder.name == "snapshots":
            yield folder.parent / "blobs"


@contextmanager
def opened_path(stream: BinaryIO) -> Iterator[Path]:
    """Give a path of an open file, for libraries that open by name: it leads there, whatever the name does now."""
    with stream:
        yield Path(f"/dev/fd/{stream.fileno()}")


def read_document(file: Path, most: int, what: str) -> bytes:
    """Return the bytes of a small file."""
    try:
        with open_own(file) as stream:
            found = os.fstat(stream.fileno()).st_size
            content = stream.read(most + 1)
        if len(content) > most:
            article = "an" if what[0] in "aeiou" else "a"
            raise CheckpointError(f"{file} has {found} bytes, above the cap of {most}: it is not {article} {what}")
        return content
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
        value = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=refuse)
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
