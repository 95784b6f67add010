"""What commands have in common: the pair, rule and plans that options describe, and how results are printed."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from dgviz.checkpoint import CheckpointPair, inspect_pair, open_pair
from dgviz.errors import MethodError
from dgviz.files import json_number
from dgviz.repair.methods import METHODS
from dgviz.repair.plan import RepairPlan, read_plan
from dgviz.rmt.threshold import find_rule

NUMBERS = "rank", "tau", "sigma", "edge", "energy_kept"
"""What a threshold says of a matrix, in the order printed."""


def rule_params(options: argparse.Namespace) -> dict[str, Any]:
    """Return the rule's parameters, defaults included."""
    return find_rule(options.rule).checked(options.rule_param)


def repair_plan(options: argparse.Namespace) -> RepairPlan:
    """Return the plan that the options of a repair describe."""
    return RepairPlan(
        rule=options.rule,
        params=rule_params(options),
        include=options.include,
        exclude=options.exclude,
        dtype=options.dtype,
        method=options.method,
        method_params=options.param,
        shrinker=options.shrinker,
    )


def repair_plans(options: argparse.Namespace) -> list[RepairPlan]:
    """Return the plans that a list of methods describes; each once."""
    common = {"include": options.include, "exclude": options.exclude, "dtype": options.dtype}
    plans = [read_plan(text, **common) for text in (METHODS if options.methods is None else options.methods)]
    if not plans:
        raise MethodError(f"--methods names no method; there are {', '.join(METHODS)}")
    return list({plan.label: plan for plan in plans}.values())


def chosen_pair(options: argparse.Namespace) -> CheckpointPair:
    """Open both checkpoints, to be repaired."""
    return open_pair(options.base, options.tuned, options.include, options.exclude)


def seen_pair(options: argparse.Namespace) -> CheckpointPair:
    """Open both checkpoints, to be looked at: what would block a repair is a line on standard error."""
    pair = inspect_pair(options.base, options.tuned, options.include, options.exclude)
    if not pair.repairable:
        pair.refuse_blocked()
    for blocker in pair.blockers:
        print(f"warning: {blocker.sentence}", file=sys.stderr)
    return pair


def print_json(value: Any) -> None:
    """Print one JSON document, in plain ASCII: valid whatever the terminal's encoding."""
    sys.stdout.write(json.dumps(json_number(value), indent=2, allow_nan=False) + "\n")


def print_columns(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table with aligned columns."""
    table = [titles, *rows]
    widths = [max(len(str(row[column])) for row in table) for column in range(len(titles) - 1)]
    for row in table:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1], sep="  ")
