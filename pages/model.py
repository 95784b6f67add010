"""Model: the whole update at a glance, layers by modules."""

import streamlit as st

from dgviz.ui.frame import enter_page, page, require_pair
from dgviz.ui.model import ModelView, draw_model
from dgviz.ui.pair import checkpoint_label, checkpoint_path
from dgviz.ui.rules import choose_rule
from dgviz.ui.scans import draw_scan, find_scan, scan_command

view = enter_page("The whole update")
pair = require_pair(view)
st.caption(
    "Every cell is one weight. Look for layers or modules that differ from the rest: where much is kept, fine-tuning "
    "wrote something; where nothing is, all of the update looks like noise. Click a cell to see its Figure 4."
)
rule, params = choose_rule(view)
job = find_scan(pair)
scanning = job is not None and job.state == "running"
model = ModelView(pair, rule, params, view)
if scanning or model.atlas.missing:
    command = scan_command(checkpoint_path(view.base), checkpoint_path(view.tuned), view.device)
    if not model.atlas.matrices and not scanning:
        st.markdown(
            "The map is drawn from the singular values of every weight, which have not been computed yet: start the "
            "scan, and the cells fill in while it runs."
        )
    draw_scan(pair, command, f"{checkpoint_label(view.base)} → {checkpoint_label(view.tuned)}")
st.fragment(draw_model, run_every=2.0 if scanning else None)(model, page("layer"), page("export"))
