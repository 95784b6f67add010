"""Methods side by side on one pair, measured on what they would write: nothing is written.

All figures are of the whole written model against the base, over every floating-point tensor that both sides have in
one shape: a method that leaves vectors to tuned is charged with tuned's vectors. Notation: W the method's result.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dgviz.checkpoint import CheckpointPair, PairedTensor, read_tensor
from dgviz.device import send
from dgviz.jobs.executor import Executor, InProcess
from dgviz.repair.ahead import Ahead
from dgviz.repair.plan import RepairPlan
from dgviz.repair.report import RepairedTensor
from dgviz.repair.tensor import TensorRepairs
from dgviz.repair.update import TensorUpdate
from dgviz.repair.whole_model import prepare_on
from dgviz.rmt.spectrum import effective_rank
from dgviz.spectra.delta import difference
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.svd.decompose import decompose, resolve_device

_KINDS = {"matrices": True, "vectors": False}
REFERENCE = RepairPlan()
"""DG-Hard as published: what distances are measured from."""


@dataclass(frozen=True)
class MeasuredTensor:
    """One tensor under every plan.

    Attributes
    ----------
    name : str
        The tensor.
    numel : int
        Entries that both sides have.
    matrix : bool
        Whether it is one, or a stack of them; else a vector.
    base_square, delta_square : float
        Sums of squares of W0 and of W1 - W0.
    rows : dict of str to dict
        By label: ``moved_square`` of W - W0, ``distance_square`` of W minus DG-Hard's result, ``unmoved`` entries,
        ``effective_rank`` (one per matrix, empty for what is no matrix) and ``written``.
    """

    name: str
    numel: int
    matrix: bool
    base_square: float
    delta_square: float
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)


def iter_comparison(
    pair: CheckpointPair,
    plans: Sequence[RepairPlan],
    device: str | Executor = "auto",
    store: SpectrumStore | None = None,
    ranks: bool = True,
) -> Iterator[MeasuredTensor]:
    """Measure every tensor under every plan, each read and decomposed once, the largest first.

    Where, a device or an executor says.
    """
    executor = InProcess(resolve_device(device)) if isinstance(device, str) else device
    store = store or SpectrumStore()
    masks = {"include": plans[0].include, "exclude": plans[0].exclude, "dtype": plans[0].dtype} if plans else {}
    reference = RepairPlan(**masks)  # as published: an override is part of what is compared with it
    squares: dict = {}
    chosen = [reference, *plans]
    settings = [(plan, prepare_on(executor, pair, plan, store, squares)) for plan in chosen]
    measured = sorted(filter(is_measured, pair.tensors), key=lambda paired: -paired.base.numel)
    measure = Ahead(executor, MeasureTensors(settings, ranks, executor.threads, store.root), measured, chosen)
    yield from map(measure, measured)


@dataclass(frozen=True, eq=False)
class MeasureTensors:
    """Measures tensors under several plans.

    Attributes
    ----------
    settings : sequence of (RepairPlan, object)
        Plans, of which distances are measured from the first, and what their methods take from the whole model.
    ranks : bool
        Whether effective ranks are wanted.
    threads : int or None
        To compute on; None for as many as the process has.
    root : Path
        Of the store of spectra.
    """

    settings: Sequence[tuple[RepairPlan, Any]]
    ranks: bool
    threads: int | None
    root: Path

    def __call__(self, device: str, tensors: Sequence[PairedTensor]) -> list[MeasuredTensor]:
        """Return the figures of tensors; those that a GPU is given together are measured one by one."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        plans, store = [plan for plan, _ in self.settings], SpectrumStore(self.root)
        return [_measure(TensorRepairs(t, self.settings, device, store), plans, device, self.ranks) for t in tensors]


def is_measured(paired: PairedTensor) -> bool:
    """Return whether both sides of a tensor have numbers in one shape."""
    base, tuned = paired.base, paired.tuned
    if base is None or tuned is None:
        return False
    floating = all(side.is_floating and not side.dtype.startswith("float8") for side in (base, tuned))
    return floating and (paired.rows is not None or base.shape == tuned.shape)


def _measure(repairs: TensorRepairs, plans: Sequence[RepairPlan], device: str, ranks: bool) -> MeasuredTensor:
    """Return one tensor's figures; the first plan is the one that distances are measured from."""
    paired = repairs.paired
    update = TensorUpdate(paired, device)
    results = (repairs.repair(number) for number in range(len(plans)))
    reference = _values(paired, next(results))
    rows: dict[str, dict[str, Any]] = {}
    sums = np.zeros(2)
    for plan, done in zip(plans[1:], results, strict=True):
        values = _values(paired, done)
        moved, distance, unmoved, *sums = _sums(update, values, reference)
        rows[plan.label] = {
            "moved_square": moved,
            "distance_square": distance,
            "unmoved": int(unmoved),
            "effective_rank": _ranks(plan, repairs, update, values, done) if ranks else [],
            "written": done.report.written,
        }
    matrix = paired.layout is not None
    return MeasuredTensor(paired.name, update.numel, matrix, float(sums[0]), float(sums[1]), rows)


