"""Strict reading of one safetensors header.

``safe_open`` rejects holes, overlaps, truncation and bad UTF-8, but lets duplicate keys (the last one wins), control
characters and empty names through; those are checked here, together with everything needed to name the fault.
Format: https://huggingface.co/docs/safetensors/index#format
"""

import hashlib
import math
import os
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import orjson
from safetensors import SafetensorError, safe_open

from dgviz.checkpoint.documents import open_own, opened_path, parse_json_object
from dgviz.checkpoint.remote.record import remote_file
from dgviz.checkpoint.types import TensorInfo
from dgviz.errors import CheckpointError
from dgviz.files import file_stamp

MAX_HEADER_BYTES = 100_000_000
"""The format's own cap on a header."""

DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),
    "C64": ("complex64", 8),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
"""safetensors' dtype codes: torch's name and bytes per element. Sub-byte codes (F4, F6_*) are packed, so not here."""

_ENTRY = {"dtype", "shape", "data_offsets"}

# C0 and C1 controls, DEL, and lone surrogates, which no file name or JSON output can carry.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Header:
    """One file's header: its tensors by name, a digest of the file's stamp and header bytes, and its metadata."""

    tensors: dict[str, TensorInfo]
    digest: str
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_header(file: Path) -> Header:
    """Read and check the header of one safetensors file; no tensor data is read."""
    try:
        stream = open_own(file)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error
    with opened_path(stream) as path:
        return _read_header(file, stream, path)


def peek_names(file: Path) -> list[str]:
    """Return the names in a header that is not checked; none where only `read_header` can say what is wrong."""
    try:
        with open_own(file) as stream:
            length = int.from_bytes(stream.read(8), "little")
            entries = orjson.loads(stream.read(length)) if length <= MAX_HEADER_BYTES else {}
    except (OSError, ValueError):
        return []
    return [name for name in entries if name != "__metadata__"] if isinstance(entries, dict) else []


def _read_header(file: Path, stream: BinaryIO, path: Path) -> Header:
    """Return the header of an open file; `path` leads to it."""
    remote = remote_file(file)
    try:
        stamp = remote or file_stamp(os.fstat(stream.fileno()))
        length = _header_length(file, stream.read(8), stamp.size)
        raw = stream.read(length)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error
    if not raw.startswith(b"{"):
        raise CheckpointError(f"{file} has no header that begins with '{{': it is not a safetensors file, or damaged")
    data_start = 8 + length
    tensors, metadata = {}, {}
    entries = _parse(file, raw)
    _refuse_names(file, entries)
    for name, entry in entries.items():
        if name == "__metadata__":
            if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
                raise CheckpointError(f"{file}: __metadata__ must map strings to strings: the header is damaged")
            metadata = entry
        else:
            try:
                tensors[name] = _located(file, name, entry, data_start)
            except ValueError as error:
                raise CheckpointError(f"{file}, tensor {name!r}{error}") from None
    _check_contiguous(file, tensors, data_start, stamp.size)
    if remote is None:
        _check_with_safetensors(file, path)
    else:
        with TemporaryFile() as sparse:  # as long as the file, with nothing behind the header
            sparse.write(len(raw).to_bytes(8, "little") + raw)
            sparse.truncate(remote.size)
            _check_with_safetensors(file, Path(f"/dev/fd/{sparse.fileno()}"))
    known = remote.identity if remote else repr(tuple(stamp))
    digest = hashlib.sha256(raw + known.encode()).hexdigest()
    return Header(tensors, digest, metadata)


def _parse(file: Path, raw: bytes) -> dict[str, Any]:
    """Return what a header says.

    orjson takes a third of the time, and of two keys that are the same the last: it is believed where every string of
    the text is found in what it returns. Quotes count strings where none is escaped; an entry has five.
    """
    if b"\\" not in raw:
        with suppress(ValueError):
            found = orjson.loads(raw)
            entries = [entry for name, entry in found.items() if name != "__metadata__"]
            about = found.get("__metadata__")
            plain = all(type(entry) is dict and entry.keys() == _ENTRY for entry in entries)
            strings = 5 * len(entries) + (0 if about is None else 1 + 2 * len(about) if type(about) is dict else -1)
            if plain and all(type(entry["dtype"]) is str for entry in entries) and raw.count(b'"') == 2 * strings:
                return found
    return parse_json_object(raw, f"the header of {file}")


