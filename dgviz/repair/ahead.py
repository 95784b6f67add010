"""Tensors repaired in the order of writing: on a GPU those of one shape that come next are decomposed together.

Experts stored one by one are many and small, and a GPU that is given one at a time waits most of the time.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from dgviz.checkpoint import PairedTensor
from dgviz.device import is_gpu
from dgviz.repair.plan import RepairPlan
from dgviz.repair.report import RepairedTensor
from dgviz.repair.tensor import TensorRepairs
from dgviz.spectra.open_weight import OpenWeight, open_together
from dgviz.spectra.schedule import batch_size
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import Weight, matrices_of

_AHEAD = 256  # tensors looked at: of a layer's experts every third has the same shape


class OrderedRepairs:
    """Makes the tensors of a plan's output, which are asked for in order; some may be passed over."""

    def __init__(
        self, tensors: Sequence[PairedTensor], plan: RepairPlan, device: str, store: SpectrumStore, facts: Any = None
    ) -> None:
        self._tensors, self._places = tensors, {paired.name: place for place, paired in enumerate(tensors)}
        self._plan, self._device, self._store, self._facts = plan, device, store, facts
        self._opened: dict[tuple[int, int], Iterator[OpenWeight]] = {}

    def __call__(self, paired: PairedTensor) -> RepairedTensor:
        """Return what the output holds for a tensor."""
        opened = self._open(paired) if is_gpu(self._device) and paired.name in self._places else None
        settings = [(self._plan, self._facts)]
        return TensorRepairs(paired, settings, self._device, self._store, weight=opened).repair(0)

    def _open(self, paired: PairedTensor) -> OpenWeight | None:
        """Return a tensor's matrix, decomposed with others of its shape; None where the plan decomposes none."""
        weight = self._matrix(paired)
        if weight is None:
            return None
        for opened in self._opened.get(weight.shape, ()):
            if opened.weight == weight:
                return opened
        place = self._places[paired.name]
        ahead = filter(None, map(self._matrix, self._tensors[place : place + _AHEAD]))
        alike = [other for other in ahead if (other.shape, other.is_double) == (weight.shape, weight.is_double)]
        size = batch_size(weight, self._device)
        self._opened[weight.shape] = open_together(alike[:size], self._device, self._store, size)
        return next(self._opened[weight.shape])

    def _matrix(self, paired: PairedTensor) -> Weight | None:
        """Return the one matrix of a tensor where the plan decomposes it."""
        plan, weights = self._plan.at(paired), matrices_of(paired) if self._plan.changes(paired) else []
        return weights[0] if len(weights) == 1 and plan.recipe.by_matrix and not plan.keep else None
