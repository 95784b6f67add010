"""DG-Hard: the directions of an update that stand above its noise."""

from dgviz.repair.methods.method import TAU, TENTHS, MatrixMethod, Params, Strength, Values, number


class DGHard(MatrixMethod):
    """The directions that a rule keeps, their sizes set by a shrinker."""

    name = "dg_hard"
    title = "DG-Hard"
    formula = "W0 + alpha D*, D* = the directions of D that the rule keeps, their sizes set by the shrinker"
    citation = "Spectral Unforgetting (DG-Hard), arXiv 2605.20296"
    parameters = (number("alpha", 1.0, 2.0, "multiplies what is kept"),)
    strengths = (TAU, Strength("alpha", TENTHS))
    thresholded = has_factors = True

    def values(self, params: Params, s: Values, kept: Values) -> Values:
        """Return the values kept, times alpha."""
        alpha = params["alpha"]
        return kept if alpha == 1 else alpha * kept
