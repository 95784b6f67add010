"""The stages on the command line: ``python -m dgviz COMMAND``.

One module per command, with a function ``run(options)``; what a command takes is in `dgviz.command.GRAMMAR`. Results
go to standard output (``--json`` for machines), progress to standard error. Exit status: 0 done, 2 unusable input
(one line on standard error), 130 interrupted, 1 another failure.
"""

import gc
import importlib
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

import dgviz
from dgviz.command import Form, find_form, overview
from dgviz.errors import DgvizError, printable

USUAL = gc.get_threshold()
"""How often cyclic garbage is looked for, unless somebody says otherwise."""
_HELP = "--h", "-h"  # what every way to ask for help begins with


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names are Unicode, terminals need not be
    with redirect_stdout(_Terminal(sys.stdout)), redirect_stderr(_Terminal(sys.stderr)):
        return _run(arguments)


def run_process() -> int:
    """Run the command that a process was started for and return its exit status.

    Cyclic garbage is looked for seldom, and at the end not at all: with what large libraries create when they are
    imported, the usual intervals cost a short command a third of its time.
    """
    gc.set_threshold(100_000)
    try:
        return main()
    finally:
        gc.freeze()


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
        asked = any(word.startswith(_HELP) for word in rest)
        options = form.parser(*_registered(form) if asked else ()).parse_args(rest)
        if hasattr(options, "override") and options.plan:
            from dgviz.cli.options import take_plan

            take_plan(options, form)
        options.outputs = form.outputs(options)
        if hasattr(options, "base") and hasattr(options, "device") and not getattr(options, "ray", None):
            from dgviz.repair.hire import check_device

            check_device(options.device)  # a cluster's nodes have their own, as the harness of `evaluate` has
        with _logged("error" if options.quiet else options.log_level):
            return importlib.import_module(f"dgviz.cli.{name.replace('-', '_')}").run(options)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        _complain(title, "interrupted")
        return 130  # as a shell says of what the signal has ended
    except (DgvizError, OSError) as error:
        _complain(title, error)
        return error.exit_status if isinstance(error, DgvizError) else 1


def _complain(title: str, error: object) -> None:
    """Print an error as one line."""
    print(printable(f"{title}: {error}"), file=sys.stderr)


@contextmanager
def _logged(level: str) -> Iterator[None]:
    """Say on standard error what is logged on the way, from a level on; of debug, also where an error came from."""
    log, handler = logging.getLogger("dgviz"), _Lines()
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(level.upper())
    try:
        yield
    except Exception:
        log.debug("where it came from:", exc_info=True)
        raise
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])


class _Lines(logging.Handler):
    """Records as lines of their kind, a traceback below; where standard error is now."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        kind = getattr(record, "kind", record.levelname.lower())
        print(printable(f"{kind}: {record.getMessage()}"), file=sys.stderr)
        if record.exc_info:
            print("".join(traceback.format_exception(*record.exc_info)), file=sys.stderr, end="")


def _registered(form: Form) -> tuple[dict[str, str], str]:
    """Return the names that the help of some arguments lists, and below it a line for each that the command takes."""
    import dgviz.demo.backend  # noqa: F401  (the demo among the evaluators)
    from dgviz.export import FORMATS
    from dgviz.repair.methods import METHODS
    from dgviz.rmt.shrinkage import SHRINKERS
    from dgviz.rmt.threshold import RULES
    from dgviz.scores.evaluate import BACKENDS
    from dgviz.scores.recovery import AVERAGES, COMBINATIONS

    lists = {"rules": RULES, "methods": METHODS, "shrinkers": SHRINKERS}
    flags = {argument.flag.rstrip("s").lstrip("-") + "s" for argument in form.arguments}
    notes = "\n\n".join(_described(name, registry) for name, registry in lists.items() if name in flags)
    lists |= {"averages": AVERAGES, "combinations": COMBINATIONS}
    return {name: ", ".join(registry) for name, registry in lists.items()} | {
        "formats": "; ".join(map(": ".join, FORMATS.items())),
        "backends": "; ".join(f"{name}: {backend.title}" for name, backend in BACKENDS.items()),
    }, notes


def _described(name: str, registry: Mapping[str, Any]) -> str:
    """Return one line per rule, method or shrinker: what it is, and its parameters."""
    width = max(map(len, registry))
    lines = [f"{name}:"]
    for item in registry.values():
        taken = ", ".join(parameter.name for parameter in getattr(item, "parameters", ()))
        lines.append(f"  {item.name:{width}}  {item.title}{f' ({taken})' if taken else ''}")
    return "\n".join(lines)
