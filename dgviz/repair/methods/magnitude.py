"""Magnitude pruning: the small entries of an update are undone."""

import math
from typing import Any

from dgviz.repair.methods.method import SHARES, Edit, EntryMethod, Params, Strength, Update, number
from dgviz.repair.methods.trim import ALL, Trim, Trimmed, find_cut, magnitudes


class Magnitude(EntryMethod):
    """MergeLM's cut: everything up to the smallest floor((1 - density) n) goes, and what equals the last of them."""

    name = "magnitude"
    title = "Magnitude pruning"
    formula = (
        "W0 + D where |D| is above the smallest floor((1 - density) n) of its tensor, else W0; ties at the cut go"
    )
    citation = "as in Yu et al. 2024, arXiv 2311.03099, released code"
    parameters = (number("density", 0.2, 1.0, "share of entries kept"),)
    strengths = (Strength("density", SHARES),)

    def edit(self, params: Params, update: Update, facts: Any) -> Edit:
        """Return the trim of one tensor."""
        gone = math.floor(round(update.numel * (1 - params["density"]), 6))  # 10 (1 - 0.9) is one
        return Trimmed(Trim(find_cut(lambda: magnitudes(update), gone).key, 0) if gone else ALL)
