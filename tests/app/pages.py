"""The dashboard in Streamlit's own test harness, and its pages by their addresses."""

from pathlib import Path

from streamlit.testing.v1 import AppTest

import dgviz.app

MAIN = Path(dgviz.app.__file__).with_name("main.py")


def open_app(timeout=300):
    """Return the dashboard, not run yet."""
    return AppTest.from_file(MAIN, default_timeout=timeout)


def turn_to(app, name):
    """Lead an app that has run to a page; `AppTest.switch_page` knows only pages that are files."""
    app._page_hash = next(key for key, page in app._registered_pages.items() if page.get("url_pathname") == name)
    return app
