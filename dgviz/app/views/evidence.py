"""Evidence: did a repair heal anything? Scores of base, tuned and repaired models."""

import streamlit as st

from dgviz.app.frame import enter_page
from dgviz.app.recovery import choose_display, choose_repairs, draw_overview, draw_verdict
from dgviz.app.recovery_detail import draw_benchmarks, draw_definitions, draw_notes, draw_sizes, draw_tolerance
from dgviz.app.recovery_figures import draw_bars, draw_frontiers, draw_plane
from dgviz.app.recovery_source import recover_chosen
from dgviz.app.recovery_study import draw_note, draw_panels, draw_tables
from dgviz.app.scale import EVIDENCE_PARTS, choose_shown

_PARTS = {
    "metrics": draw_overview,
    "panels": draw_panels,
    "benchmarks": draw_benchmarks,
    "sizes": draw_sizes,
    "tolerances": draw_tolerance,
    "definitions": draw_definitions,
}
_FIGURES = {"cohorts": draw_bars, "frontiers": draw_frontiers}  # these can have the paper's values in them


def draw() -> None:
    """Draw the page: the verdict and the plane, and one part of the rest; all at once they take seconds."""
    view = enter_page("Evidence: did a repair heal anything?")
    st.markdown(
        "A spectrum suggests; benchmarks decide. A repair is good when it brings back what fine-tuning damaged *and* "
        "keeps what it gained. Going back to base heals everything and keeps nothing; keeping tuned does the reverse."
    )
    head = st.container()
    # Popovers: the browser makes what is in them when they are opened, and the figure does not wait for it.
    aside = st.container(horizontal=True)
    with head:
        recovery, study_file = recover_chosen(view, aside)
    with aside, st.popover("Which repairs, and how figures are drawn", icon=":material/tune:"):
        shown = choose_repairs(recovery)
        paper = choose_display()
    with head:
        draw_note(shown)
        draw_verdict(shown)
        draw_plane(shown, paper)
        part = choose_shown(view, EVIDENCE_PARTS, required=True)
        if part in _PARTS:
            _PARTS[part](shown)
        elif part in _FIGURES:
            _FIGURES[part](shown, paper)
        else:
            draw_tables(shown, study_file)
    draw_notes(shown)
