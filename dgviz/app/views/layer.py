"""Layer: Figure 4 of one weight."""

import functools

import streamlit as st

from dgviz.app.frame import enter_page, page, require_pair
from dgviz.app.layer import LayerView, draw_layer
from dgviz.app.layer_plan import draw_in_plan
from dgviz.app.rules import choose_rule
from dgviz.app.weights import choose_weight


def draw() -> None:
    """Draw the page."""
    view = enter_page("One weight's update")
    pair = require_pair(view)
    choice = choose_weight(view, pair)
    rule, params = choose_rule(view)
    stamp = f"{pair.base.fingerprint[:12]}{pair.tuned.fingerprint[:12]}"
    layer = LayerView(choice, rule, params, view.device, stamp, (view.base, view.tuned))
    draw_layer(layer, functools.partial(draw_in_plan, view, layer))
    with st.container(horizontal=True):
        st.page_link(page("thresholds"), label="Compare rules on this weight", icon=":material/stacked_line_chart:")
        st.page_link(page("export"), label="Write the repaired checkpoint", icon=":material/save:")
