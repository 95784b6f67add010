"""``family``: several tuned checkpoints of one base side by side, and what their kept directions have in common."""

import argparse
import functools
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dgviz.analysis.family import distinct_names, family_csv, match_members, member_report
from dgviz.analysis.family.overlap import kinship_report
from dgviz.analysis.figures import POOLED
from dgviz.analysis.groups import THIRDS, WHOLE
from dgviz.analysis.model_spectra import assess, read_spectra
from dgviz.checkpoint import CheckpointPair, inspect_pair
from dgviz.checkpoint.module_path import CLASSES
from dgviz.cli.compare_methods import save_json
from dgviz.cli.options import own_rule, print_columns, print_json, repair_plan
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
    pairs = [inspect_pair(options.base, tuned, options.include, options.exclude) for tuned in options.tuned]
    names = distinct_names([pair.tuned.path.name for pair in pairs], options.names)
    for name, pair in zip(names, pairs, strict=True):
        if not pair.repairable:
            pair.refuse_blocked()
        for blocker in pair.blockers:
            print(f"warning: {name}: {blocker.sentence}", file=sys.stderr)
        refuse_idle(plan, pair)
    models, comparison, errors = _compute(options, names, pairs, plan)
    base = {"name": pairs[0].base.path.name, "fingerprint": pairs[0].base.fingerprint}
    rule = {"rule": plan.rule, "params": plan.params}
    result = {
        "base": base,
        **rule,
        "models": models,
        **comparison,
        "seconds": round(time.perf_counter() - started, 3),
    }
    if options.save:
        save_json(Path(options.save).expanduser(), result)
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
    for name, error in errors.items():
        print(f"dgviz family: {name} failed: {error}", file=sys.stderr)
    return 1 if errors else 0


def _compute(
    options: argparse.Namespace,
    names: list[str],
    pairs: list[CheckpointPair],
    plan: RepairPlan,
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
            for work, weight, error in _scan(pair, options, plan):
                if error is not None:
                    errors[f"{name}: {weight}"] = error
                progress.tell(work, f"{name}: {weight}")
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


def _scan(
    pair: CheckpointPair, options: argparse.Namespace, plan: RepairPlan
) -> Iterator[tuple[float, str, str | None]]:
    """Scan a pair; yield the work done, the weight, and what befell it; work 0 while nothing has finished."""
    last = "reading"
    own = functools.partial(own_rule, plan)
    for result in iter_scan(pair, device=options.device, workers=options.workers, heartbeat=0.5, own=own):
        if result is None:
            yield 0.0, last, None
        else:
            last = result.name
            yield result.work, last, result.error


def _model(name: str, pair: CheckpointPair, plan: RepairPlan) -> dict[str, Any]:
    """Return what is said of one tuned checkpoint."""
    spectra = read_spectra(pair)
    rows = [assess(matrix, *own_rule(plan, matrix.weight)) for matrix in spectra.weights]
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
    for item in result["not_compared"][:_NAMED]:
        called = ", ".join(names[position] for position in item["models"])
        print(f"not compared: {item['weight']} in {called}: {item['reason']}", file=sys.stderr)
    if len(result["not_compared"]) > _NAMED:
        print(f"not compared: {len(result['not_compared']) - _NAMED} more; --json has all", file=sys.stderr)


def _print_noise(models: list[dict[str, Any]]) -> None:
    """Print mean noise and its product with the norm share, a column per model."""
    groups = {
        model["name"]: {
            row["group"]: row
            for row in (*model["noise"]["classes"], *model["noise"]["thirds"], model["noise"]["whole"])
        }
        for model in models
    }
    present = [name for name in (*CLASSES, *THIRDS, WHOLE) if any(name in rows for rows in groups.values())]
    rows = []
    for name in present:
        own = [rows.get(name) for rows in groups.values()]
        cells = [
            "-" if row is None else f"{100 * row['mean_noise']:.2f} x {100 * row['norm_share']:.2f}" for row in own
        ]
        rows.append((*cells, name))
    print_columns((*groups, "mean noise % x norm share %"), rows)


def _against_chance(side: dict[str, float] | None) -> str:
    """Return an overlap with what chance would give."""
    return "-" if side is None else f"{side['value']:.4f} ({side['chance']:.4f})"
