"""Read the bytes of one tensor, and no more, without a mapping that would outlive the read."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO

from dgviz.checkpoint.documents import open_own
from dgviz.checkpoint.remote.file import ContentsChanged
from dgviz.checkpoint.remote.record import forget_mirror, remote_file
from dgviz.checkpoint.remote.transfer import STREAMS, read_again, read_range
from dgviz.checkpoint.types import DerivedTensor, TensorInfo
from dgviz.device import is_gpu, send
from dgviz.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np
    import torch

CHUNK_BYTES = 4 * 2**20
"""Large enough that opening the file for each chunk costs nothing, small enough to stay near the cache."""
_BLOCK = 4096  # bytes of each sampled place: a page of a file, and less of it costs as much to read
SMALL_BYTES = 4 * _BLOCK
"""Tensors up to this size are read with their neighbours: of each alone, asking for it is most of the work."""
_MOST_OPEN = 64  # files kept open at once
_open: ContextVar[dict[Path, BinaryIO] | None] = ContextVar("open files", default=None)
_samples: ContextVar[dict[tuple[Path, int, int], bytes] | None] = ContextVar("samples", default=None)
_ahead: ContextVar[Mapping[tuple[Path, int, int], bytearray]] = ContextVar("read ahead", default=MappingProxyType({}))


@contextmanager
def files_kept_open() -> Iterator[None]:
    """Open every file once for all that is read in this block: of many small tensors opening is most of the work."""
    if _open.get() is not None:
        yield
        return
    files: dict[Path, BinaryIO] = {}
    token = _open.set(files)
    try:
        yield
    finally:
        _open.reset(token)
        for stream in files.values():
            stream.close()


@contextmanager
def read_ahead(pieces: Iterable[tuple[TensorInfo, int, int]]) -> Iterator[None]:
    """Bring parts of remote tensors (so many bytes from one place of each) together, for reading in this block."""
    wanted = {
        (info.file, info.start + start, nbytes): remote
        for info, start, nbytes in pieces
        if (remote := remote_file(info.file)) is not None and not isinstance(info, DerivedTensor)
    }
    with ThreadPoolExecutor(STREAMS) as pool:
        read = list(pool.map(lambda key: read_range(wanted[key], *key[1:]), wanted))
    token = _ahead.set(dict(zip(wanted, read, strict=True)))
    try:
        yield
    finally:
        _ahead.reset(token)


def _opened(file: Path) -> AbstractContextManager[BinaryIO]:
    """Return a file of a checkpoint: the one that is kept open, or one that is closed behind."""
    files = _open.get()
    if files is None:
        return open_own(file)
    if file not in files:
        if len(files) == _MOST_OPEN:
            files.pop(next(iter(files))).close()
        files[file] = open_own(file)
    return nullcontext(files[file])


def read_bytes(info: TensorInfo, start: int = 0, nbytes: int | None = None) -> bytearray:
    """Return exactly the bytes of a tensor, or of a part of it: as stored, or as computed for a derived one.

    Parameters
    ----------
    info : TensorInfo
        The tensor.
    start : int
        First byte, counted from the tensor's own first.
    nbytes : int, optional
        How many; by default all from `start`.

    Raises
    ------
    CheckpointError
        If the file is gone, unreadable or shorter than when it was opened.
    ValueError
        If the range does not lie inside the tensor.
    """
    nbytes = info.nbytes - start if nbytes is None else nbytes
    if start < 0 or nbytes < 0 or start + nbytes > info.nbytes:
        raise ValueError(f"bytes {start} to {start + nbytes} lie outside the {info.nbytes} of {info.name!r}")
    if isinstance(info, DerivedTensor):
        return _computed_bytes(info)[start : start + nbytes]
    buffer = bytearray(nbytes)
    _read_into(buffer, info, start)
    return buffer


def expect(info: TensorInfo) -> None:
    """Have the system read a tensor from the disk meanwhile, where it can; whether it can shows when it is read."""
    if isinstance(info, DerivedTensor):
        for part in info.parts:
            expect(part)
    elif hasattr(os, "posix_fadvise"):
        with suppress(OSError, CheckpointError), _opened(info.file) as stream:
            os.posix_fadvise(stream.fileno(), info.start, info.nbytes, os.POSIX_FADV_WILLNEED)


def _read_into(buffer: "bytearray | np.ndarray", info: TensorInfo, start: int) -> None:
    """Fill a buffer with bytes of a stored tensor."""
    try:
        with _opened(info.file) as stream:
            stream.seek(info.start + start)
            got = stream.readinto(buffer)  # reads on until the buffer is full or the file ends
    except OSError as error:
        raise CheckpointError(
            f"{info.file} cannot be read for tensor {info.name!r}: {error.strerror or error}; "
            "open the checkpoint again"
        ) from error
    if got < len(buffer) and (remote := remote_file(info.file)) is not None:
        # The mirror ends before the first tensor.
        ahead = _ahead.get().get((info.file, info.start + start, len(buffer)))
        if ahead is None:
            try:
                read_again(remote, buffer, info.start + start)
            except ContentsChanged:
                forget_mirror(info.file)
                raise
        else:
            buffer[:] = ahead
    elif got < len(buffer):
        raise CheckpointError(
            f"{info.file} ends inside tensor {info.name!r}: it has become shorter since it was opened, "
            "open the checkpoint again"
        )


def _computed_bytes(info: DerivedTensor) -> bytearray:
    import torch

    return bytearray(info.compute().contiguous().reshape(-1).view(torch.uint8).numpy())


def iter_chunks(info: TensorInfo) -> Iterator[bytearray]:
    """Yield the bytes of a tensor in order, at most `CHUNK_BYTES` at a time: use each before the next is read."""
    if isinstance(info, DerivedTensor):  # computed once
        data = _computed_bytes(info)
        yield from (data[start : start + CHUNK_BYTES] for start in range(0, info.nbytes, CHUNK_BYTES))
        return
    buffer = bytearray(min(CHUNK_BYTES, info.nbytes))  # one for all: fresh memory costs as much as what is read
    for start in range(0, info.nbytes, CHUNK_BYTES):
        del buffer[info.nbytes - start :]
        _read_into(buffer, info, start)
        yield buffer


def read_small(infos: Sequence[TensorInfo]) -> Iterator[tuple[int, memoryview]]:
    """Yield all bytes of stored tensors on this machine, each with its place; neighbours in a file are read at once.

    Those of more than `SMALL_BYTES` are left out, and what is yielded is to be used before the next is asked for.
    """
    kept = _samples.get()
    for place, data in _read_small(infos):
        if kept is not None:
            kept[_extent(infos[place])] = _sample(data)  # now that it is at hand
        yield place, data


def _read_small(infos: Sequence[TensorInfo]) -> Iterator[tuple[int, memoryview]]:
    """Read what `read_small` yields."""
    by_file: dict[Path, list[int]] = {}
    for place, info in enumerate(infos):
        if info.nbytes <= SMALL_BYTES:
            by_file.setdefault(info.file, []).append(place)
    for places in by_file.values():
        places.sort(key=lambda place: infos[place].start)
        run: list[int] = []
        end = 0
        for place in places:
            info = infos[place]
            if run and (info.start - end > _BLOCK or info.start - infos[run[0]].start > CHUNK_BYTES):
                yield from _read_run(infos, run, end)
                run, end = [], 0
            run.append(place)
            end = max(end, info.start + info.nbytes)
        yield from _read_run(infos, run, end)


def _read_run(infos: Sequence[TensorInfo], run: Sequence[int], end: int) -> Iterator[tuple[int, memoryview]]:
    """Yield the bytes of neighbours, of which the last ends there."""
    first = infos[run[0]]
    try:
        data = memoryview(read_bytes(replace(first, nbytes=end - first.start)))
    except CheckpointError:
        for place in run:  # which of them it is
            yield place, memoryview(read_bytes(infos[place]))
        return
    for place in run:
        begin = infos[place].start - first.start
        yield place, data[begin : begin + infos[place].nbytes]


@contextmanager
def samples_kept() -> Iterator[None]:
    """Take every sample (`read_samples`) once in this block, as in the run of a page, however often it is asked for.

    What `read_small` reads is sampled too.
    """
    token = _samples.set({})
    try:
        yield
    finally:
        _samples.reset(token)


def read_samples(infos: Sequence[TensorInfo]) -> list[bytes]:
    """Return `read_sample` of many stored tensors on this machine."""
    kept = _samples.get()
    if kept is None:
        return _read_samples(infos)
    extents = list(map(_extent, infos))
    new = {extent: info for extent, info in zip(extents, infos, strict=True) if extent not in kept}
    kept.update(zip(new, _read_samples(list(new.values())), strict=True))
    return [kept[extent] for extent in extents]


def _extent(info: TensorInfo) -> tuple[Path, int, int]:
    """Return where the bytes of a stored tensor lie."""
    return info.file, info.start, info.nbytes


def _read_samples(infos: Sequence[TensorInfo]) -> list[bytes]:
    """Read what `read_samples` returns."""
    with files_kept_open():
        small = {place: _sample(data) for place, data in _read_small(infos)}
        return [small[place] if place in small else read_sample(info) for place, info in enumerate(infos)]


def read_sample(info: TensorInfo) -> bytes:
    """Return a digest of the first, middle and last block of a stored tensor's bytes."""
    digest = hashlib.sha256()
    for start in _sampled_starts(info.nbytes):
        digest.update(read_bytes(info, start, min(_BLOCK, info.nbytes - start)))
    return digest.digest()


