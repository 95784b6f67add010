"""The places of the dashboard, their addresses, and where addresses of former pages lead."""

import importlib
from collections.abc import Callable

import streamlit as st

_PLACES = {
    "open": ("Open", ":material/folder_open:"),
    "workbench": ("Workbench", ":material/dashboard:"),
    "evidence": ("Evidence", ":material/healing:"),
}
"""By name: title and icon. The first is where a bare URL leads."""

MOVED = {
    "checkpoints": ("open", {}),
    "layer": ("workbench", {"show": ""}),
    "thresholds": ("workbench", {"show": "rules"}),
    "methods": ("workbench", {"show": "methods"}),
    "model": ("workbench", {"show": "model"}),
    "family": ("workbench", {"show": "family"}),
    "export": ("workbench", {"plan": "open"}),
    "recovery": ("evidence", {}),
}
"""Addresses of former pages: the place that has what they showed, and what is in view there."""


def show(name: str) -> None:
    """Draw a place; its module is loaded when it is first shown."""
    if name in MOVED:
        importlib.import_module("dgviz.app.views.moved").draw(name)
    else:
        importlib.import_module(f"dgviz.app.views.{name}").draw()


def page(name: str) -> st.Page:
    """Return a place by its name, for links, switches and the menu; or what answers at a former address."""
    if name in MOVED:
        title, icon = name.capitalize(), None
    else:
        title, icon = _PLACES[name]
    visibility = "hidden" if name in MOVED else "visible"
    first = name == next(iter(_PLACES))
    return st.Page(_shower(name), title=title, icon=icon, url_path=name, default=first, visibility=visibility)


def navigate() -> st.Page:
    """Draw the menu and return the page that the URL names."""
    return st.navigation([page(name) for name in (*_PLACES, *MOVED)], position="top")


def lead_on(name: str) -> None:
    """Switch from a former address to its place, the first time; before anything is written to the URL.

    Whatever is written there is an entry of the history, through which Back has to go.
    """
    if name not in MOVED or st.session_state.get(f"led-on-{name}"):
        return
    st.session_state[f"led-on-{name}"] = True
    place, changes = MOVED[name]
    query = st.query_params.to_dict() | changes
    st.switch_page(page(place), query_params={key: value for key, value in query.items() if value})


def _shower(name: str) -> Callable[[], None]:
    """Return what shows a page, under the page's own name."""

    def shower() -> None:
        show(name)

    shower.__name__ = name
    return shower
