"""PyTorch ``.bin`` files, for whoever asks for them: a restricted unpickler reads names and shapes, and no values.

Under torch's fake tensors ``torch.load(weights_only=True)`` builds shapes and offsets only; the bytes are then read
from the file like those of any other tensor. Files from before PyTorch 1.6 (no zip) tell no offsets: refused.
"""

import hashlib
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from dgviz.checkpoint.documents import open_own
from dgviz.checkpoint.header import DTYPES, UNPRINTABLE, Header
from dgviz.checkpoint.types import TensorInfo
from dgviz.errors import CheckpointError, DgvizError

ALLOW = "DGVIZ_ALLOW_BIN"
_NAMES = {name for name, _ in DTYPES.values()}
_CONVERT = "load it with transformers and save_pretrained it as safetensors"


def bin_allowed() -> bool:
    """Say whether the user has asked for ``.bin`` files, by ``DGVIZ_ALLOW_BIN=1`` in the environment."""
    return os.environ.get(ALLOW) == "1"


def read_pickled(file: Path) -> Header:
    """Read names, shapes and offsets of a ``.bin`` file; no tensor data is read. Imports torch."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with open_own(file) as stream:
            stat = os.fstat(stream.fileno())
            with warnings.catch_warnings(), FakeTensorMode():
                warnings.simplefilter("ignore")
                content = torch.load(stream, weights_only=True, map_location="cpu")
            records = _stored_records(stream) if zipfile.is_zipfile(stream) else {}
    except DgvizError:
        raise
    except Exception as error:  # a damaged or hostile pickle raises anything
        cause = " ".join(str(error).split())[:160]
        raise CheckpointError(f"{file} cannot be read as plain tensors ({type(error).__name__}: {cause})") from error
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{file} holds no mapping of names to tensors: {_CONVERT}")
    tensors = {name: _tensor_info(file, records, name, value) for name, value in content.items()}
    described = "|".join(f"{info}" for info in tensors.values())
    digest = hashlib.sha256(f"{described}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()
    return Header(tensors, digest)


def _stored_records(stream: BinaryIO) -> dict[int, int]:
    """Return the sizes of a zip file's uncompressed records by the offsets of their data."""
    records = {}
    with zipfile.ZipFile(stream) as archive:
        for entry in archive.infolist():
            if entry.compress_type == zipfile.ZIP_STORED:
                stream.seek(entry.header_offset + 26)  # of the local header: lengths of name and extra field
                name, extra = stream.read(2), stream.read(2)
                start = entry.header_offset + 30 + int.from_bytes(name, "little") + int.from_bytes(extra, "little")
                records[start] = entry.file_size
    return records


def _tensor_info(file: Path, records: dict[int, int], name: Any, value: Any) -> TensorInfo:
    """Return where one tensor lies: inside a record of the archive, or it is refused."""
    import torch

    if not isinstance(name, str) or not name or UNPRINTABLE.search(name) or not isinstance(value, torch.Tensor):
        kind = "tensor" if isinstance(value, torch.Tensor) else type(value).__name__
        raise CheckpointError(f"{file} holds {str(name)[:80]!r}, a {kind}, not a tensor with a name: {_CONVERT}")
    dtype = str(value.dtype).removeprefix("torch.")
    offset = None
    if value.layout == torch.strided and dtype in _NAMES and value.is_contiguous():
        offset = getattr(value.untyped_storage(), "_checkpoint_offset", None)
    if offset is None:
        raise CheckpointError(
            f"{file}, tensor {name!r} is not stored as plain contiguous numbers in a zip file ({dtype}, "
            f"{value.layout}): {_CONVERT}"
        )
    first, nbytes = value.storage_offset() * value.element_size(), value.numel() * value.element_size()
    if offset not in records or first < 0 or first + nbytes > records[offset]:
        raise CheckpointError(
            f"{file}, tensor {name!r} is not stored uncompressed in a record of its own: it was not written by "
            f"torch.save, or damaged; {_CONVERT}"
        )
    return TensorInfo(name, tuple(value.shape), dtype, file, offset + first, nbytes)
