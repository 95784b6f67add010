"""Outputs that are finished: what they say of themselves, and whether they still are what was written."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dgviz.checkpoint import CheckpointPair, open_checkpoint
from dgviz.errors import CheckpointError, ExportError, StateError
from dgviz.export.inputs import hash_inputs, refuse_other_inputs
from dgviz.export.manifest import MANIFEST
from dgviz.export.plan import REPORT, ExportPlan
from dgviz.export.report import read_report
from dgviz.export.shard import file_digest
from dgviz.repair.plan import RepairPlan
from dgviz.repair.report import TensorReport
from dgviz.words import some

_AGAIN = "delete the folder and repeat the command to write it again"


def finished_report(pair: CheckpointPair, repair: RepairPlan, out: Path) -> dict[str, Any] | None:
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
    try:
        open_checkpoint(out)
    except CheckpointError as error:
        raise ExportError(f"{out} holds a finished export that cannot be opened: {error}; {_AGAIN}") from error
    return report


def take_over(plan: ExportPlan) -> dict[str, Any]:
    """Return the report of an output that an earlier run ended after it had written everything.

    Raises
    ------
    ExportError
        If it is not any more what was written, or an input is not any more what it was made from.
    """
    try:
        report = read_report(plan.out)
    except StateError as error:
        raise ExportError(f"{plan.out} holds a finished export without its report: {error}; {_AGAIN}") from error
    _refuse_damaged(plan.out, {name: entry["sha256"] for name, entry in report["files"].items()}, report["sidecars"])
    refuse_other_inputs(plan, report["inputs"])
    return report


def _refuse_damaged(out: Path, files: Mapping[str, str], sidecars: Iterable[str]) -> None:
    """Refuse a finished output that is not any more what was written."""
    lost = [name for name in (*files, *sidecars) if not (out / name).is_file()]
    if lost:
        raise ExportError(f"{out} holds a finished export without its {some(lost)}; {_AGAIN}")
    for name, digest in files.items():
        if (now := file_digest(out / name)) != digest:
            raise ExportError(
                f"{out / name} is not what was written there (SHA-256 {digest[:12]}... then, {now[:12]}... now); "
                f"{_AGAIN}"
            )
