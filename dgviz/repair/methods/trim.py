"""Trims: the k-th smallest of any number of keys that never lie in memory together, and what a cut there leaves.

Keys are int32, and lie strictly between -2^31 and 2^31 - 1. The first pass counts them by their upper sixteen bits,
which finds the one run of 65536 that holds the key wanted; the second counts those of the run by their lower bits.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dgviz.device import count_below, is_gpu
from dgviz.repair.methods.method import Update

if TYPE_CHECKING:
    import torch

_HALF = 16
_COUNT = 2**_HALF
_SIGNS = _COUNT // 2  # the upper halves are -32768 to 32767


@dataclass(frozen=True)
class Trim:
    """Which entries a trim leaves: those with a larger key, and the first so many of those with an equal one."""

    key: int
    equal: float


ALL, NOTHING = Trim(-(2**31), 0), Trim(2**31 - 1, 0)


@dataclass(frozen=True)
class Cut:
    """The key at a place in the order of all keys.

    Attributes
    ----------
    key : int
        The k-th smallest key.
    above : int
        Number of keys larger than it.
    equal : int
        Number of keys equal to it, itself included.
    """

    key: int
    above: int
    equal: int


class Trimmed:
    """A trim at work: it counts the entries that equal the cut, block after block."""

    def __init__(
        self,
        trim: Trim,
        keys: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None" = None,
        scale: float = 1.0,
    ) -> None:
        self._trim, self._scale, self._left = trim, scale, trim.equal
        self._keys = keys or (lambda base, delta: magnitude_keys(delta))

    def __call__(self, base: "torch.Tensor", delta: "torch.Tensor") -> "torch.Tensor":
        """Return the trimmed delta."""
        keys = self._keys(base, delta)
        kept = keys > self._trim.key
        if is_gpu(keys.device) or self._left > 0:  # there how many are left is not asked, but stays
            equal = keys == self._trim.key
            if math.isfinite(self._trim.equal):
                equal &= equal.cumsum(0) <= self._left
                self._left = self._left - (equal.sum() if is_gpu(keys.device) else int(equal.sum()))
            kept |= equal
        return (delta if self._scale == 1 else delta * self._scale).where(kept, 0.0)


def keep_largest(keys: "Callable[[], Iterable[torch.Tensor]]", total: int, count: int) -> Trim:
    """Return the cut that leaves exactly so many of the largest; of equal ones the first."""
    if count in (0, total):
        return ALL if count else NOTHING
    cut = find_cut(keys, total - count + 1)
    return Trim(cut.key, count - cut.above)


def magnitudes(update: Update) -> "Iterator[torch.Tensor]":
    """Yield the keys of |delta|, block by block."""
    for _, delta in update.blocks():
        yield magnitude_keys(delta)


def magnitude_keys(values: "torch.Tensor") -> "torch.Tensor":
    """Return whole numbers that are ordered as ``|values|`` in float32 is."""
    import torch

    return values.abs().to(torch.float32).contiguous().view(torch.int32)


def score_keys(values: "torch.Tensor") -> "torch.Tensor":
    """Return whole numbers that are ordered as `values` in float32 are, whatever their signs."""
    import torch

    # A negative float's bit pattern grows with its magnitude: its lower bits are turned round. -0 becomes 0 first.
    bits = (values.to(torch.float32) + 0.0).contiguous().view(torch.int32)
    return torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)


def find_cut(blocks: "Callable[[], Iterable[torch.Tensor]]", place: int) -> Cut:
    """Return the key at a place in the ascending order of all keys."""
    upper = _counts((keys >> _HALF).add_(_SIGNS) for keys in blocks())
    total = int(upper.sum())
    if not 1 <= place <= total:
        raise ValueError(f"place {place} lies outside the {total} keys")
    run, before = _place(upper, place)
    lower = _counts(_lower(keys, run - _SIGNS) for keys in blocks())
    if int(lower.sum()) != int(upper[run]):
        raise ValueError("the keys changed between the two passes")
    rest, less = _place(lower, place - before)
    equal = int(lower[rest])
    return Cut((run - _SIGNS << _HALF) + rest, total - before - less - equal, equal)


def _lower(keys: "torch.Tensor", run: int) -> "torch.Tensor":
    """Return the lower halves of the keys whose upper half is `run`; on a GPU others have a place, out of range."""
    lower, here = keys & (_COUNT - 1), keys >> _HALF == run
    return lower.where(here, _COUNT) if is_gpu(keys.device) else lower[here]  # how many there are is not asked there


def _counts(blocks: "Iterable[torch.Tensor]") -> "torch.Tensor":
    """Return how often each of the numbers below 65536 occurs; 65536 is none of them."""
    counts = sum(count_below(block, _COUNT + 1) for block in blocks)
    return counts[:_COUNT].cpu()


def _place(counts: "torch.Tensor", place: int) -> tuple[int, int]:
    """Return the number that holds a place in the order, and how many lie before it."""
    import torch

    ends = counts.cumsum(0)
    at = int(torch.searchsorted(ends, place))
    return at, int(ends[at] - counts[at])
