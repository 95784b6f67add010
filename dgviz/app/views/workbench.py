"""Workbench: the model's map and one weight's Figure 4 on one screen."""

import streamlit as st

from dgviz.app.frame import enter_page, require_pair
from dgviz.app.jobs import draw_task
from dgviz.app.scans import find_scan, scan_task
from dgviz.app.spectra import load_spectra
from dgviz.app.workbench import draw_workbench


def draw() -> None:
    """Draw the page."""
    view = enter_page("Workbench")
    pair = require_pair(view)
    draw_workbench(pair)
    job = find_scan(pair)
    if load_spectra(pair).missing or (job is not None and job.state == "running"):
        with st.expander("Scan every weight, to colour the map", icon=":material/apps:"):
            draw_task(scan_task(view, pair))