def _sample(data: memoryview) -> bytes:
    """Return `read_sample` of a tensor with these bytes."""
    if len(data) > _BLOCK:
        data = b"".join([data[start : start + _BLOCK] for start in _sampled_starts(len(data))])
    return hashlib.sha256(data).digest()


@lru_cache(maxsize=1024)
def _sampled_starts(nbytes: int) -> list[int]:
    """Return where the sampled blocks of a tensor of so many bytes begin."""
    return sorted({max(0, start) for start in (0, (nbytes - _BLOCK) // 2, nbytes - _BLOCK)})


def same_bytes(first: TensorInfo, second: TensorInfo) -> bool:
    """Say whether two tensors have the same dtype, shape and bytes; memory stays at two chunks."""
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    return all(a == b for a, b in zip(iter_chunks(first), iter_chunks(second), strict=True))


def read_tensor(info: TensorInfo, index: int | None = None, device: str = "cpu") -> "torch.Tensor":
    """Return a tensor in its own dtype and shape, in memory of its own.

    Parameters
    ----------
    info : TensorInfo
        The tensor.
    index : int, optional
        Read only this entry of a stack, and only its bytes: see `TensorInfo.slice`.
    device : str, default "cpu"
        Where it is wanted. To a GPU it goes from pinned memory, and may still be on its way.

    Raises
    ------
    CheckpointError
        If the file is gone, unreadable or shorter than when it was opened.
    IndexError
        If there is no entry `index`.
    """
    import torch  # here, so that whoever only looks at headers does not pay for it

    if index is not None:
        info = info.slice(index)
    if isinstance(info, DerivedTensor):
        return send(info.compute(), device)
    dtype = getattr(torch, info.dtype)
    if info.nbytes == 0:
        return torch.empty(info.shape, dtype=dtype, device=device)
    # Not zeroed before it is read into; pinned for a GPU.
    data = torch.empty(info.nbytes, dtype=torch.uint8, pin_memory=is_gpu(device))
    _read_into(data.numpy(), info, 0)
    return (data.to(device, non_blocking=True) if is_gpu(device) else data).view(dtype).reshape(info.shape)
