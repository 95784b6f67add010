"""Thresholds: several rules at once on the weight in view."""

import streamlit as st

from dgviz.ui.compare import choose_thresholds, draw_lines, draw_side_by_side, draw_table
from dgviz.ui.frame import enter_page, require_pair
from dgviz.ui.layer import read_weight_spectrum
from dgviz.ui.weights import choose_weight

view = enter_page("Threshold rules side by side")
pair = require_pair(view)
choice = choose_weight(view, pair)
stamp = f"{pair.base.fingerprint[:12]}{pair.tuned.fingerprint[:12]}"
weight = (choice.paired, choice.index, view.device, stamp)
spectrum = read_weight_spectrum(weight)
st.caption(
    "Every rule looks at the same singular values and draws its line; what lies above a line is kept. A rule that "
    "leaves its dropped part with a low MP-fit has thrown away something that is not Marchenko-Pastur noise."
)
found = choose_thresholds(spectrum, manual_tau=float(spectrum.s[0]) / 2)
if found:
    draw_lines(spectrum, found)
    draw_table(spectrum, found)
    draw_side_by_side(weight, found)
else:
    st.info("Choose at least one rule.")
