"""``spectrum``: singular values and threshold of one weight's update."""

import argparse
import functools
from typing import Any

from dgviz.checkpoint.layout import label
from dgviz.cli.options import NUMBERS, own_rule, print_result, rule_plan, seen_pair


def run(options: argparse.Namespace) -> int:
    """Print the spectrum and threshold of every matrix of a tensor."""
    from dgviz.spectra.scan import spectrum_report

    pair = seen_pair(options)
    plan = rule_plan(options, pair)
    own = functools.partial(own_rule, plan)
    report = spectrum_report(pair, options.tensor, plan.rule, plan.params, options.device, own)
    print_result(options, report, lambda: _print(report))
    return 0


def _print(report: dict[str, Any]) -> None:
    """Print every matrix of the tensor, a figure a line."""
    for number, row in enumerate(report["matrices"]):
        index = None if len(report["matrices"]) == 1 else number
        print(f"{'name':12}  {label(report['name'], index)}\n{'shape':12}  {report['shape']}")
        for name in ("beta", *NUMBERS, "mp_fit", "route", "warnings"):
            print(f"{name:12}  {row[name]}")
