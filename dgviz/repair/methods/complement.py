"""The complement: what DG-Hard takes for noise, as a control."""

import numpy as np

from dgviz.repair.methods.method import TAU, MatrixMethod, OpenUpdate, Params, Reshaped, Rows, Values
from dgviz.rmt.threshold import Threshold


class Complement(MatrixMethod):
    """What DG-Hard drops."""

    name = "complement"
    title = "Control: what DG-Hard drops"
    formula = "W0 + (D - D*)"
    citation = "control"
    strengths = (TAU,)
    thresholded = control = True

    def values(self, params: Params, s: Values, kept: Values) -> Values:
        """Return what is missing of every value."""
        return np.abs(s - kept)

    def rank(self, threshold: Threshold, values: Values) -> int:
        """Return how many directions are left something."""
        return int(np.count_nonzero(values))

    def update(self, reshaped: Reshaped, weight: OpenUpdate) -> Rows:
        """Return the update without D*."""
        left, right = weight.factors(reshaped.kept, reshaped.s)
        return lambda rows: weight.delta[rows] - left[rows] @ right
