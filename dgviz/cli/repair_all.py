"""``repair-all``: several methods' results in one read of the pair."""

import argparse
import time
from contextlib import closing
from typing import Any

from dgviz.checkpoint import CheckpointPair
from dgviz.cli.options import chosen_pair, print_columns, print_result, repair_plans, warn, warn_surprising
from dgviz.cli.progress import Progress
from dgviz.jobs import JobReporter
from dgviz.jobs.executor import Executor
from dgviz.repair.hire import hire
from dgviz.repair.plan import RepairPlan
from dgviz.repair.report import Changes
from dgviz.words import duration


def run(options: argparse.Namespace) -> int:
    """Write every method's checkpoint; outputs that are finished already are left as they are."""
    started = time.perf_counter()
    repairs, pair = repair_plans(options), chosen_pair(options)
    warn_surprising(pair)
    executor = hire(pair.tensors, repairs, options.device, options.workers, options.ray)
    with closing(executor):
        return _run(options, pair, repairs, executor, started)


def _run(
    options: argparse.Namespace, pair: CheckpointPair, repairs: list[RepairPlan], executor: Executor, started: float
) -> int:
    """Write every method's checkpoint, in the processes that are hired for it."""
    from dgviz.export.batch import iter_exports, output_name, plan_exports
    from dgviz.export.write import ExportResult

    plans, reports = plan_exports(pair, repairs, options.directory)
    there = set(reports)
    sizes = {plan.repair.label: plan for plan in plans}
    total = sum(plan.total_bytes for plan in plans)
    exports = iter_exports(plans, executor)
    with closing(exports), Progress("repair-all", total, unit="B", unit_scale=True) as progress:
        for label, item in exports:
            if isinstance(item, ExportResult):
                reports[label] = dict(item.report)
                continue
            work = sizes[label].written_bytes(item.name)
            progress.tell(work, f"{label}: {item.name}", methods=len(plans))
    seconds = round(time.perf_counter() - started, 3)
    rows = [
        {"label": plan.label, "folder": output_name(plan), "written": plan.label not in there, **reports[plan.label]}
        for plan in repairs
    ]
    summary = [{key: value for key, value in row.items() if key != "tensors"} for row in rows]
    JobReporter.from_environment().finish({"out": options.directory, "methods": summary, "seconds": seconds})
    result = {"directory": options.directory, "methods": rows, "seconds": seconds}
    print_result(options, result, lambda: _print(**result))
    return 0


def _print(directory: str, methods: list[dict[str, Any]], seconds: float) -> None:
    """Print one line per method."""
    warn(dict.fromkeys(warning for row in methods for warning in row["warnings"]))
    table = []
    for row in methods:
        changed = Changes.of(row["tensors"].values()).changed
        state = "written" if row["written"] else "there already"
        table.append((row["label"], str(changed), state, row["folder"]))
    print_columns(("method", "tensors changed", "state", "folder"), table)
    print(f"\n{len(methods)} outputs in {directory}, {duration(seconds)}")
