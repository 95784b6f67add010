"""``sweep``: every method at every strength: what it keeps of the update, and scores where there is an evaluator."""

import argparse
import sys
import time
from typing import Any

from tqdm import tqdm

from dgviz.checkpoint import CheckpointPair
from dgviz.cli.compare import add_save, describe, finish, measure
from dgviz.cli.options import add_methods, add_pair, chosen_pair, print_columns, repair_plans
from dgviz.jobs import JobReporter
from dgviz.methods import METHODS
from dgviz.plan import RepairPlan
from dgviz.sweep import sweep_lines, sweep_plans, sweep_result

_FIGURES = "norm_kept", "drift", "sparsity"


def add_command(commands: "argparse._SubParsersAction") -> None:
    """Add the command to the grammar.

    Parameters
    ----------
    commands : argparse subparsers
        Of the whole command line.
    """
    parser = commands.add_parser("sweep", help="measure methods at every strength; writes no checkpoint")
    add_pair(parser)
    add_methods(parser, default=",".join(METHODS))
    parser.add_argument("--parameter", metavar="P", help="strength to sweep; default: the first of each method")
    parser.add_argument("--evaluate", choices=("demo",), help="score every point: demo, for checkpoints of the demo")
    add_save(parser)
    parser.set_defaults(run=_sweep)


def _sweep(options: argparse.Namespace) -> int:
    """Measure, and where asked score, every point; print one line per point."""
    started = time.perf_counter()
    lines = sweep_lines(repair_plans(options), options.parameter)
    pair, plans = chosen_pair(options), sweep_plans(lines)
    reporter = JobReporter.from_environment()
    scores = ends = None
    if options.evaluate:
        scored = _score(pair, plans, options.device, reporter)
        if scored is None:
            return 1
        scores, ends = scored
    table = measure(pair, plans, options.device, "sweep", reporter, ranks=False)
    if table is None:
        return 1
    result = describe(pair, [], started)
    del result["methods"]
    result |= {"evaluator": options.evaluate, "ends": ends, "lines": sweep_result(lines, table, scores)}
    finish(options, reporter, result)
    if not options.json:
        _print(result)
    return 0


def _score(
    pair: CheckpointPair, plans: list[RepairPlan], device: str, reporter: JobReporter
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the demo's scores of every plan by label, and of base and tuned; None where it was cancelled."""
    from dgviz.demo import evaluate
    from dgviz.export.passing import iter_written

    ends = {"base": evaluate(pair.base.path), "tuned": evaluate(pair.tuned.path)}
    scores: dict[str, Any] = {}
    written = iter_written(pair, plans, device)
    for plan, folder, _ in tqdm(written, total=len(plans), desc="score", unit="model", file=sys.stderr):
        scores[plan.label] = evaluate(folder)
        reporter.progress(len(scores), len(plans), f"scored {plan.label}", methods=len(plans))
        if reporter.cancelled():
            written.close()
            reporter.finish({}, "cancelled")
            print("dgviz sweep: cancelled", file=sys.stderr)
            return None
    return scores, ends


def _print(result: dict[str, Any]) -> None:
    """Print one line per point, with the scores where there are any."""
    rows = [(line, point) for line in result["lines"] for point in line["points"]]
    benchmarks = list(rows[0][1].get("scores", ()))
    table = []
    for line, point in rows:
        cells = [f"{point[name]:.4g}" for name in _FIGURES]
        for name in benchmarks:
            row = point["scores"][name]
            cells.append(f"{100 * row['score']:.1f} ± {100 * row['stderr']:.1f}")
        table.append((f"{point['value']:g}", *cells, line["label"]))
    for name, scores in (result["ends"] or {}).items():
        cells = [f"{100 * scores[b]['score']:.1f} ± {100 * scores[b]['stderr']:.1f}" for b in benchmarks]
        table.append(("", *["" for _ in _FIGURES], *cells, name))
    print_columns(("strength", *_FIGURES, *benchmarks, "method"), table)
