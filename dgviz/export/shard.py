"""One safetensors file, written tensor by tensor: byte-identical to ``save_file`` on the same tensors.

No library writes safetensors incrementally, and holding a shard in memory to save it is what makes repairs of large
models fail. The format (https://github.com/huggingface/safetensors): 8 bytes little-endian header length, the header
as JSON padded with spaces to a multiple of 8, then the data.
"""

import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import orjson

from dgviz.checkpoint.header import DTYPES
from dgviz.errors import ExportError
from dgviz.files import sync

# The format's own enumeration of dtypes: it decides the order of tensors in a file, last first.
_ORDER = ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U16", "F16")
_ORDER += ("BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64")
_CODES = {name: code for code, (name, _) in DTYPES.items()}
ITEM_BYTES = dict(DTYPES.values())
"""Bytes per element by dtype in torch's words."""


def shard_order(dtype: str, name: str) -> tuple[int, str]:
    """Return the sort key of a tensor inside a file: widest dtype first, then by name."""
    return -_ORDER.index(_CODES[dtype]), name


_METADATA = {"format": "pt"}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's data."""
        count = ITEM_BYTES[self.dtype]
        for length in self.shape:
            count *= length
        return count


def header_bytes(entries: Sequence[Entry], metadata: Mapping[str, str] = _METADATA) -> bytes:
    """Return the header of a file that holds `entries` in this order, its length prefix included."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for entry in entries:
        end = offset + entry.nbytes
        header[entry.name] = {"dtype": _CODES[entry.dtype], "shape": entry.shape, "data_offsets": (offset, end)}
        offset = end
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


class ShardWriter:
    """Writes one file under a temporary name and gives it its own when it is whole and on disk.

    Leaving the ``with`` block by an exception removes the temporary file: nothing half-written gets the final name.
    """

    def __init__(self, path: Path, entries: Sequence[Entry], metadata: Mapping[str, str] = _METADATA) -> None:
        self._path = path
        # A name of its own: a machine that was given up may still be at the same file.
        self._partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
        self._entries = list(entries)
        self._metadata = metadata
        self._next = 0
        self._hash = hashlib.sha256()

    def __enter__(self) -> "ShardWriter":
        """Open the temporary file and write the header."""
        self._file = self._partial.open("wb")
        self._put(header_bytes(self._entries, self._metadata))
        return self

    def write(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Append the bytes of the next tensor."""
        entry = self._entries[self._next]
        view = memoryview(data).cast("B")
        if name != entry.name or view.nbytes != entry.nbytes:
            raise ExportError(
                f"{self._path}: the header promises {entry.name} with {entry.nbytes} bytes next, "
                f"got {name} with {view.nbytes}"
            )
        self._put(view)
        self._next += 1

    def _put(self, data: bytes | memoryview) -> None:
        """Write and hash."""
        self._file.write(data)
        self._hash.update(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the file on disk and rename it, or remove it."""
        if kind is None and self._next != len(self._entries):
            kind = ExportError
            error = ExportError(f"{self._path}: {len(self._entries) - self._next} tensors were never written")
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
            if kind is not None:
                self._partial.unlink(missing_ok=True)
        if isinstance(error, ExportError) and trace is None:
            raise error
        if kind is None:
            self._partial.replace(self._path)
            sync(self._path.parent)

    @property
    def digest(self) -> str:
        """SHA-256 of everything written, as the Hugging Face Hub shows it for a file."""
        return self._hash.hexdigest()


def file_digest(path: Path) -> str:
    """Return the hash `ShardWriter.digest` gave when the file was written, if it is still that file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
