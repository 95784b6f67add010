"""The stages on the command line: ``python -m dgviz COMMAND``.

One module per command. Results go to standard output (``--json`` for machines), progress to standard error. Exit
status: 0 done, 2 unusable input (one line on standard error), 1 failure.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

import dgviz
from dgviz.cli import (
    app,
    compare,
    demo,
    evaluate,
    family,
    fetch,
    inspect,
    noise,
    push,
    recovery,
    repair,
    repair_all,
    scan,
    spectrum,
    sweep,
    thresholds,
)
from dgviz.errors import DgvizError

_COMMANDS = (
    app,
    fetch,
    inspect,
    spectrum,
    scan,
    noise,
    thresholds,
    family,
    repair,
    repair_all,
    compare,
    sweep,
    push,
    evaluate,
    recovery,
    demo,
)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Print one line and leave with status 2."""
        line = f"{self.prog}: {message}; see {self.prog} --help".replace("\n", "\\n")
        self.exit(2, line + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names are Unicode, terminals need not be
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except DgvizError as error:
        _complain(options.command, error)
        return error.exit_status
    except KeyboardInterrupt:
        print(f"dgviz {options.command}: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        _complain(options.command, error)
        return 1


def _complain(command: str, error: Exception) -> None:
    """Print an error as one line: names may hold line breaks."""
    print(f"dgviz {command}: {error}".replace("\n", "\\n"), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = _Parser(prog="dgviz", description=dgviz.__doc__)
    parser.add_argument("--version", action="version", version=f"dgviz {dgviz.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_command(commands)
    return parser
