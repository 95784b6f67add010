"""``spectrum``: singular values and threshold of one weight's update."""

import argparse

from dgviz.cli.options import NUMBERS, print_json, rule_params, seen_pair


def run(options: argparse.Namespace) -> int:
    """Print one weight's spectrum and threshold."""
    from dgviz.spectra.scan import spectrum_report

    params = rule_params(options)
    report = spectrum_report(seen_pair(options), options.tensor, options.rule, params, options.device)
    if options.json:
        print_json(report)
        return 0
    for name in ("name", "shape", "beta", *NUMBERS, "mp_fit", "route", "warnings"):
        print(f"{name:12}  {report[name]}")
    return 0
