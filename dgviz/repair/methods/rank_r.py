"""Rank truncation: the same number of directions of every matrix."""

from typing import TYPE_CHECKING

from dgviz.repair.methods.method import MatrixMethod, Params, Strength, Values
from dgviz.rmt.threshold import Parameter

if TYPE_CHECKING:
    from dgviz.repair.plan import RepairPlan


class RankTruncation(MatrixMethod):
    """The strongest directions, as many as are asked for."""

    name = "rank_r"
    title = "Rank truncation"
    formula = "W0 + the r strongest directions of D"
    citation = "Eckart & Young 1936, doi 10.1007/BF02288367"
    parameters = (Parameter("rank", 16, 0, 2**31, True, "directions kept of every matrix"),)
    strengths = (Strength("rank", (0, 1, 2, 4, 8, 16, 32, 64, 96, 128)),)
    has_factors = True

    def cut(self, plan: "RepairPlan") -> tuple[str, Params, str]:
        """Return the cut behind the last direction asked for."""
        return "fixed_rank", {"rank": plan.method_params["rank"]}, "hard"

    def values(self, params: Params, s: Values, kept: Values) -> Values:
        """Return the values kept."""
        return kept
