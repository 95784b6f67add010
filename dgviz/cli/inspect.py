"""``inspect``: what would happen to every tensor of a pair."""

import argparse

from dgviz.cli.options import add_pair, chosen_pair, print_columns, print_json


def add_command(commands: "argparse._SubParsersAction") -> None:
    """Add the command to the grammar.

    Parameters
    ----------
    commands : argparse subparsers
        Of the whole command line.
    """
    inspect = commands.add_parser("inspect", help="what would happen to every tensor of a pair")
    add_pair(inspect)
    inspect.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    """Print every tensor's fate."""
    pair = chosen_pair(options)
    rows = []
    for item in pair.tensors:
        info = item.tuned or item.base
        rows.append(
            {
                "name": item.name,
                "shape": list(info.shape),
                "dtype": info.dtype,
                "action": item.action,
                "reason": item.reason,
            }
        )
    if options.json:
        print_json({"tensors": rows, "counts": pair.counts()})
        return 0
    print_columns(
        ("action", "shape", "dtype", "name", "reason"),
        [(r["action"], " x ".join(map(str, r["shape"])), r["dtype"], r["name"], r["reason"]) for r in rows],
    )
    print("\n" + ", ".join(f"{count} {action}" for action, count in pair.counts().items()))
    return 0
