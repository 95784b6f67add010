"""``demo``: write the built-in pair out."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from dgviz.cli.options import print_json
from dgviz.demo import DemoEvent


def add_command(commands: "argparse._SubParsersAction") -> None:
    """Add the command to the grammar."""
    demo = commands.add_parser("demo", help="write the built-in pair out")
    demo.add_argument("directory", metavar="DIR", help="new or empty folder")
    kind = demo.add_mutually_exclusive_group()
    kind.add_argument("--train", action="store_true", help="train the checkpoints again instead of copying them")
    kind.add_argument("--scores", action="store_true", help="score the checkpoints and all repairs again")
    kind.add_argument("--figure4", action="store_true", help="one 8192 x 3072 weight with 30 planted directions")
    demo.add_argument("--json", action="store_true", help="machine-readable result on standard output")
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    """Write the demo out, copied or made anew."""
    from dgviz import demo

    if options.train:
        written = _make("train", demo.train_demo(options.directory), options.directory)
    elif options.scores:
        written = _make("score", demo.score_demo(options.directory), options.directory)
    elif options.figure4:
        written = demo.write_figure4_pair(options.directory)
    else:
        written = demo.write_demo(options.directory)
    paths = {name: str(path) for name, path in written.items()}
    if options.json:
        print_json(paths)
    else:
        for name, path in paths.items():
            print(f"{name:9}{path}")
    return 0


def _make(desc: str, events: Iterator[DemoEvent], directory: str) -> dict[str, Path]:
    """Make the demo anew with a progress bar; return where it is."""
    from dgviz import demo

    with tqdm(unit="step", desc=desc, file=sys.stderr) as bar:
        for event in events:
            bar.total = event.total
            bar.set_postfix_str(event.message, refresh=False)
            bar.update(event.done - bar.n)
    return demo.demo_files(directory)
