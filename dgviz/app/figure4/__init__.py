"""Figure 4 of one weight as a Streamlit component: tau and six panels, followed live in the browser.

The page passes singular values, the rule's threshold and the pooled maps once; the slider, every number and the
spectrum-space panels then follow tau in the browser without a message. On release the component reports tau, the page
runs again and passes entry-space panels at the new rank.

The usual page (inside a fragment)::

    tau = released_tau("figure4", view)
    tau = start_tau(s, threshold) if tau is None else tau
    chart_tau = start_tau(s, threshold) if chart_follows("figure4") else tau
    st.plotly_chart(spectrum_plot(s, chart_tau, threshold.edge, log=True, view=view), config=plot_config("spectrum"))
    st.plotly_chart(spectrum_histogram(s, threshold.sigma, shape, chart_tau, threshold.edge, view=view))
    figure4("figure4", view, s, shape, threshold, tau=tau, rule=title, spectrum=spectrum, entries=entries)
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st
from numpy.typing import ArrayLike

from dgviz.figures.figure4 import payload
from dgviz.figures.figure4.maps import EntryPanels, SpectrumPanels
from dgviz.figures.figure4.payload import figure4_payload, start_tau
from dgviz.rmt.threshold import Threshold

__all__ = [
    "chart_follows",
    "figure4",
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
_SCRIPTS = ("math.js", "paint.js", "panels.js", "chart.js", "figure4.js")
_MOUNTS = {"layer": ("layer.js",), "workbench": ("spectrum.js", "model.js", "compare.js", "workbench.js")}


def script(place: str = "layer") -> str:
    """Return the JavaScript of the component at a place, one module from its files."""
    return _text(*_SCRIPTS, *_MOUNTS[place])


def _text(*names: str) -> str:
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in names)


@cache
def _component(place: str) -> Callable[..., Any]:
    """Return the mounting command, registered once per process."""
    if place == "layer":
        return st.components.v2.component(
            "dgviz_figure4", html=_text("figure4.html"), css=_text("figure4.css"), js=script(place)
        )
    css = _text("figure4.css", "workbench.css")
    return st.components.v2.component("dgviz_workbench", html=_text("workbench.html"), css=css, js=script(place))


def figure4(
    key: str,
    view: str,
    s: ArrayLike,
    shape: tuple[int, int],
    threshold: Threshold,
    *,
    tau: float | None = None,
    rule: str = "",
    spectrum: SpectrumPanels | None = None,
    entries: EntryPanels | None = None,
    nonzero_shape: tuple[int, int] | None = None,
    on_release: Callable[[], None] = lambda: None,
) -> None:
    """Draw Figure 4 of one weight: tau slider, numbers, MP-fit chips and panels (b) to (g)."""
    data = figure4_payload(
        view, s, shape, threshold, tau=tau, rule=rule, spectrum=spectrum, entries=entries, nonzero_shape=nonzero_shape
    )
    changes = {f"on_{name}_change": lambda: None for name in ("follows", "asked")}
    _component("layer")(key=key, data=data, on_released_change=on_release, **changes)


def workbench(
    key: str,
    payload: bytes,
    on_release: Callable[[], None] = lambda: None,
    on_open: Callable[[], None] = lambda: None,
) -> None:
    """Draw the model's map and, beside it, all of Figure 4 of one weight; see `figure4_payload`."""
    changes = {f"on_{name}_change": lambda: None for name in ("follows", "asked", "twin")}
    changes["on_opened_change"] = on_open
    _component("workbench")(key=key, data=payload, on_released_change=on_release, **changes)


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


def chart_follows(key: str) -> bool:
    """Return whether the browser can move tau in the charts of the spectrum itself."""
    return _state(key).get("follows") is not False


def _state(key: str) -> dict[str, Any]:
    """Return the component's state, empty before it was mounted."""
    return dict(st.session_state.get(key) or {})
