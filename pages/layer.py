"""Layer: Figure 4 of one weight."""

import streamlit as st

from dgviz.ui.exports import shown_command
from dgviz.ui.frame import enter_page, page, require_pair
from dgviz.ui.layer import LayerView, draw_layer, linked_tau
from dgviz.ui.pair import checkpoint_path
from dgviz.ui.rules import choose_rule
from dgviz.ui.weights import choose_weight

view = enter_page("One weight's update")
pair = require_pair(view)
choice = choose_weight(view, pair)
rule, params = choose_rule(view)
stamp = f"{pair.base.fingerprint[:12]}{pair.tuned.fingerprint[:12]}"
draw_layer(LayerView(choice, rule, params, view.device, stamp, linked_tau(view)))

with st.expander("The same on the command line"):
    command = ["python", "-m", "dgviz", "spectrum", *(str(checkpoint_path(path)) for path in (view.base, view.tuned))]
    command += [choice.paired.name, "--rule", rule.name]
    command += [word for name, value in params.items() for word in ("--rule-param", f"{name}={value:g}")]
    st.code(shown_command(command), language="bash", wrap_lines=True)
with st.container(horizontal=True):
    st.page_link(page("thresholds"), label="Compare rules on this weight", icon=":material/stacked_line_chart:")
    st.page_link(page("export"), label="Write the repaired checkpoint", icon=":material/save:")
