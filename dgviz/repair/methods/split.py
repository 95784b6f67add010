"""Split at tau: what DG-Hard keeps and what it drops, each times a factor of its own."""

from dgviz.repair.methods.method import TENTHS, MatrixMethod, Params, Strength, Values, number
from dgviz.rmt.threshold import Parameter, Threshold


class Split(MatrixMethod):
    """Two factors a matrix; `dgviz fit` finds them, and writes into its plans what they were fitted to."""

    name = "split"
    title = "Split at tau (experimental)"
    formula = "W0 + above D* + below (D - D*)"
    citation = "experimental; fitted by `dgviz fit`"
    parameters = (
        number("above", 1.0, 2.0, "factor of what DG-Hard keeps"),
        number("below", 0.5, 2.0, "factor of what it drops"),
        Parameter("fit_seed", 0, 0, 2**31, True, "the seed of a fit"),
        Parameter("fit_samples", 0, 0, 2**52, True, "first 52 bits of the SHA-256 of a fit's texts; 0 without a fit"),
    )
    strengths = (Strength("below", TENTHS), Strength("above", TENTHS))
    thresholded = experimental = True

    def values(self, params: Params, s: Values, kept: Values) -> Values:
        """Return both parts of every value, each times its factor."""
        above, below = params["above"], params["below"]
        return s.copy() if above == below == 1 else above * kept + below * (s - kept)

    def rank(self, threshold: Threshold, values: Values) -> None:
        """Return None: of every direction a part is kept."""
