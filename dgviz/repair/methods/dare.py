"""DARE: entries dropped at random, the others scaled up for them."""

from typing import Any

from dgviz.repair.methods.method import Edit, EntryMethod, Params, Strength, Update, number
from dgviz.repair.methods.seeds import SEED, entry_words

DROPPED = Strength("p", (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99))


class Dare(EntryMethod):
    """A mask of 32 random bits an entry, from a stream that the seed and the tensor's name begin."""

    name = "dare"
    title = "DARE"
    formula = "W0 + D m / (1 - p), m = 0 with probability p for every entry, else 1"
    citation = "Yu et al. 2024, arXiv 2311.03099"
    parameters = (number("p", 0.9, 0.999, "share of entries dropped"), SEED)
    strengths = (DROPPED,)

    def edit(self, params: Params, update: Update, facts: Any) -> Edit:
        """Return the mask at work."""
        import torch

        draw, share = entry_words(params, update.name), 1 - params["p"]
        limit = round(share * 2**32)

        def drop(base: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
            """Return the masked and rescaled delta."""
            return torch.where(draw(delta) < limit, delta if share == 1 else delta / share, 0.0)

        return drop
