"""The places of the dashboard and their addresses."""

import importlib
from collections.abc import Callable

import streamlit as st

PLACES = {
    "open": ("Open", ":material/folder_open:"),
    "workbench": ("Workbench", ":material/dashboard:"),
    "evidence": ("Evidence", ":material/healing:"),
}
"""By name: title and icon. The first is where a bare URL leads."""

_LED = "led-to"


def show(name: str) -> None:
    """Draw a place; its module is loaded when it is first shown."""
    importlib.import_module(f"dgviz.app.views.{name}").draw()


def load_places() -> None:
    """Load all places, and what the first table and the first forecast need, before somebody waits for them."""
    for module in (*(f"dgviz.app.views.{name}" for name in PLACES), "pandas", "scipy.optimize"):
        importlib.import_module(module)


def page(name: str) -> st.Page:
    """Return a place by its name, for links, switches and the menu."""
    title, icon = PLACES[name]
    first = name == next(iter(PLACES))
    return st.Page(_shower(name), title=title, icon=icon, url_path=name, default=first)


def navigate() -> st.Page:
    """Draw the menu and return the page that the URL names; first go where a click leads."""
    chosen = st.navigation([page(name) for name in PLACES], position="top")
    if (led := st.session_state.pop(_LED, None)) is not None:
        st.switch_page(page(led))
    return chosen


def lead_to(name: str) -> None:
    """Go to a place when the script runs next: what a button's `on_click` calls.

    A run that another one cuts short, by its own rerun or a later click, takes the value of a button along that it
    has not come to; what a callback has noted stays.
    """
    st.session_state[_LED] = name


def _shower(name: str) -> Callable[[], None]:
    """Return what shows a page, under the page's own name."""

    def shower() -> None:
        show(name)

    shower.__name__ = name
    return shower
