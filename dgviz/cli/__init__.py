"""The stages on the command line: ``python -m dgviz COMMAND``.

One module per command, with a function ``run(options)``; what a command takes is in `dgviz.command.GRAMMAR`. Results
go to standard output (``--json`` for machines), progress to standard error. Exit status: 0 done, 2 unusable input
(one line on standard error), 1 failure.
"""

import importlib
import sys
from collections.abc import Sequence

import dgviz
from dgviz.command import find_form, overview
from dgviz.errors import DgvizError

_HELP = "--h", "-h"  # what every way to ask for help begins with


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names are Unicode, terminals need not be
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
    """Print an error as one line: names may hold line breaks."""
    print(f"{title}: {error}".replace("\n", "\\n"), file=sys.stderr)


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
