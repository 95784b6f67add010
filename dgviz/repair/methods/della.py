"""DELLA's MAGPRUNE: entries dropped at random, the small ones of a row more often, the others scaled up for them."""

from typing import Any

from dgviz.repair.methods.dare import DROPPED
from dgviz.repair.methods.method import Edit, EntryMethod, Params, Update, number
from dgviz.repair.methods.rows import by_rows
from dgviz.repair.methods.seeds import SEED, entry_words


class Della(EntryMethod):
    """Ranks row by row as the released code does; with one fine-tune the election of signs changes nothing."""

    name = "della"
    title = "DELLA"
    formula = (
        "W0 + D m / (1 - q), m = 0 with probability q, else 1; q = p + w (1/2 - i / (n - 1)) at the i-th smallest of "
        "the n entries |D| of a row, i from 0, w = min(window, 2 p, 2 (1 - p))"
    )
    citation = "Deep et al. 2024, arXiv 2406.11617, released code"
    parameters = (
        number("p", 0.3, 0.999, "share of entries dropped"),
        number("window", 0.14, 1.0, "width of the range of drop probabilities"),
        SEED,
    )
    strengths = (DROPPED,)

    def edit(self, params: Params, update: Update, facts: Any) -> Edit:
        """Return the mask at work."""
        import torch

        share = 1 - params["p"]
        window = min(params["window"], 2 * params["p"], 2 * share)

        def shares(_: int, base: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
            """Return with which probability every entry of whole rows is kept."""
            n = delta.shape[1]
            order = delta.abs().argsort(dim=1, stable=True)
            places = torch.arange(n, dtype=torch.float64, device=delta.device)
            ranked = share + window * (places / max(1, n - 1) - (0.5 if n > 1 else 0.0))
            return torch.empty_like(delta, dtype=torch.float64).scatter_(1, order, ranked.expand_as(order))

        draw, kept = entry_words(params, update.name), by_rows(update, shares)

        def drop(base: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
            """Return the masked and rescaled delta."""
            chance = kept(base, delta)
            stays = draw(delta) < (chance * 2**32).round().to(torch.int64)
            return torch.where(stays, (delta / chance).to(delta.dtype), 0.0)

        return drop
