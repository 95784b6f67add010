"""TIES of one fine-tune: the largest entries of an update, over the whole model or tensor by tensor."""

from typing import Any

from dgviz.repair.methods.method import SHARES, Edit, EntryMethod, Params, Strength, Update, WholeModel, number
from dgviz.repair.methods.trim import ALL, NOTHING, Trim, Trimmed, find_cut, keep_largest, magnitudes


class Ties(EntryMethod):
    """One cut through all matrices, as in the released code: it keeps one entry more than the paper says."""

    name = "ties"
    title = "TIES, over the whole model"
    formula = (
        "W0 + scale D where |D| is at least the (n - floor(density n))-th smallest of all matrices, else W0; "
        "with one fine-tune the election of signs changes nothing"
    )
    citation = "Yadav et al. 2023, arXiv 2306.01708"
    parameters = (
        number("density", 0.2, 1.0, "share of entries kept"),
        number("scale", 1.0, 5.0, "multiplies what is kept"),
    )
    strengths = (Strength("density", SHARES),)
    whole_model = True

    def prepare(self, params: Params, model: WholeModel) -> Trim:
        """Return the cut over all matrices together: two passes over the model, one tensor at a time."""
        density = params["density"]
        if density in (0, 1):
            return ALL if density else NOTHING
        place = model.numel - int(model.numel * density)
        keys = lambda: (keys for update in model.updates() for keys in magnitudes(update))  # noqa: E731
        return Trim(find_cut(keys, place).key, float("inf"))

    def edit(self, params: Params, update: Update, facts: Trim | None) -> Edit:
        """Return the trim of one tensor at the common cut."""
        if facts is None:
            raise self.unprepared("cut")
        return Trimmed(facts, scale=params["scale"])


class TiesPerTensor(EntryMethod):
    """Exactly so many entries of every tensor."""

    name = "ties_per_tensor"
    title = "TIES, tensor by tensor"
    formula = (
        "W0 + scale D at the max(1, floor(density n)) largest |D| of each tensor, the first of equal ones, else W0"
    )
    citation = "Yadav et al. 2023, arXiv 2306.01708, as mergekit does it, arXiv 2403.13257"
    parameters = Ties.parameters
    strengths = Ties.strengths

    def edit(self, params: Params, update: Update, facts: Any) -> Edit:
        """Return the trim of one tensor."""
        density = params["density"]
        count = max(1, int(update.numel * density)) if density else 0
        return Trimmed(keep_largest(lambda: magnitudes(update), update.numel, count), scale=params["scale"])
