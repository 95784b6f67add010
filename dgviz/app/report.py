"""The report of the pair in view as a file, drawn when it is asked for: what ``report`` writes."""

import dataclasses
from html import escape
from typing import Any

import streamlit as st

from dgviz.analysis.model_report import report_model
from dgviz.app import worker as work
from dgviz.app.messages import show_warning
from dgviz.app.pair import checkpoint_path
from dgviz.app.plans import planned
from dgviz.app.state import View
from dgviz.checkpoint import CheckpointPair
from dgviz.command import Command
from dgviz.errors import DgvizError
from dgviz.figures.report import map_figures, report_page, weight_figure
from dgviz.rmt.threshold import Rule


def offer_report(view: View, pair: CheckpointPair, rule: Rule, params: dict[str, Any]) -> None:
    """Offer the report of a pair that is scanned, under the rule in view and the plan's overrides."""
    try:
        plan = planned(view, pair, rule=rule.name, params=params)
    except DgvizError as error:
        show_warning(f"There is no report of this plan: {error}")
        return
    base, tuned = checkpoint_path(view.base), checkpoint_path(view.tuned)
    rules = {**plan.rule_arguments, "override": plan.arguments["override"]}
    command = Command("report", base=base, tuned=tuned, out=f"{tuned.name}-report.html", **rules, device=view.device)
    warm, device = work.worker(), view.device

    def draw() -> str:
        """Return the page; of a failure, one that says what is the matter."""
        try:
            report = report_model(pair, plan)
            asked = {"plan": plan, "sides": report.names, "device": device}
            weights = report.largest()
            drawn = [weight_figure(weight.name, warm.call("figure4", weight=weight, **asked)) for weight in weights]
            read = warm.call("lens_of", pair=pair, plan=plan, weights=weights, device=device)
            report = dataclasses.replace(report, lens=read)
            return report_page(report, [*map_figures(report.rows), *drawn])
        except DgvizError as error:
            return f"<!DOCTYPE html><title>No report</title><p>{escape(str(error))}</p>"

    st.download_button(
        "Report (HTML)",
        draw,
        file_name=f"{tuned.name}-report.html",
        mime="text/html",
        icon=":material/description:",
        help=f"Verdict, maps, tables, Figure 4 of the three largest updates and plan as one file: `{command}`",
        key="report",
        on_click="ignore",
    )
