"""``inspect``: what would happen to every tensor of a pair, and what is surprising about it."""

import argparse

from dgviz.checkpoint import CheckpointPair, Preflight, PreflightRow, inspect_pair, read_preflight
from dgviz.checkpoint.remote.record import address_of
from dgviz.cli.options import print_columns, print_json, warn
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
    warn((blocker.sentence for blocker in pair.blockers), "dgviz inspect")
    return 2 if pair.blockers else 0


def _print_preflight(pair: CheckpointPair, preflight: Preflight) -> None:
    """Print the totals in words, the notices, and one line per tensor."""
    print(preflight.summary)
    for title, side in (("base", pair.base), ("tuned", pair.tuned)):
        dtypes = ", ".join(dict.fromkeys(info.dtype for info in side.tensors.values()))
        where = address_of(side.path) or side.path
        print(f"{title:6}{where}: {len(side.tensors)} tensors, {size(side.nbytes)}, {dtypes}")
    totals = preflight.totals
    if totals.ratio is not None:
        sampled = ", sampled" if totals.sampled else ""
        lowest = f"lowest correlation {totals.correlation:.3f}"
        print(f"|tuned - base| / |base|: median {totals.ratio:.3g}, {lowest}{sampled}")
    for notice in preflight.notices:
        print(f"\n{_TITLES[notice.severity]}: {notice.message}\n    {notice.remedy}")
    print()
    titles = "action", "shape", "dtype", "bytes", "change", "corr", "name", "reason"
    print_columns(titles, map(_cells, preflight.rows))
    print("\n" + ", ".join(f"{count} {action}" for action, count in pair.counts().items()))


def _cells(row: PreflightRow) -> tuple[str, ...]:
    """Return a row of the table; where the two sides differ, base's shape and dtype come first."""
    sides = [side for side in (row.base, row.tuned) if side is not None]
    shapes = dict.fromkeys(" x ".join(map(str, side.shape)) or "scalar" for side in sides)
    dtypes = dict.fromkeys(side.dtype for side in sides)
    found = row.descent
    compared = ("", "") if found is None else (f"{found.ratio:.3g}", f"{found.correlation:.3f}")
    nbytes = str(row.side.nbytes)
    return row.action, " -> ".join(shapes), " -> ".join(dtypes), nbytes, *compared, row.name, row.reason
