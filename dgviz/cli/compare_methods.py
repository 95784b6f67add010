"""``compare-methods``: how far every method moves the model, how sparsely, how far from DG-Hard; writes nothing."""

import argparse
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from dgviz.checkpoint import CheckpointPair
from dgviz.cli.options import print_columns, print_result, repair_plans, seen_pair
from dgviz.cli.progress import Progress
from dgviz.errors import ExportError
from dgviz.files import json_number, pretty_json, write_file
from dgviz.jobs import JobReporter
from dgviz.repair.hire import hire
from dgviz.repair.overrides import refuse_idle
from dgviz.repair.plan import RepairPlan
from dgviz.words import number

FIGURES = "norm_kept", "norm_kept_matrices", "norm_kept_vectors", "drift", "sparsity", "distance", "effective_rank"


def run(options: argparse.Namespace) -> int:
    """Measure the methods and print the table."""
    started = time.perf_counter()
    pair, plans = seen_pair(options), repair_plans(options)
    table = measure(pair, plans, options, "compare-methods")
    result = {**sides(pair), "methods": table, "seconds": round(time.perf_counter() - started, 3)}
    rows = ((*(number(row[name]) for name in FIGURES), row["label"]) for row in table)
    titles = (name.replace("norm_kept_", "of ") for name in FIGURES)
    finish(options, result, lambda: print_columns((*titles, "method"), rows))
    return 0


def measure(
    pair: CheckpointPair, plans: list[RepairPlan], options: argparse.Namespace, command: str, ranks: bool = True
) -> list[dict[str, Any]]:
    """Return the table of a comparison with a progress bar."""
    for plan in plans:
        refuse_idle(plan, pair)
    executor = hire(pair.tensors, plans, options.device, options.workers, options.ray)
    from dgviz.analysis.methods import comparison_table, is_measured, iter_comparison

    tensors = []
    total = sum(is_measured(paired) for paired in pair.tensors)
    comparison = iter_comparison(pair, plans, executor, ranks=ranks)
    with closing(executor), Progress(command, total, kept=False, unit="tensor") as progress:
        for tensor in comparison:
            tensors.append(tensor)
            progress.tell(1, tensor.name, methods=len(plans))
    return comparison_table(tensors, plans)


def sides(pair: CheckpointPair) -> dict[str, Any]:
    """Return what a result is about: the name and fingerprint of both checkpoints."""
    both = {"base": pair.base, "tuned": pair.tuned}
    return {side: {"name": found.path.name, "fingerprint": found.fingerprint} for side, found in both.items()}


def finish(options: argparse.Namespace, result: dict[str, Any], show: Callable[[], None]) -> None:
    """Keep the result where the options say, end the job and print the result."""
    save_result(options, result)
    JobReporter.from_environment().finish({key: value for key, value in result.items() if key != "methods"})
    print_result(options, result, show)


def save_result(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Write a result, in one step, where ``--save`` says."""
    if not options.save:
        return
    path = Path(options.save).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, pretty_json(json_number(result)))
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}; choose another --save") from None
