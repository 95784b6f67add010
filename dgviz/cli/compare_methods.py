"""``compare-methods``: how far every method moves the model, how sparsely, how far from DG-Hard; writes nothing."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dgviz.checkpoint import CheckpointPair
from dgviz.cli.options import chosen_pair, print_columns, print_json, repair_plans
from dgviz.errors import ExportError
from dgviz.files import json_number, pretty_json, write_file
from dgviz.jobs import JobReporter
from dgviz.repair.plan import RepairPlan
from dgviz.words import number

FIGURES = "norm_kept", "drift", "sparsity", "distance", "effective_rank"


def run(options: argparse.Namespace) -> int:
    """Measure the methods and print the table."""
    started = time.perf_counter()
    pair, plans = chosen_pair(options), repair_plans(options)
    reporter = JobReporter.from_environment()
    table = measure(pair, plans, options.device, "compare-methods", reporter)
    if table is None:
        return 1
    result = describe(pair, table, started)
    finish(options, reporter, result)
    if not options.json:
        print_columns((*FIGURES, "method"), ((*figures(row), row["label"]) for row in table))
    return 0


def measure(
    pair: CheckpointPair,
    plans: list[RepairPlan],
    device: str,
    command: str,
    reporter: JobReporter,
    ranks: bool = True,
) -> list[dict[str, Any]] | None:
    """Return the table of a comparison with a progress bar, or None where it was cancelled."""
    from dgviz.analysis.methods import comparison_table, is_measured, iter_comparison

    tensors = []
    total = sum(is_measured(paired) for paired in pair.tensors)
    for tensor in tqdm(
        iter_comparison(pair, plans, device, ranks=ranks), total=total, desc=command, unit="tensor", file=sys.stderr
    ):
        tensors.append(tensor)
        reporter.progress(len(tensors), total, tensor.name, methods=len(plans))
        if reporter.cancelled():
            reporter.finish({}, "cancelled")
            print(f"dgviz {command}: cancelled", file=sys.stderr)
            return None
    return comparison_table(tensors, plans)


def describe(pair: CheckpointPair, table: list[dict[str, Any]], started: float) -> dict[str, Any]:
    """Return a table with what it is about."""
    sides = {
        side: {"name": checkpoint.path.name, "fingerprint": checkpoint.fingerprint}
        for side, checkpoint in (("base", pair.base), ("tuned", pair.tuned))
    }
    return {**sides, "methods": table, "seconds": round(time.perf_counter() - started, 3)}


def finish(options: argparse.Namespace, reporter: JobReporter, result: dict[str, Any]) -> None:
    """Keep the result where the options say, end the job and print JSON where it is asked for."""
    if options.save:
        save_json(Path(options.save).expanduser(), result)
    reporter.finish({key: value for key, value in result.items() if key != "methods"}, "done")
    if options.json:
        print_json(result)


def save_json(path: Path, result: dict[str, Any]) -> None:
    """Write a result in one step."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, pretty_json(json_number(result)))
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}; choose another --save") from None


def figures(row: dict[str, Any]) -> list[str]:
    """Return a row's figures as text."""
    return [number(row[name]) for name in FIGURES]
