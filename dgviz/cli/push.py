"""``push``: upload a finished output to the Hugging Face Hub."""

import argparse
from pathlib import Path

from dgviz.cli.options import print_json
from dgviz.export.push import push


def run(options: argparse.Namespace) -> int:
    """Upload."""
    address = push(Path(options.out).expanduser(), options.repository, options.private)
    if options.json:
        print_json({"out": options.out, "address": address})
    else:
        print(f"uploaded {options.out} to {address}")
    return 0
