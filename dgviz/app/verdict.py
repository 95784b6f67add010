"""The verdict on one weight, first thing on its page: may the rule be trusted here, why, and what else to try."""

import streamlit as st

from dgviz.rmt.assess import apply_rule
from dgviz.rmt.diagnosis import Diagnosis, Flag, diagnose
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import Rule, Threshold, find_rule

_LOOKS = {
    "applies": ("green", "check_circle"),
    "care": ("orange", "warning"),
    "no_effect": ("gray", "block"),
    "not_applicable": ("red", "cancel"),
}
_MOST_REASONS = 3  # shown at once; all of them stand in the table
_SEVERITIES = {"error": "Error", "warn": "Warning", "info": "Note"}


def diagnosed(spectrum: Spectrum, rule: Rule, threshold: Threshold) -> tuple[str, Diagnosis]:
    """Return the title of the rule that is judged, and the verdict on it.

    A rule without a noise model is nothing that noise could mislead: beside it stands the verdict on DG-Hard.
    """
    if not rule.noise_based:
        rule = find_rule("dg_hard")
        threshold = apply_rule(spectrum, rule.name, {})
    return rule.title, diagnose(spectrum, threshold)


def verdict_badge(title: str, diagnosis: Diagnosis) -> str:
    """Return the verdict as a badge in Markdown."""
    colour, icon = _LOOKS[diagnosis.verdict]
    words = f"{title} {diagnosis.word}".strip()
    return f":{colour}-badge[:material/{icon}: {words}]"


def draw_verdict(title: str, diagnosis: Diagnosis) -> None:
    """Show the verdict in words, its reasons, what to try instead, and every check that had something to say."""
    badge = verdict_badge(title, diagnosis)
    with st.container(gap="small"):
        if len(diagnosis.reasons) == 1:
            st.markdown(f"{badge} {diagnosis.reasons[0]}")
        else:
            more = len(diagnosis.reasons) - _MOST_REASONS
            lines = [f"- {reason}" for reason in diagnosis.reasons[:_MOST_REASONS]]
            st.markdown(
                "\n".join([badge, "", *lines, *([f"- and {more} more, in the list below"] if more > 0 else [])])
            )
        if diagnosis.advice:
            first, *rest = diagnosis.advice
            st.caption(f"**What to do first:** {first}" + (f" **Then:** {' '.join(rest)}" if rest else ""))
        if diagnosis.flags:
            with st.expander(f"What the checks found ({len(diagnosis.flags)})", icon=":material/checklist:"):
                _draw_flags(diagnosis.flags)


def _draw_flags(flags: tuple[Flag, ...]) -> None:
    """Show one row per flag with what was measured, what it was compared with, and where the check comes from.

    As text, for sentences in a data frame are cut off.
    """
    rows = ["| Check | Severity | Value | Limit | What it says | Reference |", "|:--|:--|--:|--:|:--|:--|"]
    rows += [
        f"| {flag.title} | {_SEVERITIES[flag.severity]} | {_number(flag.value)} | {_number(flag.limit)} "
        f"| {flag.message} | {flag.reference} |"
        for flag in flags
    ]
    st.markdown("\n".join(rows))


def _number(value: float | None) -> str:
    """Return a figure in three digits, empty where there is none."""
    return "" if value is None else f"{value:.3g}"
