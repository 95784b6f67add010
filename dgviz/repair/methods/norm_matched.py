"""Controls of DG-Hard's length: the update shortened along its own direction, nothing chosen."""

import math
from typing import Any

import numpy as np

from dgviz.repair.methods.method import (
    TAU,
    MatrixMethod,
    OpenUpdate,
    Params,
    Reshaped,
    Rows,
    Scaling,
    Values,
    WholeModel,
)
from dgviz.rmt.spectrum import norm_ratio
from dgviz.rmt.threshold import Threshold

_CITATION = "control; after Wortsman et al. 2022, arXiv 2109.01903"


class NormMatched(MatrixMethod):
    """Every matrix's update as long as D*."""

    name = "norm_matched"
    title = "Control: as long as D*"
    formula = "W0 + D |D*| / |D| in every matrix: WiSE-FT with DG-Hard's length"
    citation = _CITATION
    strengths = (TAU,)
    thresholded = control = True

    def values(self, params: Params, s: Values, kept: Values) -> Values:
        """Return all values, shortened alike."""
        return kept if np.array_equal(kept, s) else norm_ratio(kept, s) * s

    def rank(self, threshold: Threshold, values: Values) -> None:
        """Return None: every direction is kept."""

    def update(self, reshaped: Reshaped, weight: OpenUpdate) -> Rows:
        """Return the shortened update."""
        factor = norm_ratio(reshaped.kept, reshaped.s)
        return lambda rows: factor * weight.delta[rows]


class NormMatchedGlobal(Scaling):
    """All updates shortened by one factor, together as long as all D*."""

    name = "norm_matched_global"
    title = "Control: as long as D*, one factor"
    formula = "W0 + D |D*| / |D|, both lengths over all matrices together"
    citation = _CITATION
    strengths = (TAU,)
    whole_model = thresholded = decomposes = control = True

    def prepare(self, params: Params, model: WholeModel) -> float:
        """Return the factor. Both lengths are of the same spectra: equal ones make it exactly one."""
        kept, whole = model.squares()
        return math.sqrt(kept / whole) if whole > 0 else 1.0

    def factor(self, params: Params, tensor: str, facts: Any) -> float:
        """Return the one factor."""
        if facts is None:
            raise self.unprepared("factor")
        return facts
