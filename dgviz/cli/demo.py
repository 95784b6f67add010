"""``demo``: write the built-in pair out."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from dgviz.cli.options import print_result
from dgviz.cli.progress import shows_bars
from dgviz.demo import DemoEvent


def run(options: argparse.Namespace) -> int:
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
    print_result(options, paths, lambda: print(*(f"{name:9}{path}" for name, path in paths.items()), sep="\n"))
    return 0


def _make(desc: str, events: Iterator[DemoEvent], directory: str) -> dict[str, Path]:
    """Make the demo anew with a progress bar; return where it is."""
    from dgviz import demo

    with tqdm(unit="step", desc=desc, file=sys.stderr, disable=not shows_bars()) as bar:
        for event in events:
            bar.total = event.total
            bar.set_postfix_str(event.message, refresh=False)
            bar.update(event.done - bar.n)
    return demo.demo_files(directory)
