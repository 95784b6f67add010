"""Spectrum flattening: the directions that DG-Hard keeps, all made equally strong.

``s`` are the singular values of D* and ``r`` is their number: those that the plan's rule keeps, as the shrinker
leaves them. Where the median measures no noise, as after a merged adapter, DG-Hard keeps everything, and ``s`` are
all values above rounding level: the r directions of the adapter.
"""

from abc import abstractmethod

import numpy as np

from dgviz.repair.methods.method import TAU, TENTHS, MatrixMethod, Params, Strength, Values, number, present
from dgviz.rmt.threshold import Threshold


class _Flat(MatrixMethod):
    """A method that gives all directions kept one strength."""

    parameters = (number("alpha", 1.0, 2.0, "multiplies what is kept"),)
    strengths = (Strength("alpha", TENTHS), TAU)  # on a merged adapter tau decides nothing
    thresholded = has_factors = True

    @abstractmethod
    def level(self, s: Values) -> float:
        """Return the strength, of values that are at most 1."""

    def values(self, params: Params, s: Values, kept: Values) -> Values:
        """Return the level where a direction is kept."""
        values, at = np.zeros_like(s), present(kept, s)
        if at.size:
            largest = kept[at].max()
            values[at] = params["alpha"] * largest * self.level(kept[at] / largest)
        return values

    def rank(self, threshold: Threshold, values: Values) -> int:
        """Return how many directions are left something."""
        return int(np.count_nonzero(values))


class FlatFro(_Flat):
    """The update keeps its length: the root mean square of the values."""

    name = "flat_fro"
    title = "Flat-Fro"
    formula = "W0 + alpha sum_i (|s|_2 / sqrt r) u_i v_i^T over the r directions of D*, s their singular values"
    citation = "TTtianTT/peft-sft-lab, report of 2026-09-13"

    def level(self, s: Values) -> float:
        """Return the root mean square."""
        return float(np.linalg.norm(s) / np.sqrt(s.size))


class FlatNuclear(_Flat):
    """The update keeps its nuclear norm: the mean of the values."""

    name = "flat_nuclear"
    title = "Flat-Nuclear"
    formula = "W0 + alpha sum_i (|s|_1 / r) u_i v_i^T over the r directions of D*, s their singular values"
    citation = FlatFro.citation

    def level(self, s: Values) -> float:
        """Return the mean."""
        return float(s.mean())
