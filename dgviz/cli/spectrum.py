"""``spectrum``: singular values and threshold of one weight's update."""

import argparse

from dgviz.cli.options import NUMBERS, print_result, rule_params, seen_pair


def run(options: argparse.Namespace) -> int:
    """Print one weight's spectrum and threshold."""
    from dgviz.spectra.scan import spectrum_report

    params = rule_params(options)
    report = spectrum_report(seen_pair(options), options.tensor, options.rule, params, options.device)
    lines = [
        f"{name:12}  {report[name]}" for name in ("name", "shape", "beta", *NUMBERS, "mp_fit", "route", "warnings")
    ]
    print_result(options, report, lambda: print(*lines, sep="\n"))
    return 0
