"""``spectrum``: singular values and threshold of one weight's update."""

import argparse

from dgviz.cli.options import NUMBERS, add_pair, add_rule, print_json, rule_params, seen_pair


def add_command(commands: "argparse._SubParsersAction") -> None:
    """Add the command to the grammar."""
    spectrum = commands.add_parser("spectrum", help="singular values and threshold of one weight's update")
    add_pair(spectrum)
    spectrum.add_argument("tensor", metavar="TENSOR", help="name of a tensor in both checkpoints")
    add_rule(spectrum)
    spectrum.set_defaults(run=_spectrum)


def _spectrum(options: argparse.Namespace) -> int:
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
