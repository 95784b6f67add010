"""Thresholds: several rules at once, on the weight in view or on the whole model."""

import streamlit as st

from dgviz.app.compare import apply_rules, choose_rules, draw_lines, draw_side_by_side, draw_table, starting_points
from dgviz.app.compare_model import choose_plans, draw_comparison, draw_missing
from dgviz.app.frame import enter_page, page, require_pair
from dgviz.app.layer import read_weight_spectrum
from dgviz.app.weights import choose_weight


def draw() -> None:
    """Draw the page."""
    view = enter_page("Threshold rules side by side")
    pair = require_pair(view)
    scope = st.segmented_control(
        "Compare on", ["This weight", "Whole model"], default="This weight", required=True, key="compared-on"
    )
    if scope == "Whole model":
        st.caption(
            "Every rule is applied to the stored singular values of every weight. Look at where rules disagree, and "
            "at how steep the curves are: where a small factor on tau changes much, the cut goes through the bulk."
        )
        spectra = draw_missing(view, pair)
        if spectra.weights:
            draw_comparison(view, pair, spectra, choose_plans(spectra), page("export"))
        st.stop()
    choice = choose_weight(view, pair)
    stamp = f"{pair.base.fingerprint[:12]}{pair.tuned.fingerprint[:12]}"
    weight = (choice, view.device, stamp)
    spectrum = read_weight_spectrum(weight)
    st.caption(
        "Every rule looks at the same singular values and draws its line; what lies above a line is kept. A rule "
        "that leaves its dropped part with a low MP-fit has thrown away something that is not Marchenko-Pastur noise."
    )
    found = apply_rules(spectrum, choose_rules(starting_points(spectrum)))
    if found:
        draw_lines(spectrum, found)
        draw_table(spectrum, found)
        draw_side_by_side(weight, found)
    else:
        st.info("Choose at least one rule.")
