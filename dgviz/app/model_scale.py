"""The workbench on the whole model: its map, rules and methods on all of it, and other fine-tunes beside it."""

import streamlit as st

from dgviz.app.compare_model import choose_plans, draw_comparison, draw_missing
from dgviz.app.family import choose_members, family_task
from dgviz.app.family_overlap import draw_overlap
from dgviz.app.family_tables import draw_figures, draw_noise_tables, read_members
from dgviz.app.frontier import draw_frontier
from dgviz.app.jobs import draw_saved, draw_task
from dgviz.app.methods_model import draw_methods_on_model
from dgviz.app.model import ModelView, draw_model
from dgviz.app.report import offer_report
from dgviz.app.rules import choose_rule, rule_button
from dgviz.app.scale import MODEL_PARTS, choose_scale, choose_shown
from dgviz.app.scans import is_scanning, scan_task
from dgviz.app.state import View
from dgviz.checkpoint import CheckpointPair


def draw_model_scale(view: View, pair: CheckpointPair) -> None:
    """Draw the part of the whole model that is in view."""
    with st.container(horizontal=True, vertical_alignment="center"):
        choose_scale(view)
        choose_shown(view, MODEL_PARTS, required=True)
    {"model": _map, "model-rules": _rules, "model-methods": _methods, "family": _family}[view.show](view, pair)


def _map(view: View, pair: CheckpointPair) -> None:
    """Draw the map, the verdict, and what lies behind them."""
    rule, params = rule_button(view)
    scanning = is_scanning(pair)
    model = ModelView(pair, rule, params, view)
    if scanning or model.spectra.missing:
        if not model.spectra.weights and not scanning:
            st.markdown(
                "The map is drawn from the singular values of every weight, which have not been computed yet: start "
                "the scan, and the cells fill in while it runs."
            )
        draw_task(scan_task(view, pair))
    st.fragment(draw_model, run_every=2.0 if scanning else None)(model)
    if not scanning and model.spectra.weights and not model.spectra.missing:
        offer_report(view, pair, rule, params)


def _rules(view: View, pair: CheckpointPair) -> None:
    """Compare rules on all weights whose spectra are stored."""
    st.caption(
        "Every rule is applied to the stored singular values of every weight. Look at where rules disagree, and "
        "at how steep the curves are: where a small factor on tau changes much, the cut goes through the bulk."
    )
    spectra = draw_missing(view, pair)
    if spectra.weights:
        draw_comparison(view, pair, spectra, choose_plans(spectra))


def _methods(view: View, pair: CheckpointPair) -> None:
    """Compare methods on the whole model, by what they write and by what they heal."""
    st.caption(
        "Every method makes another update out of the fine-tuned one, and adds it to base. These figures say what a "
        "method does to the weights; whether that heals the model, only scores do."
    )
    draw_methods_on_model(view, pair)
    draw_frontier(view)


def _family(view: View, pair: CheckpointPair) -> None:
    """Compare the fine-tunes of one base."""
    st.caption(
        "Fine-tunes by other methods, on other tasks, or steps of one run: the same figures of each, and how many of "
        "the kept directions they share. Each is compared with the same base."
    )
    members = choose_members(view, pair)
    if len(members) < 2:
        st.info(
            "Add at least one more fine-tune of this base. With the demo open, its other fine-tune is one click away."
        )
        return
    rule, params = choose_rule(view)
    task = family_task(view, members, rule, params)
    draw_task(task)
    job = task.job
    finished = job.id if job is not None and job.state != "running" else ""
    rows = read_members(members, rule, params, finished)
    if rows:
        draw_figures(rows)
        draw_noise_tables(rows, rule.title)
    if task.made:
        draw_saved(task, lambda saved: draw_overlap(saved, [member.name for member in members]))
    elif rows:
        st.info("Compare the kept directions above: overlaps and cosines appear here.")
