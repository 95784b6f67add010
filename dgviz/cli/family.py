"""``family``: several tuned checkpoints of one base side by side, and what their kept directions have in common."""

import argparse
import math
import sys
import time
from typing import Any

from dgviz.analysis.family import distinct_names, family_csv, match_members, member_report
from dgviz.analysis.family.overlap import kinship_report
from dgviz.analysis.figures import POOLED
from dgviz.analysis.groups import THIRDS, WHOLE
from dgviz.analysis.model_spectra import assess, read_spectra
from dgviz.checkpoint import CheckpointPair, inspect_pair
from dgviz.checkpoint.module_path import CLASSES
from dgviz.cli.compare_methods import save_result, sides
from dgviz.cli.options import print_columns, print_json, repair_plan, report_failures, safe_pair, warn, warn_blocked
from dgviz.cli.progress import Progress
from dgviz.errors import PairError
from dgviz.jobs import JobReporter
from dgviz.repair.overrides import refuse_idle
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.model_scan import iter_scan
from dgviz.spectra.schedule import plan_tasks

_READ = 250.0  # work per entry of reading an update again, in the units of `dgviz.spectra.schedule.Task.work`
_NAMED = 10  # weights that a terminal lists; --json has all


def run(options: argparse.Namespace) -> int:
    """Scan what is not known yet, compare, and print; what cannot be compared is named."""
    started = time.perf_counter()
    plan = repair_plan(options)
    if len(options.tuned) < 2:
        raise PairError("a family needs at least two tuned checkpoints: name them after base, one after the other")
    pairs = [
        safe_pair(options, inspect_pair(options.base, tuned, options.include, options.exclude))
        for tuned in options.tuned
    ]
    names = distinct_names([pair.tuned.path.name for pair in pairs], options.names)
    for name, pair in zip(names, pairs, strict=True):
        warn_blocked(pair, f"{name}: ")
        refuse_idle(plan, pair)
    models, comparison, errors = _compute(options, names, pairs, plan)
    base, seconds = sides(pairs[0])["base"], round(time.perf_counter() - started, 3)
    rule = {"rule": plan.rule, "params": plan.params}
    result = {"base": base, **rule, "models": models, **comparison, "seconds": seconds}
    save_result(options, result)
    summary: dict[str, Any] = {"models": len(models), "weights": len(comparison["weights"]), "errors": errors}
    if errors:
        summary["error"] = f"{len(errors)} matrices failed, first {next(iter(errors.items()))[1]}"
    JobReporter.from_environment().finish(summary, "failed" if errors else "done")
    if options.json:
        print_json(result)
    elif options.csv:
        sys.stdout.write(family_csv(models))
    else:
        _print(result, names)
    return report_failures("family", errors)


def _compute(
    options: argparse.Namespace, names: list[str], pairs: list[CheckpointPair], plan: RepairPlan
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, str]]:
    """Return every model's figures, the comparison, and what failed."""
    from dgviz.analysis.family.shared import iter_compared

    weights, apart = match_members(pairs)
    scans = [math.fsum(task.work for task in plan_tasks(pair)) for pair in pairs]
    efforts = [_READ * max(side.base.numel for side in weight.sides if side is not None) for weight in weights]
    total = math.fsum(scans) + math.fsum(efforts)
    errors: dict[str, str] = {}
    compared = []
    shape = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
    with Progress("family", total, bar_format=shape) as progress:
        for name, pair in zip(names, pairs, strict=True):
            last, own = "reading", plan.rule_of
            for matrix in iter_scan(pair, device=options.device, workers=options.workers, heartbeat=0.5, own=own):
                last = last if matrix is None else matrix.name
                if matrix is not None and matrix.error is not None:
                    errors[f"{name}: {last}"] = matrix.error
                progress.tell(0.0 if matrix is None else matrix.work, f"{name}: {last}")
        for effort, result in zip(efforts, iter_compared(weights, plan, options.device), strict=True):
            compared.append(result)
            errors |= {f"{names[i]}: {result.weight.name}": said for i, said in result.errors.items()}
            progress.tell(effort, f"comparing {result.weight.name}")
    models = [_model(name, pair, plan) for name, pair in zip(names, pairs, strict=True)]
    report = kinship_report(compared)
    left_out = [{"weight": item.weight, "models": list(item.models), "reason": item.reason} for item in apart]
    left_out += [
        {"weight": item.weight.name, "models": list(item.errors), "reason": next(iter(item.errors.values()))}
        for item in compared
        if item.errors
    ]
    return models, {**report, "not_compared": left_out}, errors


def _model(name: str, pair: CheckpointPair, plan: RepairPlan) -> dict[str, Any]:
    """Return what is said of one tuned checkpoint."""
    spectra = read_spectra(pair)
    rows = [assess(matrix, *plan.rule_of(matrix.weight)) for matrix in spectra.weights]
    about = {"name": name, "folder": pair.tuned.path.name, "fingerprint": pair.tuned.fingerprint}
    missing = [weight.name for weight in spectra.missing]
    return {**about, "weights": len(rows), "missing": missing, **member_report(rows)}


def _print(result: dict[str, Any], names: list[str]) -> None:
    """Print the figures, the noise tables and the overlaps, each side by side."""
    every = {model["name"]: {group["group"]: group for group in model["groups"]} for model in result["models"]}
    present = [name for name in (WHOLE, *CLASSES, *THIRDS) if any(name in groups for groups in every.values())]
    rows = [
        (group, groups[group]["verdict"] or "-", *(f.text(groups[group][key]) for key, f in POOLED.items()), name)
        for group in present
        for name, groups in every.items()
        if group in groups
    ]
    print_columns(("group", "verdict", *(figure.title for figure in POOLED.values()), "model"), rows)
    print()
    _print_noise(result["models"])
    print()
    rows = [
        (
            str(pair["all"]["compared"]),
            *(_against_chance(pair["all"][side]) for side in ("left", "right")),
            *("-" if pair["all"][key] is None else f"{pair['all'][key]:.4f}" for key in ("kept_cosine", "cosine")),
            " and ".join(names[position] for position in pair["models"]),
        )
        for pair in result["overlap"]
    ]
    print_columns(("weights", "left (chance)", "right (chance)", "kept cosine", "cosine", "models"), rows)
    apart = [
        f"{item['weight']} in {', '.join(names[position] for position in item['models'])}: {item['reason']}"
        for item in result["not_compared"]
    ]
    warn(apart[:_NAMED], "not compared")
    if len(apart) > _NAMED:
        warn([f"{len(apart) - _NAMED} more; --json has all"], "not compared")


def _print_noise(models: list[dict[str, Any]]) -> None:
    """Print mean noise and its product with the norm share, a column per model."""
    cells: dict[str, dict[str, str]] = {}
    for model in models:
        noise = model["noise"]
        for row in (*noise["classes"], *noise["thirds"], noise["whole"]):
            text = f"{100 * row['mean_noise']:.2f} x {100 * row['norm_share']:.2f}"
            cells.setdefault(row["group"], {})[model["name"]] = text
    names = [model["name"] for model in models]
    present = [group for group in (*CLASSES, *THIRDS, WHOLE) if group in cells]
    rows = [(*(cells[group].get(name, "-") for name in names), group) for group in present]
    print_columns((*names, "mean noise % x norm share %"), rows)


def _against_chance(side: dict[str, float] | None) -> str:
    """Return an overlap with what chance would give."""
    return "-" if side is None else f"{side['value']:.4f} ({side['chance']:.4f})"
