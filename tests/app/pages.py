"""The dashboard in Streamlit's own test harness, and its places by their addresses."""

from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl

from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

import dgviz.app
from dgviz.app.family import split_others
from dgviz.app.recents import note_opened

MAIN = Path(dgviz.app.__file__).with_name("main.py")

# The harness asks every installed package for components, for every app: a third of the time of these tests.
manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)


def open_app(timeout=300):
    """Return the dashboard, not run yet."""
    return AppTest.from_file(MAIN, default_timeout=timeout)


def open_at(address, timeout=60, opened=True, **query):
    """Run the dashboard at an address, as a link does; more of its query may be given by name.

    Its pair has been opened here before, unless it is said otherwise.
    """
    app = open_app(timeout)
    page, _, more = address.partition("?")
    query = {**dict(parse_qsl(more)), **{name: str(value) for name, value in query.items()}}
    for name, value in query.items():
        app.query_params[name] = value
    if opened:
        for tuned in filter(None, (query.get("tuned"), *split_others(query.get("others", "")))):
            note_opened(query.get("base", ""), tuned)
    turn_to(app, page).run()
    app._page_hash = ""  # from now on the app stays where it has led to
    assert not app.exception, [error.value for error in app.exception]
    return app


def turn_to(app, address):
    """Lead an app to an address; `AppTest.switch_page` knows only pages that are files."""
    app._page_hash = calc_hash(address)
    return app


def texts(app):
    """Return everything that is said in words."""
    kinds = ("markdown", "text", "caption", "warning", "info", "error", "subheader", "code")
    return "\n".join(str(element.value) for kind in kinds for element in getattr(app, kind))
