"""Layer: Figure 4 of one weight."""

import streamlit as st

from dgviz.ui.frame import enter_page, page, require_pair
from dgviz.ui.layer import LayerView, draw_layer
from dgviz.ui.rules import choose_rule
from dgviz.ui.weights import choose_weight

view = enter_page("One weight's update")
pair = require_pair(view)
choice = choose_weight(view, pair)
rule, params = choose_rule(view)
stamp = f"{pair.base.fingerprint[:12]}{pair.tuned.fingerprint[:12]}"
draw_layer(LayerView(choice, rule, params, view.device, stamp, (view.base, view.tuned)))
with st.container(horizontal=True):
    st.page_link(page("thresholds"), label="Compare rules on this weight", icon=":material/stacked_line_chart:")
    st.page_link(page("export"), label="Write the repaired checkpoint", icon=":material/save:")
