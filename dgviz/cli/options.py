"""What commands have in common: arguments about a pair and a rule, and how results are printed."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from dgviz.checkpoint import CheckpointPair, inspect_pair, open_pair
from dgviz.errors import ThresholdError
from dgviz.plan import json_number
from dgviz.threshold import RULES, find_rule

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


def rule_params(options: argparse.Namespace) -> dict[str, Any]:
    """Return the rule's parameters, defaults included."""
    given = {}
    for item in options.rule_param:
        name, equals, value = item.partition("=")
        if not equals:
            raise ThresholdError(f"--rule-param takes NAME=VALUE; got {item!r}")
        given[name] = value
    return find_rule(options.rule).checked(given)


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
