"""What commands have in common: arguments about a pair and a rule, and how results are printed."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from dgviz.checkpoint import CheckpointPair, inspect_pair, open_pair
from dgviz.errors import MethodError, ThresholdError
from dgviz.files import json_number
from dgviz.repair.methods.registry import METHODS
from dgviz.repair.plan import OUTPUT_DTYPES, RepairPlan, read_plan
from dgviz.rmt.shrinkage import SHRINKERS
from dgviz.rmt.threshold import RULES, find_rule

NUMBERS = "rank", "tau", "sigma", "edge", "energy_kept"
"""What a threshold says of a matrix, in the order printed."""


def add_pair(parser: argparse.ArgumentParser) -> None:
    """Add what every command on a pair takes."""
    parser.add_argument("base", metavar="BASE", help="checkpoint before fine-tuning")
    parser.add_argument("tuned", metavar="TUNED", help="checkpoint after fine-tuning")
    parser.add_argument("--include", metavar="RE", help="repair only tensors whose name matches")
    parser.add_argument("--exclude", metavar="RE", help="keep tuned's bytes of tensors whose name matches")
    parser.add_argument("--json", action="store_true", help="machine-readable result on standard output")


def add_rule(parser: argparse.ArgumentParser) -> None:
    """Add the threshold rule and the device."""
    parser.add_argument("--rule", default="dg_hard", metavar="R", help=f"threshold rule: {', '.join(RULES)}")
    parser.add_argument(
        "--rule-param", action="append", default=[], metavar="K=V", help="a parameter of the rule, e.g. tau=0.5"
    )
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1 ...")


def add_method(parser: argparse.ArgumentParser) -> None:
    """Add the repair method and what it writes, for commands that also take a rule."""
    parser.add_argument("--method", default="dg_hard", metavar="M", help=f"repair method: {', '.join(METHODS)}")
    parser.add_argument(
        "--param", action="append", default=[], metavar="K=V", help="a parameter of the method, e.g. alpha=0.5"
    )
    parser.add_argument("--shrinker", default="hard", metavar="S", help=f"of kept values: {', '.join(SHRINKERS)}")
    parser.add_argument("--dtype", default="auto", choices=OUTPUT_DTYPES)


def add_methods(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add a list of methods, each with its settings."""
    parser.add_argument(
        "--methods",
        required=default is None,
        default=default,
        metavar="LIST",
        help="methods with commas between, each with its settings: wise_ft:alpha=0.3,dg_hard:shrinker=frobenius",
    )
    parser.add_argument("--dtype", default="auto", choices=OUTPUT_DTYPES)
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1 ...")


def rule_params(options: argparse.Namespace) -> dict[str, Any]:
    """Return the rule's parameters, defaults included."""
    return find_rule(options.rule).checked(_settings(options.rule_param, "--rule-param"))


def repair_plan(options: argparse.Namespace) -> RepairPlan:
    """Return the plan that the options of a repair describe."""
    return RepairPlan(
        rule=options.rule,
        params=rule_params(options),
        include=options.include,
        exclude=options.exclude,
        dtype=options.dtype,
        method=options.method,
        method_params=_settings(options.param, "--param"),
        shrinker=options.shrinker,
    )


def repair_plans(options: argparse.Namespace) -> list[RepairPlan]:
    """Return the plans that a list of methods describes; each once."""
    common = {"include": options.include, "exclude": options.exclude, "dtype": options.dtype}
    plans = [read_plan(text, **common) for text in options.methods.split(",") if text.strip()]
    if not plans:
        raise MethodError(f"--methods names no method; there are {', '.join(METHODS)}")
    return list({plan.label: plan for plan in plans}.values())


def _settings(items: Sequence[str], option: str) -> dict[str, str]:
    """Return the values of an option given several times, by name."""
    given = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise ThresholdError(f"{option} takes NAME=VALUE; got {item!r}")
        given[name] = value
    return given


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
