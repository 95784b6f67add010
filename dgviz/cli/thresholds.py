"""``thresholds``: rules side by side over a whole model, from what a scan has stored."""

import argparse
import dataclasses
import sys
from typing import Any

from dgviz.analysis.model_spectra import read_spectra
from dgviz.analysis.rules import comparison_report, cut_model, read_rule, rule_label
from dgviz.cli.options import print_columns, print_json, seen_pair
from dgviz.command import Command
from dgviz.errors import ThresholdError
from dgviz.repair.overrides import refuse_idle
from dgviz.repair.plan import RepairPlan, read_plan_file
from dgviz.rmt.threshold import RULES
from dgviz.words import some

_FITS = "residual_fit", "residual_own_fit", "noise_fit"
_NAMED = 10  # missing matrices that a terminal lists; --json has all


def run(options: argparse.Namespace) -> int:
    """Print the comparison; matrices that no scan has stored are named and make the status 1."""
    pair = seen_pair(options)
    common = {"include": options.include, "exclude": options.exclude, "overrides": tuple(options.override)}
    read = [read_rule(text) for text in options.rules]
    if options.plan:
        own = read_plan_file(options.plan)
        read.insert(0, RepairPlan(rule=own.rule, params=own.params, shrinker=own.shrinker))
    plans = list({rule_label(plan): dataclasses.replace(plan, **common) for plan in read}.values())
    if not plans:
        raise ThresholdError(f"--rules names no rule; there are {', '.join(RULES)}")
    for plan in plans[:1]:
        refuse_idle(plan, pair)
    spectra = read_spectra(pair)
    missing = [weight.name for weight in spectra.missing]
    report: dict[str, Any] = {"rules": [], "agreement": None}
    if spectra.weights:
        report = comparison_report([cut_model(spectra.weights, plan) for plan in plans])
    if options.json:
        print_json({**report, "missing": missing})
    elif spectra.weights:
        _print_report(report)
    if missing:
        total = len(missing) + len(spectra.weights)
        scan = Command("scan", base=options.base, tuned=options.tuned)
        what = f"no spectrum of {len(missing)} of {total} matrices is stored, so the comparison is without them"
        print(f"dgviz thresholds: {what}: {some(missing, _NAMED)}; first run: {scan}", file=sys.stderr)
    return 1 if missing else 0


def _print_report(report: dict[str, Any]) -> None:
    """Print a row per rule, and how often every two decide alike."""
    fits = "dropped MP-fit", "without zeros", "of noise"
    titles = "kept parameters", "of all", "energy", *fits, "median rank", "emptied", "unchanged", "rule"
    rows = [
        (
            f"{row['kept_parameters']:,}",
            f"{100 * row['kept_share']:.2f} %",
            f"{100 * row['energy_kept']:.2f} %",
            *("-" if row[name] is None else f"{row[name]:.2f}" for name in _FITS),
            f"{100 * row['rank_share']['median']:.2f} %",
            str(row["emptied"]),
            str(row["unchanged"]),
            row["label"],
        )
        for row in report["rules"]
    ]
    print_columns(titles, rows)
    labels, *shares = (report["agreement"][key] for key in ("labels", "directions", "same_rank"))
    pairs = [(i, j) for i in range(len(labels)) for j in range(i)]
    if pairs:
        print()
        cells = [
            (*(f"{100 * share[i][j]:.2f} %" for share in shares), f"{labels[j]} and {labels[i]}") for i, j in pairs
        ]
        print_columns(("directions alike", "weights of one rank", "rules"), cells)
