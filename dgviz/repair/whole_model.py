"""What a method has to know of the whole model before it can change the first tensor."""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dgviz.checkpoint import CheckpointPair, PairedTensor
from dgviz.jobs.executor import Executor
from dgviz.repair.ahead import tensor_bytes
from dgviz.repair.methods.method import Values, keep
from dgviz.repair.plan import RepairPlan
from dgviz.repair.update import TensorUpdate
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.svd.decompose import resolve_device
from dgviz.spectra.weight import Weight, matrices_of

Squares = MutableMapping[tuple[str, str], tuple[float, float]]
"""(|D*|^2, |D|^2) of a matrix under a threshold: what one pass has found out another need not compute again."""


def prepare_method(
    pair: CheckpointPair,
    plan: RepairPlan,
    device: str = "auto",
    store: SpectrumStore | None = None,
    squares: Squares | None = None,
) -> Any:
    """Return what a plan's method takes from a whole pair; reads tensors only for methods with ``whole_model``."""
    model = _LiveModel(
        pair, plan, resolve_device(device), store or SpectrumStore(), {} if squares is None else squares
    )
    return plan.recipe.prepare(plan.method_params, model)


@dataclass(frozen=True, eq=False)
class _Prepare:
    """`prepare_method` as a task, on as many threads as where the command runs: they decide its last digits."""

    pair: CheckpointPair
    threads: int
    root: Path

    def __call__(self, device: str, plan: RepairPlan, squares: Squares) -> tuple[Any, Squares]:
        """Return what the method takes, and all lengths that are known then."""
        torch.set_num_threads(self.threads)
        return prepare_method(self.pair, plan, device, SpectrumStore(self.root), squares), squares


def prepare_on(
    executor: Executor,
    pair: CheckpointPair,
    plan: RepairPlan,
    store: SpectrumStore | None = None,
    squares: Squares | None = None,
) -> Any:
    """Return what `prepare_method` does; where other machines compute, one of them reads the model for it."""
    if not executor.spread:
        return prepare_method(pair, plan, executor.device, store, squares)
    if not plan.recipe.whole_model:
        return prepare_method(pair, plan, "cpu", store, squares)
    squares = {} if squares is None else squares
    task = _Prepare(pair, torch.get_num_threads(), (store or SpectrumStore()).root)
    memory = max((tensor_bytes(tensor, [plan]) for tensor in pair.repairable), default=0)
    facts, found = executor.submit(task, plan, dict(squares), memory=memory).result()
    squares.update(found)
    return facts


class _LiveModel:
    """The whole model, read as far as a method asks."""

    def __init__(
        self, pair: CheckpointPair, plan: RepairPlan, device: str, store: SpectrumStore, squares: Squares
    ) -> None:
        self.names = [paired.name for paired in pair.tensors if paired.tuned is not None]
        self._pair, self._plan, self._device, self._store, self._squares = pair, plan, device, store, squares

    @cached_property
    def _changed(self) -> list[PairedTensor]:
        """Tensors of which the plan's default changes a part: what an override decides is no part of the method."""
        tensors = (paired for paired in self._pair.tensors if self._plan.default.changes(paired))
        return [paired for paired in tensors if any(plan is self._plan.default for plan in self._plan.each(paired))]

    @property
    def numel(self) -> int:
        """Number of entries that the plan changes; base has just the rows that both vocabularies have."""
        return sum(paired.base.numel for paired in self._changed)

    def updates(self) -> Iterator[TensorUpdate]:
        """Yield the update of every tensor that the plan changes."""
        for paired in self._changed:
            yield TensorUpdate(paired, self._device)

    def squares(self) -> tuple[float, float]:
        """Return |D*|^2 and |D|^2 over all matrices."""
        kept, whole = np.sum([np.zeros(2), *map(self._squares_of, self._changed)], axis=0)
        return float(kept), float(whole)

    def tensor_squares(self) -> dict[str, tuple[float, float]]:
        """Return |D|^2 and |W0|^2 of every tensor of which the plan changes a part and whose update is not zero."""
        found = {}
        for update in self.updates():
            sides = (torch.stack([_square(delta), _square(base)]) for base, delta in update.blocks())
            own, beside = sum(sides, torch.zeros(2, dtype=torch.float64, device=update.device)).tolist()
            if own:
                found[update.name] = own, beside
        return found

    def _squares_of(self, paired: PairedTensor) -> np.ndarray:
        """Return both squares of one tensor, summed over a stack's matrices."""
        total = np.zeros(2)
        for weight in matrices_of(paired):
            if self._plan.at(paired, weight.index) is not self._plan.default:
                continue
            key = _squares_key(weight, self._plan)
            if key not in self._squares:
                opened, plan = OpenWeight(weight, self._device, self._store), self._plan
                _, kept = keep(opened.measured, plan.rule, plan.params, plan.shrinker, lambda o=opened: o.delta)
                note_squares(self._squares, opened, plan, kept)
            total += self._squares[key]
        return total


def _square(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of squares of the entries that are numbers."""
    return torch.sum(values.masked_fill(values.isinf(), 0.0).square(), dtype=torch.float64)


def _squares_key(weight: Weight, plan: RepairPlan) -> tuple[str, str]:
    """Return the key of a matrix under the threshold of a plan."""
    return weight.name, f"{plan.rule} {sorted(plan.params.items())} {plan.shrinker}"


def note_squares(squares: Squares, weight: OpenWeight, plan: RepairPlan, kept: Values) -> None:
    """Write down the lengths that the threshold of a plan has made."""
    squares[_squares_key(weight.weight, plan)] = float(np.sum(kept**2)), float(np.sum(weight.measured.nonzero_s**2))
