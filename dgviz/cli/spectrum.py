"""``spectrum``: singular values and threshold of one weight's update."""

import argparse
from typing import Any

from dgviz.checkpoint.layout import label
from dgviz.cli.options import NUMBERS, print_result, rule_params, seen_pair


def run(options: argparse.Namespace) -> int:
    """Print the spectrum and threshold of every matrix of a tensor."""
    from dgviz.spectra.scan import spectrum_report

    params = rule_params(options)
    report = spectrum_report(seen_pair(options), options.tensor, options.rule, params, options.device)
    print_result(options, report, lambda: _print(report))
    return 0


def _print(report: dict[str, Any]) -> None:
    """Print every matrix of the tensor, a figure a line."""
    for number, row in enumerate(report["matrices"]):
        index = None if len(report["matrices"]) == 1 else number
        print(f"{'name':12}  {label(report['name'], index)}\n{'shape':12}  {report['shape']}")
        for name in ("beta", *NUMBERS, "mp_fit", "route", "warnings"):
            print(f"{name:12}  {row[name]}")
