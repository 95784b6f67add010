"""Figure 4 of one weight as a Streamlit component: tau and seven panels, followed live in the browser.

The page passes singular values, the rule's threshold and the pooled maps once; every number and the spectrum-space
panels then follow tau in the browser without a message. On release the component reports tau, the page runs again and
passes entry-space panels at the new rank.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from dgviz.figures.figure4 import payload
from dgviz.figures.figure4.payload import figure4_payload, start_tau

__all__ = [
    "figure4_payload",
    "opened_weight",
    "released_tau",
    "start_tau",
    "waits_for_rest",
    "wants_twin",
    "workbench",
]

_HERE = Path(payload.__file__).parent
# One ES module: pure mathematics first, then drawing, then the controls.
_SCRIPTS = (
    "math.js",
    "paint.js",
    "panels.js",
    "figure4.js",
    "spectrum.js",
    "model.js",
    "compare.js",
    "workbench.js",
)


def script() -> str:
    """Return the JavaScript of the component, one module from its files."""
    return _text(*_SCRIPTS)


def _text(*names: str) -> str:
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in names)


@cache
def _component() -> Callable[..., Any]:
    """Return the mounting command, registered once per process."""
    css = _text("figure4.css", "workbench.css")
    return st.components.v2.component("dgviz_workbench", html=_text("workbench.html"), css=css, js=script())


def workbench(
    key: str,
    payload: bytes,
    on_release: Callable[[], None] = lambda: None,
    on_open: Callable[[], None] = lambda: None,
) -> None:
    """Draw the model's map and, beside it, all of Figure 4 of one weight; see `figure4_payload`."""
    changes = {f"on_{name}_change": lambda: None for name in ("asked", "twin")}
    changes["on_opened_change"] = on_open
    _component()(key=key, data=payload, on_released_change=on_release, **changes)


def wants_twin(key: str, view: str) -> bool:
    """Return whether noise was asked for in the place of the update of a view."""
    asked = _state(key).get("twin")
    return bool(asked) and asked["view"] == view


def opened_weight(key: str) -> str:
    """Return the weight whose cell was clicked last on the map, empty before the first click."""
    return str((_state(key).get("opened") or {}).get("weight", ""))


def released_tau(key: str, view: str) -> float | None:
    """Return the tau last released on a view, None before the first release or when it belongs to another view."""
    released = _state(key).get("released")
    return float(released["tau"]) if released and released["view"] == view else None


def waits_for_rest(key: str, view: str) -> bool:
    """Return whether the figure of a view is on the screen without its lower row, and has asked for it."""
    asked = _state(key).get("asked")
    return bool(asked) and asked["view"] == view


def _state(key: str) -> dict[str, Any]:
    """Return the component's state, empty before it was mounted."""
    return dict(st.session_state.get(key) or {})
