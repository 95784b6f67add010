"""One side of a comparison: what a plan makes of a weight in one fine-tune."""

from dataclasses import dataclass

from dgviz.checkpoint import CheckpointPair
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.weight import Weight


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a comparison of a weight.

    Attributes
    ----------
    plan : RepairPlan
        What is made of it.
    weight : Weight
        The matrix, of the pair's own fine-tune or of another.
    pair : CheckpointPair
        What the matrix is of.
    own : bool
        Whether that is the pair in view.
    """

    plan: RepairPlan
    weight: Weight
    pair: CheckpointPair
    own: bool = True

    @property
    def key(self) -> str:
        """What tells it from other sides."""
        return f"{self.pair.tuned.fingerprint} {self.weight.name} {self.plan.to_json()}"
