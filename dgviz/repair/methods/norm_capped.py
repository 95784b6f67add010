"""Factors tensor by tensor, by how large an update is beside its base: the relatively largest are shortened."""

import math
from collections.abc import Mapping

from dgviz.repair.methods.method import Params, Scaling, Strength, WholeModel, number


class NormCapped(Scaling):
    """No tensor's update longer, relative to its base, than so many times the update of all of them together."""

    name = "norm_capped"
    title = "Relative size cap"
    formula = (
        "W0 + a D in every tensor, a = min(1, cap r / r_t), r_t = |D| / |W0| of the tensor and r that of all together"
    )
    citation = "own; relative size as in LARS, You et al. 2017, arXiv 1708.03888"
    parameters = (number("cap", 1.0, 100.0, "largest relative size, in that of all tensors together"),)
    strengths = (Strength("cap", (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0, 100.0)),)
    whole_model = True

    def prepare(self, params: Params, model: WholeModel) -> Mapping[str, float]:
        """Return the relative size of every tensor's update, in that of all of them together."""
        squares = model.tensor_squares()
        update, base = (math.fsum(pair[side] for pair in squares.values()) for side in (0, 1))
        sizes = {name: math.sqrt(own / beside) if beside else math.inf for name, (own, beside) in squares.items()}
        together = math.sqrt(update / base) if base else math.inf
        return {name: size / together if size < math.inf else size for name, size in sizes.items()}

    def factor(self, params: Params, tensor: str, facts: Mapping[str, float] | None) -> float:
        """Return the factor of a tensor."""
        if facts is None:
            raise self.unprepared("factor")
        cap, size = params["cap"], facts.get(tensor, 0.0)  # an update of zero has no size
        return 1.0 if size <= cap else cap / size
