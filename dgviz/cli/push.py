"""``push``: upload a finished output to the Hugging Face Hub."""

import argparse
from pathlib import Path

from dgviz.cli.options import print_json
from dgviz.export.push import push


def add_command(commands: "argparse._SubParsersAction") -> None:
    """Add the command to the grammar."""
    parser = commands.add_parser("push", help="upload a finished output to the Hugging Face Hub")
    parser.add_argument("out", metavar="OUT", help="what repair has written")
    parser.add_argument("repository", metavar="ORG/NAME", help="a new or empty repository")
    parser.add_argument("--private", action="store_true", help="visible to its members only")
    parser.add_argument("--json", action="store_true", help="machine-readable result on standard output")
    parser.set_defaults(run=_push)


def _push(options: argparse.Namespace) -> int:
    """Upload."""
    address = push(Path(options.out).expanduser(), options.repository, options.private)
    if options.json:
        print_json({"out": options.out, "address": address})
    else:
        print(f"uploaded {options.out} to {address}")
    return 0
