"""Figure 4 of one weight as a Streamlit component: tau and seven panels, followed live in the browser.

The page passes singular values, the rule's threshold and the pooled maps once; every number and the spectrum-space
panels then follow tau in the browser without a message. On release the component reports tau, the page runs again and
passes entry-space panels at the new rank.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import streamlit as st

from dgviz.figures.figure4.component import markup, script, style, window_of
from dgviz.figures.figure4.maps import Window
from dgviz.figures.figure4.payload import figure4_payload, start_tau

__all__ = [
    "asked_direction",
    "asked_window",
    "decided_direction",
    "figure4_payload",
    "map_order",
    "opened_weight",
    "pictures_saved",
    "released_tau",
    "selected_names",
    "start_tau",
    "waits_for_rest",
    "wants_twin",
    "workbench",
]


@cache
def _component() -> Callable[..., Any]:
    """Return the mounting command, registered once per process."""
    return st.components.v2.component("dgviz_workbench", html=markup(), css=style(), js=script())


def workbench(
    key: str,
    payload: bytes,
    on_release: Callable[[], None] = lambda: None,
    on_open: Callable[[], None] = lambda: None,
    on_decide: Callable[[], None] = lambda: None,
) -> None:
    """Draw the model's map and, beside it, all of Figure 4 of one weight; see `figure4_payload`."""
    states = ("asked", "twin", "direction", "window", "pooling", "selected", "order", "pictured")
    changes = {f"on_{name}_change": lambda: None for name in states}
    changes |= {"on_opened_change": on_open, "on_decided_change": on_decide}
    _component()(key=key, data=payload, on_released_change=on_release, **changes)


def wants_twin(key: str, view: str) -> bool:
    """Return whether noise was asked for in the place of the update of a view."""
    asked = _state(key).get("twin")
    return bool(asked) and asked["view"] == view


def asked_direction(key: str, weight: str) -> int:
    """Return the number of the direction that was clicked on a weight, 0 where none is open."""
    asked = _state(key).get("direction") or {}
    return int(asked["number"]) if asked.get("weight") == weight else 0


def decided_direction(key: str, weight: str) -> tuple[int, str] | None:
    """Return the direction of a weight that was decided about last, and whether to keep, drop or leave it."""
    decided = _state(key).get("decided") or {}
    return (int(decided["number"]), str(decided["decision"])) if decided.get("weight") == weight else None


def pictures_saved(key: str) -> int:
    """Return how many pictures the browser was given and has saved."""
    return int((_state(key).get("pictured") or {}).get("number", 0))


def asked_window(key: str, weight: str, shape: tuple[int, int]) -> Window:
    """Return the part of a weight that is looked at, and how its blocks are pooled."""
    return window_of(_state(key).get("window") or {}, _state(key).get("pooling") or {}, weight, shape)


def map_order(key: str) -> str:
    """Return how the cells of the map are to be ordered."""
    return str((_state(key).get("order") or {}).get("order", "layers"))


def selected_names(key: str) -> list[str]:
    """Return the tensors that are selected on the map."""
    return [str(name) for name in (_state(key).get("selected") or {}).get("names", ())]


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
