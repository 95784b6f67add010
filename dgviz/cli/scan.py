"""``scan``: spectrum and figures of every weight's update, into the store."""

import argparse
import time
from contextlib import closing
from typing import Any

from dgviz.analysis.scanned import finish_scan
from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.layout import label
from dgviz.cli.options import (
    NUMBERS,
    print_columns,
    print_result,
    report_failures,
    rule_plan,
    seen_pair,
    warn,
)
from dgviz.cli.progress import Progress
from dgviz.forecast import Forecast
from dgviz.jobs import JobReporter
from dgviz.repair.hire import join
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.diagnosis import Diagnosis
from dgviz.spectra.model_scan import ScannedMatrix, iter_scan
from dgviz.spectra.schedule import plan_tasks
from dgviz.words import duration, number, some

_NAMED = 5  # matrices that one warning of all of them names; --json has it at each


def run(options: argparse.Namespace) -> int:
    """Scan every weight; a weight that fails is named at the end, and the others are done."""
    pair = seen_pair(options)
    where = {"device": options.device, "workers": options.workers}
    if options.ray:
        where = {"executor": join(options.ray, pair.tensors, **where)}
    report, forecast = scan_pair(pair, rule_plan(options, pair), **where)
    errors = report["errors"]
    summary = {"weights": len(report["weights"])} | {name: report[name] for name in ("stored", "computed", "seconds")}
    if errors:
        failed = f"{len(errors)} of {len(errors) + report['stored'] + report['computed']} matrices failed"
        summary["error"] = f"{failed}, first {next(iter(errors.items()))[1]}"
    JobReporter.from_environment().finish({**summary, "errors": errors}, "failed" if errors else "done")
    print_result(options, report, lambda: _print_scan(report, forecast.sentence))
    return report_failures("scan", errors)


def scan_pair(pair: CheckpointPair, plan: RepairPlan, **where: Any) -> tuple[dict[str, Any], Forecast]:
    """Scan every weight with a bar; return the report, and what the plan would do. `where` goes to `iter_scan`."""
    started = time.perf_counter()
    total = sum(task.work for task in plan_tasks(pair))
    results: list[ScannedMatrix] = []
    stored = 0
    scan = iter_scan(pair, **where, heartbeat=0.5, own=plan.rule_of)
    shape = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} < {remaining}{postfix}"
    with closing(scan), Progress("scan", total, bar_format=shape) as progress:
        for result in scan:
            if result is None:
                progress.heed()
                continue
            results.append(result)
            stored += result.row is not None and result.row["stored"]
            progress.tell(result.work, result.name, matrices=len(results), stored=stored)
    return finish_scan(pair, results, plan, time.perf_counter() - started)


def _print_scan(report: dict[str, Any], forecast: str) -> None:
    """Print one line per matrix and what is odd about them, then the verdict on the model and what to do first."""
    rows = {}
    for name, tensor in report["weights"].items():
        stacked = len(tensor["matrices"]) > 1
        shape = " x ".join(map(str, tensor["shape"][stacked:]))
        for index, row in enumerate(tensor["matrices"]):
            if row is not None:
                rows[label(name, index if stacked else None)] = row, shape
    lines = [(*(number(row[column]) for column in NUMBERS), shape, name) for name, (row, shape) in rows.items()]
    print_columns((*NUMBERS, "shape", "name"), lines)
    warned: dict[str, list[str]] = {}
    for name, (row, _) in rows.items():
        for warning in row["warnings"]:
            warned.setdefault(warning, []).append(name)
    warn(f"{some(names, _NAMED)}: {warning}" for warning, names in warned.items())
    if report["model"]:
        diagnosis = Diagnosis.from_json(report["model"])
        print(f"\nThe rule {diagnosis.word}. {forecast}\nWhat to do first: {' '.join(diagnosis.advice[:2])}")
    print(f"\n{report['computed']} computed, {report['stored']} from the store, {duration(report['seconds'])}")
