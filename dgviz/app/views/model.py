"""Model: the whole update at a glance, layers by modules."""

import streamlit as st

from dgviz.app.frame import enter_page, page, require_pair
from dgviz.app.jobs import draw_task
from dgviz.app.model import ModelView, draw_model
from dgviz.app.rules import choose_rule
from dgviz.app.scans import find_scan, scan_task


def draw() -> None:
    """Draw the page."""
    view = enter_page("The whole update")
    pair = require_pair(view)
    st.caption(
        "Every cell is one weight. Look for layers or modules that differ from the rest: where much is kept, "
        "fine-tuning wrote something; where nothing is, the update looks like noise. Click a cell for its Figure 4."
    )
    rule, params = choose_rule(view)
    job = find_scan(pair)
    scanning = job is not None and job.state == "running"
    model = ModelView(pair, rule, params, view)
    if scanning or model.spectra.missing:
        if not model.spectra.weights and not scanning:
            st.markdown(
                "The map is drawn from the singular values of every weight, which have not been computed yet: start "
                "the scan, and the cells fill in while it runs."
            )
        draw_task(scan_task(view, pair))
    st.fragment(draw_model, run_every=2.0 if scanning else None)(model, page("layer"), page("export"))
