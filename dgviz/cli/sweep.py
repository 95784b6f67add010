"""``sweep``: every method at every strength: what it keeps of the update, and scores where there is an evaluator."""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from dgviz.analysis.sweep import (
    SweepLine,
    find_standing,
    plan_scores,
    standing_words,
    sweep_lines,
    sweep_plans,
    sweep_result,
)
from dgviz.checkpoint import CheckpointPair
from dgviz.cli.compare_methods import finish, measure, sides
from dgviz.cli.options import chosen_pair, print_columns, repair_plans, seen_pair, warn
from dgviz.cli.progress import Progress
from dgviz.errors import DgvizError, MethodError, ScoresError
from dgviz.jobs.executor import Executor
from dgviz.repair.hire import hire
from dgviz.repair.plan import RepairPlan, read_plan
from dgviz.scores import choose_scores, read_scores

_FIGURES = "norm_kept", "drift", "sparsity"


def run(options: argparse.Namespace) -> int:
    """Measure, and where asked score, every point; print one line per point."""
    started = time.perf_counter()
    lines = sweep_lines(repair_plans(options), options.parameter)
    scores = ends = None
    if options.scores:
        scores, ends, lines = _own_scores(options, lines)
    opened = chosen_pair if options.evaluate else seen_pair  # what is scored is written for it
    pair, plans = opened(options), sweep_plans(lines)
    if options.evaluate:
        with closing(hire(pair.tensors, plans, options.device, options.workers, options.ray)) as executor:
            scores, ends = _score(pair, plans, executor)
    table = measure(pair, plans, options, "sweep", ranks=False)
    result = {**sides(pair), "seconds": round(time.perf_counter() - started, 3)}
    swept = sweep_result(lines, table, scores)
    result |= {"evaluator": options.evaluate, "ends": ends, "lines": swept}
    if scores is not None:
        result["standing"] = standing_words(find_standing(swept))
    finish(options, result, lambda: _print(result))
    return 0


def _score(
    pair: CheckpointPair, plans: list[RepairPlan], executor: Executor
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the demo's scores of every plan by label, and of base and tuned."""
    from dgviz.demo import evaluate
    from dgviz.export.passing import iter_written

    ends = {"base": evaluate(pair.base.path), "tuned": evaluate(pair.tuned.path)}
    scores: dict[str, Any] = {}
    written = iter_written(pair, plans, executor)
    with closing(written), Progress("score", len(plans), kept=False, unit="model") as progress:
        for plan, folder, _ in written:
            scores[plan.label] = evaluate(folder)
            progress.tell(1, f"scored {plan.label}", methods=len(plans))
    return scores, ends


def _own_scores(
    options: argparse.Namespace, lines: Sequence[SweepLine]
) -> tuple[dict[str, Any], dict[str, Any], list[SweepLine]]:
    """Return scores from files by plan and of base and tuned, and the lines with the points that have some."""
    from dgviz.export.batch import output_name

    if not options.on_task:
        raise MethodError("--scores needs --on-task BENCHMARK: which of the benchmarks is the target")
    chosen = choose_scores(read_scores(options.scores))
    if chosen.ambiguous:
        raise ScoresError(f"which metric is meant is not clear: {'; '.join(map(str, chosen.ambiguous))}")
    found = plan_scores([(key[1], key[2], score) for key, score in chosen.scores.items()], options.on_task)
    for end in ("base", "tuned"):
        if end not in found:
            raise ScoresError(f"no scores of a model called {end!r}; there are {', '.join(found) or 'none'}")
    plans = sweep_plans(lines)
    folders = {output_name(plan): plan.label for plan in plans}
    labels = {name: folders.get(name) or _label(name) for name in found if name not in ("base", "tuned")}
    scores = {label: found[name] for name, label in labels.items() if label in folders.values()}
    unknown = [name for name, label in labels.items() if label not in scores]
    if unknown:
        warn([f"no point of this sweep is called {', '.join(unknown)}"])
    points = ((line, tuple(item for item in line.points if item[1].label in scores)) for line in lines)
    kept = [dataclasses.replace(line, points=own) for line, own in points if own]
    if not kept:
        known = ", ".join(plan.label for plan in plans[:4])
        raise ScoresError(f"no scores of any point of this sweep; its points are called {known} ...")
    left = len(plans) - len(scores)
    if left:
        warn([f"{left} of {len(plans)} points have no scores and are left out"])
    return scores, {end: found[end] for end in ("base", "tuned")}, kept


def _label(name: str) -> str:
    """Return the label of the plan that a name means, settings that are the default's left out; else the name."""
    try:
        return read_plan(name).label
    except DgvizError:
        return name


def _print(result: dict[str, Any]) -> None:
    """Print one line per point, with the scores where there are any."""
    rows = [(line, point) for line in result["lines"] for point in line["points"]]
    benchmarks = list(rows[0][1].get("scores", ()))
    table = [
        (
            f"{point['value']:g}",
            *(f"{point[name]:.4g}" for name in _FIGURES),
            *(_shown(point["scores"][name]) for name in benchmarks),
            line["label"],
        )
        for line, point in rows
    ]
    for name, scores in (result["ends"] or {}).items():
        table.append(("", *("" for _ in _FIGURES), *(_shown(scores[b]) for b in benchmarks), name))
    print_columns(("strength", *_FIGURES, *benchmarks, "method"), table)
    if "standing" in result:
        print(result["standing"])


def _shown(row: dict[str, Any]) -> str:
    """Return a score in percent, with its standard error where that is known."""
    return f"{100 * row['score']:.1f}" + ("" if row["stderr"] is None else f" ± {100 * row['stderr']:.1f}")
