"""``spectrum``: singular values and threshold of one weight's update."""

import argparse
from typing import Any

from dgviz.analysis.lens import Token, read_directions
from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.layout import label
from dgviz.cli.options import NUMBERS, print_result, rule_plan, seen_pair
from dgviz.errors import printable
from dgviz.figures.picture import Picture
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.directions import Directions
from dgviz.spectra.weight import find_matrices, find_weight


def run(options: argparse.Namespace) -> int:
    """Print the spectrum and threshold of every matrix of a tensor."""
    from dgviz.spectra.scan import spectrum_report

    pair = seen_pair(options)
    plan = rule_plan(options, pair)
    report = spectrum_report(pair, options.tensor, plan.rule, plan.params, options.device, plan.rule_of)
    if options.lens:
        _read(pair, report, options)
    if options.figure:
        _draw(pair, plan, options)
    print_result(options, report, lambda: _print(report))
    return 0


def _read(pair: CheckpointPair, report: dict[str, Any], options: argparse.Namespace) -> None:
    """Put directions, as tokens of base, into the report of every matrix."""
    from dgviz.spectra.open_weight import OpenWeight

    numbers, known = Directions.parse(options.lens).kept, {}
    for row, weight in zip(report["matrices"], find_matrices(pair, options.tensor), strict=True):
        found = read_directions(pair.base, OpenWeight(weight, options.device), numbers, known)
        row["lens"] = [reading.to_json() for reading in found]


def _draw(pair: CheckpointPair, plan: RepairPlan, options: argparse.Namespace) -> None:
    """Write Figure 4 of the one matrix that is asked for."""
    from dgviz.figures.figure4.draw import draw_figure4

    weight = find_weight(pair, options.tensor)
    sides = pair.base.path.name, pair.tuned.path.name
    Picture(draw_figure4(weight, plan, sides, options.device)).save(options.figure)


def _print(report: dict[str, Any]) -> None:
    """Print every matrix of the tensor, a figure a line."""
    for number, row in enumerate(report["matrices"]):
        index = None if len(report["matrices"]) == 1 else number
        print(f"{'name':12}  {label(report['name'], index)}\n{'shape':12}  {report['shape']}")
        for name in ("beta", *NUMBERS, "mp_fit", "route", "warnings"):
            print(f"{name:12}  {row[name]}")
        for reading in row.get("lens", ()):
            print(f"direction {reading['number']}: {reading['side']}, which it {reading['role']}, against ", end="")
            print(f"{printable(reading['through'])}; {reading['sentence']}")
            for sign, end in (("+", reading["plus"]), ("-", reading["minus"])):
                tokens = " ".join(str(Token(**token)) for token in end)
                print(f"{sign + reading['side']:12}  {printable(tokens)}")
