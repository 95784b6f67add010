"""``noise``: how noisy each class of weight and each third of the depth is, from what a scan has stored."""

import argparse
import sys

from dgviz.analysis.model_spectra import assess, read_spectra
from dgviz.analysis.noise_table import noise_csv, noise_table
from dgviz.cli.options import print_columns, print_json, rule_plan, seen_pair
from dgviz.command import Command
from dgviz.words import some


def run(options: argparse.Namespace) -> int:
    """Print the noise table; a matrix that no scan has stored is named and makes the status 1."""
    pair = seen_pair(options)
    plan = rule_plan(options, pair)
    params, spectra = plan.params, read_spectra(pair)
    table = noise_table([assess(matrix, *plan.rule_of(matrix.weight)) for matrix in spectra.weights])
    missing = [weight.name for weight in spectra.missing]
    if options.json:
        print_json({"rule": options.rule, "params": params, **table.to_json(), "missing": missing})
    elif options.csv:
        sys.stdout.write(noise_csv(table))
    else:
        for title, rows in (("class", table.classes), ("depth", (*table.thirds, table.whole))):
            shares = [(row.mean_noise, row.norm_share, row.product, row.dropped_share) for row in rows]
            cells = [
                (str(row.matrices), *(f"{100 * share:.2f} %" for share in own), row.group)
                for row, own in zip(rows, shares, strict=True)
            ]
            print_columns(("matrices", "mean noise", "norm share", "product", "dropped", title), cells)
            print()
    if missing:
        scan = Command("scan", base=options.base, tuned=options.tuned)
        what = f"no spectrum of {some(missing, 1)} is stored, so the table is without"
        print(f"dgviz noise: {what}; first run: {scan}", file=sys.stderr)
    return 1 if missing else 0
