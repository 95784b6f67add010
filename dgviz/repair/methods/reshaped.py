"""A spectrum before and after a method, with the figures that follow from both; numpy only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgviz.rmt.law import mp_fits
from dgviz.rmt.spectrum import norm_ratio
from dgviz.rmt.threshold import Threshold

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Reshaped:
    """A spectrum before and after a method.

    Attributes
    ----------
    s : (p,) float64 array
        Singular values of the update's nonzero block, descending.
    values : (p,) float64 array
        Those of the method's update along the same directions.
    shape : (int, int)
        Rows and columns of the nonzero block.
    threshold : Threshold or None
        The cut, for a method that makes one.
    kept : (p,) float64 array or None
        Those of D*, which a method with a threshold is made from; zeros for what is dropped.
    rank : int or None
        Directions left; None for a method that keeps them all.
    """

    s: Values
    values: Values
    shape: Sequence[int]
    threshold: Threshold | None = None
    kept: Values | None = None
    rank: int | None = None

    @property
    def origin(self) -> str:
        """Whose values the matrix has afterwards: ``"tuned"``, ``"base"``, or else ``"repaired"``."""
        if np.array_equal(self.values, self.s):
            return "tuned"
        return "repaired" if self.values.any() else "base"

    @property
    def norm_kept(self) -> float:
        """Length of the result's update over the update's own; 1 for a zero update."""
        return norm_ratio(self.values, self.s)

    @property
    def removed(self) -> Values:
        """Singular values of what is taken away."""
        return np.abs(self.s - self.values)

    @property
    def mp_fit(self) -> dict[str, float | None]:
        """MP-fit of the tuned update, of the result's and of what is taken away; None where no noise is measured."""
        return mp_fits(self.s, self.values, self.threshold.sigma if self.threshold else 0.0, self.shape)
