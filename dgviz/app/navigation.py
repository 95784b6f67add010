"""The pages of the dashboard: their addresses, titles and icons, and how one leads to another."""

import importlib
from collections.abc import Callable

import streamlit as st

_PAGES = {
    "checkpoints": ("Checkpoints", ":material/folder_open:"),
    "workbench": ("Workbench", ":material/dashboard:"),
    "model": ("Model", ":material/apps:"),
    "layer": ("Layer", ":material/grid_on:"),
    "thresholds": ("Thresholds", ":material/stacked_line_chart:"),
    "methods": ("Methods", ":material/compare:"),
    "family": ("Families", ":material/account_tree:"),
    "recovery": ("Recovery", ":material/healing:"),
    "export": ("Export", ":material/save:"),
}
"""By address: title and icon. The first is where a bare URL leads."""


def show(name: str) -> None:
    """Draw a page; its module is loaded when it is first shown."""
    importlib.import_module(f"dgviz.app.views.{name}").draw()


def page(name: str) -> st.Page:
    """Return a page by its address, for links, switches and the menu."""
    title, icon = _PAGES[name]
    return st.Page(_shower(name), title=title, icon=icon, url_path=name, default=name == next(iter(_PAGES)))


def navigate() -> st.Page:
    """Draw the menu and return the page that the URL names."""
    return st.navigation([page(name) for name in _PAGES])


def _shower(name: str) -> Callable[[], None]:
    """Return what shows a page, under the page's own name."""

    def shower() -> None:
        show(name)

    shower.__name__ = name
    return shower
