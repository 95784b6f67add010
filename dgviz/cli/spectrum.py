"""``spectrum``: singular values and threshold of one weight's update."""

import argparse
from pathlib import Path
from typing import Any

from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.layout import label
from dgviz.cli.options import NUMBERS, print_result, rule_plan, seen_pair
from dgviz.errors import ExportError
from dgviz.files import write_file
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.weight import find_weight


def run(options: argparse.Namespace) -> int:
    """Print the spectrum and threshold of every matrix of a tensor."""
    from dgviz.spectra.scan import spectrum_report

    pair = seen_pair(options)
    plan = rule_plan(options, pair)
    report = spectrum_report(pair, options.tensor, plan.rule, plan.params, options.device, plan.rule_of)
    if options.figure:
        _draw(pair, plan, options)
    print_result(options, report, lambda: _print(report))
    return 0


def _draw(pair: CheckpointPair, plan: RepairPlan, options: argparse.Namespace) -> None:
    """Write Figure 4 of the one matrix that is asked for."""
    from dgviz.figures.figure4.draw import draw_figure4

    weight = find_weight(pair, options.tensor)
    sides = pair.base.path.name, pair.tuned.path.name
    file = Path(options.figure).expanduser()
    try:
        write_file(file, draw_figure4(weight, plan, sides, options.device).encode())
    except OSError as error:
        raise ExportError(f"{file} cannot be written: {error.strerror or error}; choose another --figure") from None


def _print(report: dict[str, Any]) -> None:
    """Print every matrix of the tensor, a figure a line."""
    for number, row in enumerate(report["matrices"]):
        index = None if len(report["matrices"]) == 1 else number
        print(f"{'name':12}  {label(report['name'], index)}\n{'shape':12}  {report['shape']}")
        for name in ("beta", *NUMBERS, "mp_fit", "route", "warnings"):
            print(f"{name:12}  {row[name]}")