def _values(paired: PairedTensor, done: RepairedTensor) -> torch.Tensor:
    """Return a result's entries that have a counterpart in base, flat."""
    tensor = done.tensor if done.tensor is not None else read_tensor(done.source)
    if paired.rows is not None and tensor.shape == paired.tuned.shape:
        tensor = torch.cat([tensor[begin:end] for begin, end in paired.rows])
    return tensor.reshape(-1)


def _sums(update: TensorUpdate, values: torch.Tensor, reference: torch.Tensor) -> list[float]:
    """Return the squares of W - W0 and of W minus the reference, the entries of W that are W0's, and of W0 and D."""
    total = torch.zeros(5, dtype=torch.float64, device=update.device)
    values, reference = (send(side, update.device) for side in (values, reference))
    for block in update.slices():
        base, result = update.wide(update.base, block), update.wide(values, block)
        moved = difference(result, base)
        other = update.wide(reference, block)
        distance = difference(result, other)
        finite = torch.nan_to_num(base, 0.0, 0.0, 0.0)
        squared = [torch.sum(part * part, dtype=torch.float64) for part in (moved, distance)]
        own = [torch.sum(part * part, dtype=torch.float64) for part in (finite, update.delta(block, base))]
        total += torch.stack([*squared, (moved == 0).sum().to(torch.float64), *own])
    return total.tolist()


def _ranks(
    plan: RepairPlan, repairs: TensorRepairs, update: TensorUpdate, values: torch.Tensor, done: RepairedTensor
) -> list[float]:
    """Return the effective rank of the update of every matrix of a tensor that the plans may change."""
    paired = repairs.paired
    if paired.action != "repair":
        return []
    known = [matrix.effective_rank for matrix in done.report.matrices]
    if known and None not in known:
        return known
    own = [effective_rank(s) for _, s in sorted(repairs.spectra.items(), key=lambda item: item[0] or 0)]
    if done.report.written.startswith("base"):
        return [0.0] * len(own)
    if all(own.keep or own.recipe.spectral for own in plan.each(paired)) or done.report.written.startswith("tuned"):
        return own  # the update's own values, all multiplied by one number
    layout = paired.layout
    shape = (layout.stack or 1, -1, layout.cols)
    base, result = (side.to(update.device).to(update.work).reshape(shape) for side in (update.base, values))
    deltas = (difference(after, before) for before, after in zip(base, result, strict=True))
    found = [decompose(delta, update.device, paired.name).s for delta in deltas]
    return [effective_rank(np.asarray(s, dtype=np.float64)) for s in found]


def comparison_table(tensors: Sequence[MeasuredTensor], plans: Sequence[RepairPlan]) -> list[dict[str, Any]]:
    """Return one row per plan over the whole model, as plain values."""
    base, delta = (sum(getattr(tensor, name) for tensor in tensors) for name in ("base_square", "delta_square"))
    kinds = {name: [item for item in tensors if item.matrix is own] for name, own in _KINDS.items()}
    numel = sum(tensor.numel for tensor in tensors)
    table = []
    for plan in plans:
        rows = [tensor.rows[plan.label] for tensor in tensors]
        moved, distance = (sum(row[name] for row in rows) for name in ("moved_square", "distance_square"))
        ranks = [rank for row in rows for rank in row["effective_rank"]]
        table.append(
            {
                "label": plan.label,
                "method": plan.method,
                "plan": plan.to_json(),
                "norm_kept": float(np.sqrt(moved / delta)) if delta else 1.0,
                **{f"norm_kept_{kind}": _norm_kept(own, plan.label) for kind, own in kinds.items()},
                "drift": float(np.sqrt(moved / base)) if base else 0.0,
                "sparsity": sum(row["unmoved"] for row in rows) / max(1, numel),
                "distance": float(np.sqrt(distance / delta)) if delta else 0.0,
                "effective_rank": float(np.median(ranks)) if ranks else None,
            }
        )
    return table


def _norm_kept(tensors: Sequence[MeasuredTensor], label: str) -> float | None:
    """Return the length of a plan's update of some tensors over the fine-tuned one's; None where that is zero."""
    delta = sum(tensor.delta_square for tensor in tensors)
    return float(np.sqrt(sum(tensor.rows[label]["moved_square"] for tensor in tensors) / delta)) if delta else None
