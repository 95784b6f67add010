"""A fixed sample of a tensor's entries, as numbers: the same places in all tensors of one size, few bytes of each.

What looks at a pair before anything is computed reads headers and this sample, so that it takes no longer for a
large model. numpy decodes what files hold, so that no torch is needed for it.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from dgviz.checkpoint.derived import FusedExperts, PickedRows, PlacedTensor
from dgviz.checkpoint.read import read_bytes, read_small, read_tensor
from dgviz.checkpoint.types import DerivedTensor, TensorInfo

TENSOR_BYTES = 64 * 2**10
"""At most so many bytes of one tensor."""
TOTAL_BYTES = 64 * 2**20
"""At most so many bytes of a pair."""
RUN = 2048
"""Entries read from one place: about a page of a file, and less of it costs as much to read."""
_BLOCK = 2**20  # entries at a time where all are read
_COMPUTED_BYTES = 2**20  # what is computed from other tensors as a whole is sampled up to this size

Runs = Sequence[tuple[int, int]]


@lru_cache(maxsize=1024)
def sampled_runs(numel: int, most: int) -> tuple[tuple[int, int], ...]:
    """Return ranges (begin, end) of at most so many entries in all, one at random in each of equal parts."""
    if numel <= most:
        return ((0, numel),)
    length = min(RUN, most)
    part = numel / (most // length)
    draws = np.random.default_rng(numel).random(most // length)
    starts = [int(number * part + draw * (part - length)) for number, draw in enumerate(draws)]
    return tuple((start, start + length) for start in starts)


def read_runs(info: TensorInfo, runs: Runs) -> np.ndarray | None:
    """Return some entries of a tensor, as float64; None where it would have to be computed as a whole for them."""
    if isinstance(info, PlacedTensor):
        return read_runs(info.parts[0], runs)
    if isinstance(info, PickedRows):
        width = info.numel // info.shape[0]
        places = [(begin * width, end * width) for begin, end in info.ranges]
        return read_runs(info.parts[0], [piece for _, *piece in _split(places, runs)])
    if isinstance(info, FusedExperts):
        size = info.parts[0].numel
        pieces = list(_split([(0, size)] * len(info.parts), runs))
        read = [read_runs(info.parts[number], [(begin, end)]) for number, begin, end in pieces]
        return None if any(values is None for values in read) else np.concatenate(read)
    if isinstance(info, DerivedTensor):
        if info.nbytes > _COMPUTED_BYTES:
            return None
        values = read_tensor(info).double().numpy().reshape(-1)
        return np.concatenate([values[begin:end] for begin, end in runs])
    width = info.nbytes // info.numel if info.numel else 0
    raw = b"".join(read_bytes(info, begin * width, (end - begin) * width) for begin, end in runs)
    return _decode(raw, info.dtype)


def read_small_runs(infos: Sequence[TensorInfo], runs: Runs) -> np.ndarray:
    """Return `read_runs` of small stored tensors of one dtype and size on this machine, a row each."""
    width = infos[0].nbytes // infos[0].numel
    places = [slice(begin * width, end * width) for begin, end in runs]
    read = {at: b"".join([data[place] for place in places]) for at, data in read_small(infos)}
    raw = b"".join([read[at] for at in range(len(infos))])
    return _decode(raw, infos[0].dtype).reshape(len(infos), -1)


def iter_values(info: TensorInfo) -> Iterator[np.ndarray]:
    """Yield all entries of a tensor in order, as float64, so many at a time whatever their dtype."""
    whole = None
    if isinstance(info, DerivedTensor):
        whole = read_tensor(info).reshape(-1)  # computed once
    for begin in range(0, info.numel, _BLOCK):
        end = min(begin + _BLOCK, info.numel)
        yield read_runs(info, [(begin, end)]) if whole is None else whole[begin:end].double().numpy()


def _split(places: Sequence[tuple[int, int]], runs: Runs) -> Iterator[tuple[int, int, int]]:
    """Cut runs through pieces that lie one behind the other: yield the piece's number, and begin and end there."""
    for begin, end in runs:
        done = 0
        for number, (first, last) in enumerate(places):
            start, stop = max(begin, done), min(end, done + last - first)
            if start < stop:
                yield number, first + start - done, first + stop - done
            done += last - first


def _decode(raw: bytes | bytearray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    if dtype.startswith("float8"):
        import torch

        return torch.frombuffer(bytearray(raw), dtype=getattr(torch, dtype)).double().numpy()
    return np.frombuffer(raw, np.dtype(dtype)).astype(np.float64)