def _header_length(file: Path, prefix: bytes, size: int) -> int:
    if len(prefix) < 8:
        raise CheckpointError(f"{file} is truncated: it has {size} bytes, too few for a header; fetch it again")
    length = int.from_bytes(prefix, "little")
    if prefix.startswith(b"version "):
        raise CheckpointError(f"{file} is a Git LFS pointer, not the weights: run git lfs pull in its directory")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{file} announces a header of {length} bytes, above the format's {MAX_HEADER_BYTES}: "
            "it is not a safetensors file, or damaged"
        )
    if 8 + length > size:
        raise CheckpointError(
            f"{file} is truncated: its header needs {8 + length} bytes and the file has {size}; fetch it again"
        )
    return length


def _refuse_names(file: Path, names: Collection[str]) -> None:
    """Raise where a name is empty or cannot be printed; they are looked at all at once, for hardly any is."""
    if "" not in names and not UNPRINTABLE.search(" ".join(names)):
        return
    name = next(name for name in names if not name or UNPRINTABLE.search(name))
    raise CheckpointError(
        f"{file} holds a tensor called {name!r}: empty names and control characters are refused, "
        "save the model again with plain names"
    )


def _located(file: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    """Return where a tensor lies as its entry says; a ValueError says what is wrong with the entry."""
    if not isinstance(entry, dict) or entry.keys() != _ENTRY:
        raise ValueError(": an entry needs exactly dtype, shape and data_offsets: the header is damaged")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise ValueError(
            f" has dtype {code!r}, which is not read (known: {', '.join(DTYPES)}; packed types below 8 bits "
            "are quantised): convert the model to bfloat16 or float32"
        )
    if not _are_sizes(shape):
        raise ValueError(f" has shape {shape!r}, not a list of sizes: the header is damaged")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f" has data_offsets {offsets!r}, not [begin, end]: the header is damaged")
    dtype, width = DTYPES[code]
    nbytes = offsets[1] - offsets[0]
    if math.prod(shape) * width != nbytes:
        raise ValueError(
            f" has {nbytes} bytes of data, but {dtype} of shape {tuple(shape)} needs "
            f"{math.prod(shape) * width}: the header is damaged"
        )
    return TensorInfo(name, tuple(shape), dtype, file, data_start + offsets[0], nbytes)


def _are_sizes(values: Any) -> bool:
    """Say whether `values` is a list of whole numbers from 0 to 2^63 - 1 (true and false are not numbers)."""
    if not isinstance(values, list):
        return False
    for value in values:  # noqa: SIM110 - `all` takes twice as long, and a header may hold 100,000 tensors
        if type(value) is not int or not 0 <= value < 2**63:
            return False
    return True


def _check_contiguous(file: Path, tensors: dict[str, TensorInfo], data_start: int, size: int) -> None:
    """Check that the tensors cover the data of the file, with neither hole nor overlap."""
    position = data_start
    for info in sorted(tensors.values(), key=attrgetter("start", "nbytes")):
        if info.start != position:
            fault = "overlaps the one before" if info.start < position else "leaves a hole before it"
            raise CheckpointError(
                f"{file}, tensor {info.name!r} begins at byte {info.start} where {position} was due "
                f"({fault}): the header is damaged"
            )
        position += info.nbytes
    if position > size:
        raise CheckpointError(
            f"{file} is truncated: its tensors need {position} bytes and it has {size}; fetch it again"
        )
    if position < size:
        raise CheckpointError(
            f"{file} has {size} bytes where its tensors end at {position}: it is damaged, fetch it again"
        )


def _check_with_safetensors(file: Path, path: Path) -> None:
    """Ask the reference reader as well, so that nothing passes here that it would refuse."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        cause = " ".join(str(error).split())
        raise CheckpointError(f"{file} is refused by safetensors ({cause}): fetch it again") from error
