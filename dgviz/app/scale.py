"""Which part of a place is shown, and the two scales of the workbench: one weight, or the whole model."""

from collections.abc import Mapping

import streamlit as st

from dgviz.app.state import View, change_view

WEIGHT_PARTS = {"spectrum": "Spectrum", "rules": "Rules", "methods": "Methods"}
"""What is drawn below a weight's Figure 4, by the view's `show`: one of them, or none."""

MODEL_PARTS = {"model": "Map", "model-rules": "Rules", "model-methods": "Methods", "family": "Fine-tunes"}
"""What is drawn of the whole model, by the view's `show`."""

EVIDENCE_PARTS = {
    "metrics": "Every metric",
    "panels": "Panels",
    "cohorts": "By cohort",
    "frontiers": "Frontiers",
    "benchmarks": "Every benchmark",
    "sizes": "Sizes of change",
    "tolerances": "Tolerances",
    "tables": "Paper's tables",
    "definitions": "Definitions",
}
"""What is drawn below the plane of recovery and preservation, by the view's `show`."""

_SCALES = ("Weight", "Model")


def on_model(view: View) -> bool:
    """Return whether the whole model is in view."""
    return view.show in MODEL_PARTS


def choose_scale(view: View) -> None:
    """Let the user choose between one weight and the whole model; each has the part of it that corresponds."""
    st.session_state["scale"] = _SCALES[on_model(view)]
    st.segmented_control(
        "Scale",
        _SCALES,
        key="scale",
        required=True,
        label_visibility="collapsed",
        on_change=lambda: change_view(show=_other(view.show)),
    )


def _other(show: str) -> str:
    """Return what corresponds on the other scale."""
    pairs = {"": "model", "spectrum": "model", "rules": "model-rules", "methods": "model-methods"}
    back = {"model-rules": "rules", "model-methods": "methods"}
    return back.get(show, "") if show in MODEL_PARTS else pairs.get(show, "model")


def choose_shown(view: View, parts: Mapping[str, str], required: bool = False) -> str:
    """Let the user choose a part; return the one that is in view: none, or the first where one is required."""
    shown = view.show if view.show in parts else next(iter(parts)) if required else ""
    st.session_state["shown"] = shown or None
    st.segmented_control(
        "Shown",
        list(parts),
        format_func=parts.get,
        key="shown",
        required=required,
        label_visibility="collapsed",
        on_change=lambda: change_view(show=st.session_state["shown"] or ""),
    )
    return shown
