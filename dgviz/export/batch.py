"""Several exports of one pair in one read of it: every tensor is decomposed once, and written under each plan.

The exports run in step, tensor by tensor, each with its own folder, lock, manifest and checks, as if it ran alone.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dgviz.checkpoint import CheckpointPair, PairedTensor, open_checkpoint
from dgviz.errors import CheckpointError, ExportError, StateError
from dgviz.export.full import Repair
from dgviz.export.inputs import hash_inputs
from dgviz.export.made import MadeTensor, made_ahead
from dgviz.export.manifest import MANIFEST
from dgviz.export.plan import REPORT, ExportPlan, plan_export
from dgviz.export.report import read_report
from dgviz.export.shard import file_digest
from dgviz.export.write import ExportResult, iter_export
from dgviz.jobs.executor import Executor, InProcess
from dgviz.repair.ahead import Ahead
from dgviz.repair.plan import RepairPlan
from dgviz.repair.report import TensorReport
from dgviz.repair.whole_model import Squares, prepare_method
from dgviz.spectra.svd.decompose import resolve_device
from dgviz.words import size, some


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
        report = _finished_report(pair, repair, out)
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


def _finished_report(pair: CheckpointPair, repair: RepairPlan, out: Path) -> dict[str, Any] | None:
    """Return the report of a finished export of the same inputs and plan, or None."""
    if (out / MANIFEST).exists() or not (out / REPORT).is_file():
        return None
    try:
        report = read_report(out)
        if report["plan"] != repair.to_json() or report["format"] != "full":
            return None
        inputs, files = dict(report["inputs"]), {name: entry["sha256"] for name, entry in report["files"].items()}
        for name, row in report["tensors"].items():
            TensorReport.from_json(name, row)
    except (StateError, ValueError, KeyError, TypeError, AttributeError):
        return None
    written = [paired for paired in pair.tensors if paired.tuned is not None]
    same = inputs.keys() == {paired.name for paired in written}
    if not same or not all(inputs[item.name] == hash_inputs(item, repair) for item in written):
        return None
    _refuse_damaged(out, files, report["sidecars"])
    return report


def _refuse_damaged(out: Path, files: Mapping[str, str], sidecars: Iterable[str]) -> None:
    """Refuse a finished output that is not any more what was written."""
    again = "delete the folder and repeat the command to write it again"
    lost = [name for name in (*files, *sidecars) if not (out / name).is_file()]
    if lost:
        raise ExportError(f"{out} holds a finished export without its {some(lost)}; {again}")
    for name, digest in files.items():
        if (now := file_digest(out / name)) != digest:
            raise ExportError(
                f"{out / name} is not what was written there (SHA-256 {digest[:12]}... then, {now[:12]}... now); "
                f"{again}"
            )
    try:
        open_checkpoint(out)
    except CheckpointError as error:
        raise ExportError(f"{out} holds a finished export that cannot be opened: {error}; {again}") from error


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
