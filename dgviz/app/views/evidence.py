"""Evidence: did a repair heal anything? Scores of base, tuned and repaired models."""

import streamlit as st

from dgviz.app.frame import enter_page
from dgviz.app.recovery import choose_display, choose_repairs, draw_overview, draw_verdict
from dgviz.app.recovery_detail import draw_benchmarks, draw_definitions, draw_notes, draw_sizes, draw_tolerance
from dgviz.app.recovery_figures import draw_bars, draw_frontiers, draw_plane
from dgviz.app.recovery_source import recover_chosen
from dgviz.app.recovery_study import draw_note, draw_panels, draw_tables


def draw() -> None:
    """Draw the page."""
    view = enter_page("Evidence: did a repair heal anything?")
    st.markdown(
        "A spectrum suggests; benchmarks decide. A repair is good when it brings back what fine-tuning damaged *and* "
        "keeps what it gained. Going back to base heals everything and keeps nothing; keeping tuned does the reverse."
    )
    head, aside = st.container(), st.container()
    with head:
        recovery, study_file = recover_chosen(view, aside)
    with aside, st.expander("Which repairs, and how figures are drawn", icon=":material/tune:"):
        shown = choose_repairs(recovery)
        paper = choose_display()
    with head:
        draw_note(shown)
        draw_verdict(shown)
        draw_plane(shown, paper)
    draw_overview(shown)
    draw_panels(shown)
    draw_bars(shown, paper)
    draw_frontiers(shown, paper)
    draw_benchmarks(shown)
    draw_sizes(shown)
    draw_tolerance(shown)
    draw_tables(shown, study_file)
    draw_notes(shown)
    draw_definitions(shown)
