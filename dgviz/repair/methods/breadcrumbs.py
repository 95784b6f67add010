"""Model Breadcrumbs: an update without its smallest entries and without its very largest."""

from typing import Any

from dgviz.repair.methods.method import SHARES, Edit, EntryMethod, Params, Strength, Update, number
from dgviz.repair.methods.trim import Trimmed, keep_largest, magnitudes


class Breadcrumbs(EntryMethod):
    """Two trims of every tensor. As mergekit does it, fewer of the largest go where else too few would stay."""

    name = "breadcrumbs"
    title = "Model Breadcrumbs"
    formula = (
        "W0 + scale D at the floor(density n) largest |D| of each tensor behind the floor(top n) very largest, or "
        "behind fewer where there are not so many, else W0"
    )
    citation = "Davari & Belilovsky 2023, arXiv 2312.06795, as mergekit does it, arXiv 2403.13257"
    parameters = (
        number("density", 0.2, 1.0, "share of entries kept"),
        number("top", 0.01, 1.0, "share of entries undone for being the largest"),
        number("scale", 1.0, 5.0, "multiplies what is kept"),
    )
    strengths = (Strength("density", SHARES),)

    def edit(self, params: Params, update: Update, facts: Any) -> Edit:
        """Return both trims of one tensor."""
        import torch

        n = update.numel
        kept = int(n * params["density"])
        top = min(int(n * params["top"]), n - kept)
        trims = [keep_largest(lambda: magnitudes(update), n, count) for count in (kept + top, top)]
        inner, outer = Trimmed(trims[0], scale=params["scale"]), Trimmed(trims[1])

        def mask(base: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
            """Return the delta without both ends."""
            return torch.where(outer(base, delta) == 0, inner(base, delta), 0.0)

        return mask
