"""All singular values of one weight's update, and how they were obtained."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Spectrum:
    """All singular values of one weight's update, and how they were obtained.

    Rows and columns of the delta that are zero throughout change no singular value but those that are zero, yet a
    noise estimate from the full shape is wrong: the Marchenko-Pastur law of a matrix is that of its nonzero block.
    Rules and noise figures take `nonzero_s` and `nonzero_shape`.

    Attributes
    ----------
    s : (p,) float64 array
        Descending, p = min(shape).
    shape : (int, int)
        Rows and columns of the delta.
    certificate : dict
        Route and checks, as plain JSON values.
    summary : dict
        Figures of the delta's entries, as plain JSON values; empty where nobody computed them.
    name : str
        Tensor, with ``[i]`` for one matrix of a stack.
    stored : bool
        True when it came from the store.
    seconds : float
        Time it took to get it now.
    warnings : tuple of str
        What went wrong beside the numbers, such as a store that cannot be written.
    """

    s: NDArray[np.float64]
    shape: tuple[int, int]
    certificate: dict[str, Any]
    summary: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    stored: bool = False
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    @property
    def nonzero_shape(self) -> tuple[int, int]:
        """Rows and columns that hold a nonzero entry; the full shape of a delta that is zero, or not measured."""
        rows, columns = self.summary.get("live_rows"), self.summary.get("live_columns")
        return (rows, columns) if rows and columns else tuple(self.shape)

    @property
    def nonzero_s(self) -> NDArray[np.float64]:
        """The first ``min(nonzero_shape)`` singular values, the spectrum of the nonzero block."""
        return self.s[: min(self.nonzero_shape)]

    @cached_property
    def energy(self) -> float:
        """Squared Frobenius norm of the update."""
        return float(np.sum(self.s**2))

    def energy_kept(self, rank: int) -> float:
        """Return the share of the energy in the first `rank` directions; 1 for a zero update."""
        return energy_kept(self.s, rank)


def energy_kept(s: NDArray[np.float64], rank: int) -> float:
    """Return the share of the sum of squares in the first `rank` singular values; 1 for a zero delta."""
    values = np.asarray(s, dtype=np.float64)
    if values.size == 0 or values[0] == 0:
        return 1.0
    squares = (values / values[0]) ** 2  # scaled: no overflow at 1e200
    return float(squares[:rank].sum() / squares.sum())
