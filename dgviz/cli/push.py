"""``push``: upload a finished output to the Hugging Face Hub."""

import argparse
from pathlib import Path

from dgviz.cli.options import print_result
from dgviz.export.push import push


def run(options: argparse.Namespace) -> int:
    """Upload."""
    address = push(Path(options.out).expanduser(), options.repository, options.private)
    result = {"out": options.out, "address": address}
    print_result(options, result, lambda: print(f"uploaded {options.out} to {address}"))
    return 0
