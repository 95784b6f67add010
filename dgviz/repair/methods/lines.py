"""LiNeS: the update scaled by how deep in the model a tensor is."""

from collections.abc import Mapping

from dgviz.checkpoint.module_path import block_depths
from dgviz.repair.methods.method import TENTHS, Params, Scaling, Strength, WholeModel, number


class LiNeS(Scaling):
    """A factor that grows linearly from the first block to the last."""

    name = "lines"
    title = "LiNeS"
    formula = (
        "W0 + D (alpha + (last - alpha) l / (L - 1)) in block l of L; alpha before the first, last behind the end"
    )
    citation = "Wang et al. 2025, arXiv 2410.17146"
    parameters = (
        number("alpha", 0.5, 2.0, "factor of the first block"),
        number("last", 1.0, 2.0, "factor of the last block"),
    )
    strengths = (Strength("alpha", TENTHS),)

    def prepare(self, params: Params, model: WholeModel) -> Mapping[str, float]:
        """Return how deep every tensor is: 0 in the first block, 1 in the last."""
        return block_depths(model.names)

    def factor(self, params: Params, tensor: str, facts: Mapping[str, float] | None) -> float:
        """Return the factor of a tensor's block."""
        if facts is None or tensor not in facts:
            raise self.unprepared("factor")
        first, last = params["alpha"], params["last"]
        return float(first + (last - first) * facts[tensor])
