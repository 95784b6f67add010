"""Several exports of one pair in one read of it: every tensor is decomposed once, and written under each plan.

The exports run in step, tensor by tensor, each with its own folder, lock, manifest and checks, as if it ran alone.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dgviz.checkpoint import CheckpointPair, PairedTensor
from dgviz.errors import ExportError
from dgviz.export.finished import finished_report
from dgviz.export.full import Repair
from dgviz.export.made import MadeTensor, made_ahead
from dgviz.export.plan import ExportPlan, plan_export
from dgviz.export.write import ExportResult, iter_export
from dgviz.jobs.executor import Executor, InProcess
from dgviz.repair.ahead import Ahead
from dgviz.repair.plan import RepairPlan
from dgviz.repair.report import TensorReport
from dgviz.repair.whole_model import Squares, prepare_method
from dgviz.spectra.svd.decompose import resolve_device
from dgviz.words import size


def plan_exports(
    pair: CheckpointPair, repairs: Sequence[RepairPlan], folder: str | Path
) -> tuple[list[ExportPlan], dict[str, dict[str, Any]]]:
    """Return what is to be written below a folder, one output per plan, and the reports of those that are there."""
    pair.refuse_blocked()
    if not str(folder).strip():
        raise ExportError("the output folder has no name; give a new or empty folder")
    plans, finished = [], {}
    for repair in repairs:
        out = Path(folder).expanduser() / output_name(repair)
        report = finished_report(pair, repair, out)
        if report is None:
            plans.append(plan_export(pair, repair, out))
        else:
            finished[repair.label] = report
    needed = sum(shard.nbytes for plan in plans for shard in plan.shards if shard.name not in plan.finished)
    if plans and needed > plans[0].free_bytes:
        raise ExportError(
            f"{folder} needs {size(needed)} for {len(plans)} outputs and the disk has "
            f"{size(plans[0].free_bytes)} free; free some space or choose fewer methods"
        )
    return plans, finished


def output_name(repair: RepairPlan) -> str:
    """Return the folder name of a plan's output."""
    return repair.label.replace(":", "-")


def iter_exports(
    plans: Sequence[ExportPlan], device: str | Executor = "auto"
) -> Iterator[tuple[str, TensorReport | ExportResult]]:
    """Write several outputs of one pair, yielding (label, report) as `dgviz.export.write.iter_export` does.

    Methods that need the whole model first (``whole_model`` in the registry) cost reads of their own: TIES two,
    before the common one. The control with one factor is written after the others, from lengths they have found.
    """
    executor = InProcess(resolve_device(device)) if isinstance(device, str) else device
    squares: Squares = {}
    late = [plan for plan in plans if plan.repair.recipe.whole_model and plan.repair.recipe.thresholded]
    for group in ([plan for plan in plans if plan not in late], late):
        if group:
            yield from _in_step(group, executor, squares)


def _in_step(
    plans: Sequence[ExportPlan], executor: Executor, squares: Squares
) -> Iterator[tuple[str, TensorReport | ExportResult]]:
    """Run exports tensor by tensor."""
    device = executor.device
    settings = [(plan.repair, prepare_method(plan.pair, plan.repair, device, squares=squares)) for plan in plans]
    shared = _SharedTensor(made_ahead(plans[0].pair, settings, executor), squares)
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(contextlib.closing(iter_export(plan, executor, shared.repairer(number))))
            for number, plan in enumerate(plans)
        ]
        for events in zip(*running, strict=True):
            yield from zip([plan.repair.label for plan in plans], events, strict=True)


class _SharedTensor:
    """The tensor that all exports are at."""

    def __init__(self, make: Ahead, squares: Squares) -> None:
        self._make, self._squares = make, squares
        self._at: PairedTensor | None = None
        self._made: Sequence[MadeTensor] = ()

    def repairer(self, number: int) -> Repair:
        """Return what makes tensors for one of the exports."""

        def repair(paired: PairedTensor) -> MadeTensor:
            """Return a tensor under this export's plan; asked for by the first that comes to it."""
            if self._at is not paired:
                self._at, self._made = paired, self._make(paired)
            made = self._made[number]
            self._squares.update(self._made.squares)
            return made

        return repair
