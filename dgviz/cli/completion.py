"""``completion``: a script that completes commands, options and their values in a shell."""

import argparse
from typing import Any

import shtab

from dgviz.command import GRAMMAR
from dgviz.repair.methods import METHODS
from dgviz.rmt.shrinkage import SHRINKERS
from dgviz.rmt.threshold import RULES

_NAMED = {"rule": RULES, "method": METHODS, "shrinker": SHRINKERS}
_FOLDERS = {"out", "directory", "files", "tables", "base", "tuned", "task_path"}


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    parser = argparse.ArgumentParser(prog="dgviz")
    commands = parser.add_subparsers()
    for form in GRAMMAR.values():
        own = commands.add_parser(form.name, help=form.help)
        form.add_to(own, {})
        for action in own._actions:
            _tell(action)
    print(shtab.complete(parser, options.shell))
    return 0


def _tell(action: Any) -> None:
    """Say of an argument what it can be: registered names, folders or files."""
    if action.dest in _NAMED:
        action.choices = list(_NAMED[action.dest])
    elif action.dest in _FOLDERS:
        action.complete = shtab.DIRECTORY
    elif action.metavar == "FILE":
        action.complete = shtab.FILE
