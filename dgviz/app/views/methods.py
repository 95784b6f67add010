"""Methods: what every repair, and every control, makes of a weight and of the model."""

import streamlit as st

from dgviz.app.frame import enter_page, page, require_pair
from dgviz.app.frontier import draw_frontier
from dgviz.app.layer import read_weight_spectrum
from dgviz.app.methods import choose_methods, choose_shrinker, draw_weight
from dgviz.app.methods_model import draw_model
from dgviz.app.rules import choose_rule
from dgviz.app.weights import choose_weight


def draw() -> None:
    """Draw the page."""
    view = enter_page("Repair methods side by side")
    pair = require_pair(view)
    st.caption(
        "Every method makes another update out of the fine-tuned one, and adds it to base. These figures say what a "
        "method does to a weight, not whether that heals the model: only scores do, on the Recovery page."
    )
    choice = choose_weight(view, pair)
    stamp = f"{pair.base.fingerprint[:12]}{pair.tuned.fingerprint[:12]}"
    weight = (choice, view.device, stamp)
    spectrum = read_weight_spectrum(weight)
    methods = choose_methods()
    common = {}
    if any(method.thresholded for method in methods):
        rule, params = choose_rule(view)
        common = {"rule": rule.name, "params": params, "shrinker": choose_shrinker("methods-shrinker")}
    draw_weight(pair, weight, spectrum, methods, common, page("export"))
    draw_model(view, pair)
    draw_frontier(view)
