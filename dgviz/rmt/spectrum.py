"""All singular values of one weight's update, and how they were obtained."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgviz.rmt.law import mp_fit
from dgviz.rmt.null import mp_fits, noise_distance


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

    @cached_property
    def nonzero_shape(self) -> tuple[int, int]:
        """Rows and columns that hold a nonzero entry; the full shape of a delta that is zero, or not measured."""
        rows, columns = self.summary.get("live_rows"), self.summary.get("live_columns")
        return (rows, columns) if rows and columns else tuple(self.shape)

    @cached_property
    def nonzero_s(self) -> NDArray[np.float64]:
        """The first ``min(nonzero_shape)`` singular values, the spectrum of the nonzero block."""
        return self.s[: min(self.nonzero_shape)]

    @cached_property
    def energy(self) -> float:
        """Squared Frobenius norm of the update."""
        return float(np.sum(self.s**2))

    @cached_property
    def stable_rank(self) -> float | None:
        """``|D|^2 / s_1^2``; None for a zero update."""
        return float(np.sum((self.s / self.s[0]) ** 2)) if self.s[0] > 0 else None

    def energy_kept(self, rank: int) -> float:
        """Return the share of the energy in the first `rank` directions; 1 for a zero update."""
        squares = (self.nonzero_s / (self.s[0] or 1.0)) ** 2  # scaled: no overflow at 1e200
        return float(squares[:rank].sum() / squares.sum()) if self.s[0] > 0 else 1.0

    def mp_fit(self, sigma: float, dropped: int = 0) -> float | None:
        """Return the MP-fit in percent, with the first `dropped` values set to zero; None where sigma is no noise."""
        rest = np.where(np.arange(self.nonzero_s.size) < dropped, 0.0, self.nonzero_s)
        return mp_fit(rest, sigma, self.nonzero_shape)

    @cached_property
    def noise_fit(self) -> float:
        """The MP-fit that noise of the nonzero shape scores, in percent."""
        return noise_distance(self.nonzero_shape).fit

    def mp_fits(self, sigma: float, rank: int) -> dict[str, float | None]:
        """Return the MP-fits of the update, of its first `rank` directions and of the rest: see `null.mp_fits`."""
        kept = np.where(np.arange(self.nonzero_s.size) < rank, self.nonzero_s, 0.0)
        return mp_fits(self.nonzero_s, kept, sigma, self.nonzero_shape)


def norm_ratio(values: NDArray[np.float64], s: NDArray[np.float64]) -> float:
    """Return ``|values| / |s|`` without overflow; 1 where both are zero."""
    largest = float(np.max(s, initial=0.0))
    if largest == 0:
        return 1.0
    return float(np.linalg.norm(values / largest) / np.linalg.norm(s / largest))


def effective_rank(values: NDArray[np.float64]) -> float:
    """Return the effective rank: exp of the entropy of the values' shares of their sum; 0 for a zero matrix."""
    positive = values[values > 0]
    if positive.size == 0:
        return 0.0
    shares = positive / positive.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))
