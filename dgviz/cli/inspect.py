"""``inspect``: what would happen to every tensor of a pair, and what is surprising about it."""

import argparse
import sys

from dgviz.checkpoint import CheckpointPair, Notice, Preflight, PreflightRow, inspect_pair, read_preflight
from dgviz.cli.options import print_columns, print_json
from dgviz.words import size

_TITLES = {"blocks": "BLOCKS", "warning": "warning", "info": "note"}


def run(options: argparse.Namespace) -> int:
    """Print the preflight; the status is 2 where something blocks a repair."""
    pair = inspect_pair(options.base, options.tuned, options.include, options.exclude)
    preflight = read_preflight(pair)
    if options.json:
        print_json(preflight.to_json())
    else:
        _print_preflight(pair, preflight)
    for blocker in pair.blockers:
        print(f"dgviz inspect: {blocker.sentence}", file=sys.stderr)
    return 2 if pair.blockers else 0


def _print_preflight(pair: CheckpointPair, preflight: Preflight) -> None:
    """Print the totals in words, the notices, and one line per tensor."""
    print(preflight.summary)
    for title, side in (("base", pair.base), ("tuned", pair.tuned)):
        dtypes = ", ".join(dict.fromkeys(info.dtype for info in side.tensors.values()))
        print(f"{title:6}{side.path}: {len(side.tensors)} tensors, {size(side.nbytes)}, {dtypes}")
    for notice in preflight.notices:
        print(_notice(notice))
    print()
    print_columns(("action", "shape", "dtype", "bytes", "name", "reason"), map(_cells, preflight.rows))
    print("\n" + ", ".join(f"{count} {action}" for action, count in pair.counts().items()))


def _notice(notice: Notice) -> str:
    """Return a notice and its remedy, one below the other."""
    return f"\n{_TITLES[notice.severity]}: {notice.message}\n    {notice.remedy}"


def _cells(row: PreflightRow) -> tuple[str, ...]:
    """Return a row of the table; where the two sides differ, base's shape and dtype come first."""
    sides = [side for side in (row.base, row.tuned) if side is not None]
    shapes = dict.fromkeys(" x ".join(map(str, side.shape)) or "scalar" for side in sides)
    dtypes = dict.fromkeys(side.dtype for side in sides)
    return row.action, " -> ".join(shapes), " -> ".join(dtypes), str(row.side.nbytes), row.name, row.reason
