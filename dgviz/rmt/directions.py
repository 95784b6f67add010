"""Single directions of one update, kept or dropped whatever a threshold says of them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dgviz.errors import ThresholdError

_EXAMPLE = "give numbers from 1 on, as in 3+7 or 3-5+130"
_MOST = 2**24  # no matrix has more directions: a range to be written out


@dataclass(frozen=True)
class Directions:
    """Numbers of directions, the first being 1.

    Attributes
    ----------
    kept, dropped : tuple of int
        Those that are kept and dropped by themselves, ascending.
    """

    kept: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()

    @classmethod
    def parse(cls, kept: str = "", dropped: str = "") -> Self:
        """Return the directions that two texts name: numbers and ranges with a plus between, as in ``3-5+130``.

        Raises
        ------
        ThresholdError
            If a text names none, or both name the same one.
        """
        found = cls(_numbers(kept), _numbers(dropped))
        both = set(found.kept) & set(found.dropped)
        if both:
            raise ThresholdError(f"direction {min(both)} cannot be kept and dropped at once: name it in one of both")
        return found

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.kept or self.dropped)

    @property
    def last(self) -> int:
        """The largest number."""
        return max((*self.kept, *self.dropped), default=0)

    def applied(self, values: NDArray[np.float64], s: NDArray[np.float64], name: str = "") -> NDArray[np.float64]:
        """Return what is left of singular values, with single directions kept in full or dropped.

        Parameters
        ----------
        values : (p,) array
            What a threshold and a shrinker leave of each; one that is left something stays as it is where it is kept.
        s : (p,) array
            The singular values, descending.
        name : str
            Of the weight, for the error.

        Raises
        ------
        ThresholdError
            If a direction is not there, or has a singular value of zero.
        """
        there = int(np.count_nonzero(s))
        if self.last > there:
            raise ThresholdError(
                f"{name or 'the update'} has {there} directions that are not zero; the plan names "
                f"direction {self.last}"
            )
        changed = values.copy()
        keep, drop = (np.array(numbers, dtype=np.int64) - 1 for numbers in (self.kept, self.dropped))
        keep = keep[changed[keep] == 0]
        changed[keep] = s[keep]
        changed[drop] = 0.0
        return changed


NO_DIRECTIONS = Directions()


def told(numbers: Iterable[int]) -> str:
    """Return numbers as one types them, runs of three and more as ranges."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [[f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run) for run in runs]
    return "+".join(text for part in parts for text in part)


def _numbers(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split("+") if text else ():
        range_ = re.fullmatch(r"\s*(\d{1,8})\s*(?:-\s*(\d{1,8})\s*)?", part)
        first, last = (int(range_[1]), int(range_[2] or range_[1])) if range_ else (0, 0)
        if not 1 <= first <= last <= _MOST:
            raise ThresholdError(f"{text!r} names no directions: {_EXAMPLE}")
        found.update(range(first, last + 1))
    return tuple(sorted(found))
