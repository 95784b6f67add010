"""What commands have in common: the pair, rule and plans that options describe, and how results are printed."""

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dgviz.checkpoint import CheckpointPair, inspect_pair, open_pair
from dgviz.checkpoint.preflight import warnings_of
from dgviz.cli.progress import LOG
from dgviz.command import Form
from dgviz.errors import MethodError, PlanError, ThresholdError, printable
from dgviz.files import json_number
from dgviz.repair.methods import METHODS
from dgviz.repair.overrides import refuse_idle
from dgviz.repair.plan import RepairPlan, read_plan, read_plan_file
from dgviz.rmt.threshold import RULES, find_rule, having

NUMBERS = "rank", "tau", "sigma", "edge", "energy_kept"
"""What a threshold says of a matrix, in the order printed."""


def rule_params(options: argparse.Namespace) -> dict[str, Any]:
    """Return the rule's parameters, defaults included."""
    for name in options.rule_param:
        methods = having(name, METHODS) if not having(name, RULES) else ""
        if methods:
            raise ThresholdError(
                f"rule {options.rule!r} has no {name}, which is of the method {methods}: use --param"
            )
    return find_rule(options.rule).checked(options.rule_param)


def take_plan(options: argparse.Namespace, form: Form) -> None:
    """Put what the file of ``--plan`` says in the place of options that are not given."""
    plan = read_plan_file(options.plan)
    known = {argument.name: argument for argument in form.arguments}
    for name, value in {**plan.rule_arguments, "shrinker": plan.shrinker, **plan.arguments}.items():
        argument = known.get(name)
        if name == "override":
            value = [*value, *options.override]
        elif argument is not None and argument.normal(getattr(options, name)) is not None:
            raise PlanError(f"{options.plan} says what {argument.flag} is: leave that out, or change the file")
        setattr(options, name, value)


def repair_plan(options: argparse.Namespace) -> RepairPlan:
    """Return the plan that the options of a command describe."""
    plan = RepairPlan(
        rule=options.rule,
        params=rule_params(options),
        include=options.include,
        exclude=options.exclude,
        dtype=getattr(options, "dtype", "auto"),
        method=getattr(options, "method", "dg_hard"),
        method_params=getattr(options, "param", {}),
        shrinker=getattr(options, "shrinker", "hard"),
        overrides=options.override,
    )
    if not options.plan:  # a plan's file says everything
        _refuse_unused(options, plan)
    return plan


def _refuse_unused(options: argparse.Namespace, plan: RepairPlan) -> None:
    """Refuse a rule or a shrinker beside a method that takes none."""
    given = {"--rule": options.rule != "dg_hard", "--rule-param": options.rule_param}
    given = {} if plan.recipe.thresholded else given
    given |= {} if plan.takes_shrinker else {"--shrinker": plan.shrinker != "hard"}
    for flag in (flag for flag, said in given.items() if said):
        known = ", ".join(method.name for method in METHODS.values() if method.thresholded)
        raise MethodError(
            f"{flag} changes nothing: the method {plan.method} takes no threshold; leave it out, or choose one of "
            f"{known}"
        )


def rule_plan(options: argparse.Namespace, pair: CheckpointPair) -> RepairPlan:
    """Return the plan of a command that looks at a pair, whose overrides select something there."""
    plan = repair_plan(options)
    refuse_idle(plan, pair)
    return plan


def repair_plans(options: argparse.Namespace) -> list[RepairPlan]:
    """Return the plans that a list of methods describes, that of a plan's file first; each once."""
    common = {"include": options.include, "exclude": options.exclude, "dtype": options.dtype}
    common["overrides"] = tuple(options.override)
    plans = [read_plan_file(options.plan)] if options.plan else []
    plans = [dataclasses.replace(plan, overrides=common["overrides"]) for plan in plans]
    plans += [read_plan(text, **common) for text in (METHODS if options.methods is None else options.methods)]
    if not plans:
        raise MethodError(f"--methods names no method; there are {', '.join(METHODS)}")
    return list({plan.label: plan for plan in plans}.values())


def chosen_pair(options: argparse.Namespace) -> CheckpointPair:
    """Open both checkpoints, to be repaired."""
    force = getattr(options, "force", False)
    return safe_pair(options, open_pair(options.base, options.tuned, options.include, options.exclude, force))


def seen_pair(options: argparse.Namespace) -> CheckpointPair:
    """Open both checkpoints, to be looked at: what would block a repair is a line on standard error."""
    pair = safe_pair(options, inspect_pair(options.base, options.tuned, options.include, options.exclude))
    warn_blocked(pair)
    return pair


def safe_pair(options: argparse.Namespace, pair: CheckpointPair) -> CheckpointPair:
    """Return a pair into which nothing is written of what the options name."""
    for path in options.outputs:
        pair.refuse_output(path)
    return pair


def warn_surprising(pair: CheckpointPair) -> None:
    """Warn of what is surprising in two checkpoints, before any work."""
    warn(notice.sentence for notice in warnings_of(pair))


def warn_blocked(pair: CheckpointPair, name: str = "") -> None:
    """Warn of what would block a repair of a pair; refuse a pair without anything to repair."""
    if not pair.repairable:
        pair.refuse_blocked()
    warn(name + blocker.sentence for blocker in pair.blockers)


def warn(messages: Iterable[str], kind: str = "warning") -> None:
    """Say each message as a line of its kind on standard error; those of the command itself are errors."""
    level = logging.ERROR if kind.startswith("dgviz ") else logging.WARNING
    for message in messages:
        LOG.log(level, message, extra={"kind": kind})


def report_failures(command: str, errors: Mapping[str, str]) -> int:
    """Name what failed on standard error; return the exit status."""
    warn((f"{name} failed: {error}" for name, error in errors.items()), f"dgviz {command}")
    return 1 if errors else 0


def print_result(options: argparse.Namespace, result: Any, show: Callable[[], None]) -> None:
    """Print a result as JSON where that is asked for, else for people."""
    if options.json:
        print_json(result)
    else:
        show()


def print_json(value: Any) -> None:
    """Print one JSON document, in plain ASCII: valid whatever the terminal's encoding."""
    sys.stdout.write(json.dumps(json_number(value), indent=2, allow_nan=False) + "\n")


def print_columns(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table with aligned columns."""
    table = [titles, *rows]
    widths = [max(len(str(row[column])) for row in table) for column in range(len(titles) - 1)]
    for row in table:
        cells = [str(cell).ljust(width) for cell, width in zip(row, widths, strict=False)]
        print(printable("  ".join([*cells, str(row[-1])])))
