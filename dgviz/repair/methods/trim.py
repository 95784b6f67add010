"""The k-th smallest of any number of keys that never lie in memory together: exact, in two passes.

Keys are whole numbers in [0, 2^32). The first pass counts them by their upper sixteen bits, which finds the one run
of 65536 that holds the key wanted; the second counts those of the run by their lower bits.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

_HALF = 16
_COUNT = 2**_HALF


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


def magnitude_keys(values: torch.Tensor) -> torch.Tensor:
    """Return whole numbers that are ordered as ``|values|`` in float32 is."""
    return values.abs().to(torch.float32).contiguous().view(torch.int32).to(torch.int64)


def score_keys(values: torch.Tensor) -> torch.Tensor:
    """Return whole numbers in [0, 2^32) that are ordered as `values` in float32 are, whatever their signs."""
    # A negative float's bit pattern grows with its magnitude: its lower bits are turned round. -0 becomes 0 first.
    bits = (values.to(torch.float32) + 0.0).contiguous().view(torch.int32).to(torch.int64)
    return torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF) + 2**31


def find_cut(blocks: Callable[[], Iterable[torch.Tensor]], place: int) -> Cut:
    """Return the key at a place in the ascending order of all keys."""
    upper = _counts(keys >> _HALF for keys in blocks())
    total = int(upper.sum())
    if not 1 <= place <= total:
        raise ValueError(f"place {place} lies outside the {total} keys")
    run, before = _place(upper, place)
    lower = _counts((keys & (_COUNT - 1))[keys >> _HALF == run] for keys in blocks())
    if int(lower.sum()) != int(upper[run]):
        raise ValueError("the keys changed between the two passes")
    rest, less = _place(lower, place - before)
    equal = int(lower[rest])
    return Cut((run << _HALF) + rest, total - before - less - equal, equal)


def _counts(blocks: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return how often each of the numbers below 65536 occurs."""
    counts = torch.zeros(_COUNT, dtype=torch.int64)
    for block in blocks:
        counts += torch.bincount(block.reshape(-1), minlength=_COUNT).cpu()
    return counts


def _place(counts: torch.Tensor, place: int) -> tuple[int, int]:
    """Return the number that holds a place in the order, and how many lie before it."""
    ends = counts.cumsum(0)
    at = int(torch.searchsorted(ends, place))
    return at, int(ends[at] - counts[at])
