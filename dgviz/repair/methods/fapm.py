"""FAPM: the largest entries of an update, less what changing them may make the model forget."""

import math
from typing import TYPE_CHECKING, Any

from dgviz.repair.methods.method import SHARES, Edit, EntryMethod, Params, Strength, Update, number
from dgviz.repair.methods.trim import Trimmed, keep_largest, score_keys

if TYPE_CHECKING:
    pass


class Fapm(EntryMethod):
    """A trim by ``|D|`` less a penalty of ``mean|W0| |D| / |W0|``.

    Where the whole base is zero there is nothing to forget and no penalty; where one entry of it is, changing that
    entry is the worst there is, and leaving it costs nothing.
    """

    name = "fapm"
    title = "FAPM"
    formula = "W0 + D at the floor(density n) largest |D| - mean|W0| |D| / |W0| of each tensor, else W0"
    citation = "EMNLP 2025, arXiv 2509.08255"
    parameters = (number("density", 0.1, 1.0, "share of entries kept"),)
    strengths = (Strength("density", SHARES),)
    every_tensor = True

    def edit(self, params: Params, update: Update, facts: Any) -> Edit:
        """Return the trim of one tensor."""
        import torch

        total = float(sum(base.abs().sum(dtype=torch.float64) for base, _ in update.blocks()))
        mean = total / max(1, update.numel)

        def keys(base: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
            """Return the keys of the scores."""
            size = delta.abs()
            if mean == 0 or not math.isfinite(mean):
                return score_keys(size)
            penalty = torch.where(size == 0, 0.0, mean * (size / base.abs()))
            return score_keys(size - penalty)

        scores = lambda: (keys(base, delta) for base, delta in update.blocks())  # noqa: E731
        return Trimmed(keep_largest(scores, update.numel, int(update.numel * params["density"])), keys)
