"""WiSE-FT: a point on the line from base to tuned."""

from typing import Any

from dgviz.repair.methods.method import TENTHS, Params, Scaling, Strength, number


class WiseFT(Scaling):
    """The whole update times alpha."""

    name = "wise_ft"
    title = "WiSE-FT"
    formula = "(1 - alpha) W0 + alpha W1"
    citation = "Wortsman et al. 2022, arXiv 2109.01903"
    parameters = (number("alpha", 0.5, 2.0, "share of tuned"),)
    strengths = (Strength("alpha", TENTHS),)
    every_tensor = averages = True

    def factor(self, params: Params, tensor: str, facts: Any) -> float:
        """Return alpha."""
        return float(params["alpha"])
