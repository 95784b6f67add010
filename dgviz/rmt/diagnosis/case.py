"""What the checks look at."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgviz.rmt.diagnosis.flags import LIMITS
from dgviz.rmt.law import mp_distance, optimal_threshold, sigma_from_median, sorted_median
from dgviz.rmt.rounding_noise import RoundingNoise
from dgviz.rmt.threshold import Threshold


@dataclass(frozen=True)
class Case:
    """What the checks look at.

    Attributes
    ----------
    s : (p,) array
        Singular values of the nonzero block, descending.
    shape : (int, int)
        Rows and columns of the nonzero block.
    full_shape : (int, int)
        Of the delta.
    threshold : Threshold
        What the rule found.
    summary : mapping
        Figures of the entries (`dgviz.spectra.entries.describe_entries`); empty where nobody gathered them.
    rounding : RoundingNoise or None
        The rounding in the update, where a side is stored coarsely.
    returned : float or None
        How much of the removed noise rounding puts back (`dgviz.rmt.rounding_noise.rounding_returned`).
    """

    s: NDArray[np.float64]
    shape: tuple[int, int]
    full_shape: tuple[int, int]
    threshold: Threshold
    summary: Mapping[str, Any]
    rounding: RoundingNoise | None = None
    returned: float | None = None

    @property
    def p(self) -> int:
        """Number of singular values."""
        return self.s.size

    @cached_property
    def optimal_tau(self) -> float:
        """DG-Hard's threshold for this noise, whatever the rule."""
        return optimal_threshold(self.threshold.sigma, self.shape)

    @property
    def rest_shape(self) -> tuple[int, int]:
        """Rows and columns of the noise that the kept directions leave room for."""
        return self.shape[0] - self.threshold.rank, self.shape[1] - self.threshold.rank

    @cached_property
    def residual_distance(self) -> float:
        """Kolmogorov distance between what is dropped and the noise law of its own shape and median."""
        rest = self.s[self.threshold.rank :]
        sigma = sigma_from_median(sorted_median(rest), self.rest_shape)
        return mp_distance(rest, sigma, self.rest_shape) if sigma > 0 else 1.0

    def variance_limit(self, along: str) -> float:
        """Return how unequal the variances along rows or columns may be; a square matrix has two short sides."""
        own, other = self.shape if along == "row" else self.shape[::-1]
        return LIMITS["long_variance_cv" if own > other else "short_variance_cv"].value
