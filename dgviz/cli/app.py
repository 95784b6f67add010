"""``app``: open the dashboard."""

import argparse

from dgviz.errors import PairError


def add_command(commands: "argparse._SubParsersAction") -> None:
    """Add the command to the grammar."""
    app = commands.add_parser("app", help="open the dashboard in the browser")
    app.add_argument("base", nargs="?", metavar="BASE", help="base checkpoint to open it on (default: the demo)")
    app.add_argument("tuned", nargs="?", metavar="TUNED", help="its fine-tuned descendant")
    app.add_argument("--port", type=int, metavar="N", help="port to listen on (default: the first free from 8501)")
    app.add_argument("--no-browser", action="store_true", help="print the address and open no browser")
    app.set_defaults(run=_app)


def _app(options: argparse.Namespace) -> int:
    """Serve the dashboard until it is interrupted."""
    from dgviz.app.launch import serve

    if options.base and not options.tuned:
        raise PairError(f"only BASE is given ({options.base}): give TUNED too, or neither to begin with the demo")
    serve(options.base, options.tuned, options.port, browser=not options.no_browser)
    return 0
