"""``app``: open the dashboard."""

import argparse
import gc

from dgviz.cli import USUAL
from dgviz.errors import PairError


def run(options: argparse.Namespace) -> int:
    """Serve the dashboard until it is interrupted."""
    from dgviz.app.launch import serve

    gc.freeze()  # what was imported stays
    gc.set_threshold(*USUAL)  # a server lives long, and what pages leave behind is large
    if options.base and not options.tuned:
        raise PairError(f"only BASE is given ({options.base}): give TUNED too, or neither to begin with the demo")
    serve(
        options.base,
        options.tuned,
        options.port,
        options.address,
        browser=not options.no_browser,
        token=not options.no_token,
        hosts=options.allow_host,
        frame_ancestors=options.frame_ancestors,
    )
    return 0
