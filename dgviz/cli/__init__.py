"""The stages on the command line: ``python -m dgviz COMMAND``.

One module per command, with a function ``run(options)``; what a command takes is in `dgviz.command.GRAMMAR`. Results
go to standard output (``--json`` for machines), progress to standard error. Exit status: 0 done, 2 unusable input
(one line on standard error), 1 failure.
"""

import importlib
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, TextIO

import dgviz
from dgviz.command import find_form, overview
from dgviz.errors import DgvizError, printable

_HELP = "--h", "-h"  # what every way to ask for help begins with


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names are Unicode, terminals need not be
    with redirect_stdout(_Terminal(sys.stdout)), redirect_stderr(_Terminal(sys.stderr)):
        return _run(arguments)


class _Terminal:
    """A stream on which names cannot act: what is no text, line break or tabulator is escaped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        return self._stream.write(_ACTING.sub(lambda found: printable(found[0]), text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_ACTING = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def _run(arguments: Sequence[str] | None) -> int:
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name.startswith(_HELP):
        print(f"usage: dgviz COMMAND ...\n\n{dgviz.__doc__}\n\n{overview()}\ndgviz COMMAND --help tells more.")
        return 0
    if name == "--version":
        print(f"dgviz {dgviz.__version__}")
        return 0
    title = "dgviz"
    try:
        form = find_form(name)
        title = f"dgviz {name}"
        options = form.parser(_registered() if any(word.startswith(_HELP) for word in rest) else {}).parse_args(rest)
        if hasattr(options, "override") and options.plan:
            from dgviz.cli.options import take_plan

            take_plan(options, form)
        return importlib.import_module(f"dgviz.cli.{name.replace('-', '_')}").run(options)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (DgvizError, OSError, KeyboardInterrupt) as error:
        _complain(title, "interrupted" if isinstance(error, KeyboardInterrupt) else error)
        return error.exit_status if isinstance(error, DgvizError) else 1


def _complain(title: str, error: object) -> None:
    """Print an error as one line."""
    print(printable(f"{title}: {error}"), file=sys.stderr)


def _registered() -> dict[str, str]:
    """Return the names that the help of some arguments lists."""
    import dgviz.demo.backend  # noqa: F401  (the demo among the evaluators)
    from dgviz.export import FORMATS
    from dgviz.repair.methods import METHODS
    from dgviz.rmt.shrinkage import SHRINKERS
    from dgviz.rmt.threshold import RULES
    from dgviz.scores.evaluate import BACKENDS
    from dgviz.scores.recovery import AVERAGES, COMBINATIONS

    lists = {"rules": RULES, "methods": METHODS, "shrinkers": SHRINKERS}
    lists |= {"averages": AVERAGES, "combinations": COMBINATIONS}
    return {name: ", ".join(registry) for name, registry in lists.items()} | {
        "formats": "; ".join(map(": ".join, FORMATS.items())),
        "backends": "; ".join(f"{name}: {backend.title}" for name, backend in BACKENDS.items()),
    }
