"""Repaired checkpoints written for a look and removed again: whoever scores one has it on disk, as a user would."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from dgviz.checkpoint import CheckpointPair
from dgviz.export.batch import iter_exports, plan_exports
from dgviz.export.write import ExportResult
from dgviz.jobs.executor import Executor
from dgviz.repair.plan import RepairPlan

_TOGETHER = 12  # so many outputs lie on the disk at once, made in one read of the pair


def iter_written(
    pair: CheckpointPair, plans: Sequence[RepairPlan], device: str | Executor = "auto"
) -> Iterator[tuple[RepairPlan, Path, ExportResult]]:
    """Write a checkpoint per plan in a temporary folder, and give it to look at until the next is asked for."""
    for start in range(0, len(plans), _TOGETHER):
        batch = plans[start : start + _TOGETHER]
        with tempfile.TemporaryDirectory(prefix="dgviz-sweep-") as scratch:
            exports, _ = plan_exports(pair, batch, scratch)
            results = {label: item for label, item in iter_exports(exports, device) if isinstance(item, ExportResult)}
            for export in exports:
                yield export.repair, export.out, results[export.repair.label]
