"""Workbench: one weight's Figure 4 beside the model's map, or the whole model."""

import streamlit as st

from dgviz.app.frame import enter_page, require_pair
from dgviz.app.jobs import draw_task
from dgviz.app.model_scale import draw_model_scale
from dgviz.app.scale import on_model
from dgviz.app.scans import is_scanning, scan_task
from dgviz.app.spectra import load_spectra
from dgviz.app.workbench import draw_workbench


def draw() -> None:
    """Draw the page."""
    view = enter_page("Workbench")
    pair = require_pair(view)
    if on_model(view):
        draw_model_scale(view, pair)
        return
    draw_workbench(pair)
    if load_spectra(pair).missing or is_scanning(pair):
        with st.expander("Scan every weight, to colour the map", icon=":material/apps:"):
            draw_task(scan_task(view, pair))
