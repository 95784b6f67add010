"""The verdict on a whole model: may the rule be trusted here, why, what it would do, and what to do first."""

import time
from collections.abc import Mapping
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dgviz.analysis.forecast import forecast_rows
from dgviz.analysis.model_spectra import Assessment, verdict_of
from dgviz.app.messages import plain
from dgviz.checkpoint import CheckpointPair
from dgviz.forecast import Forecast
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.diagnosis import VERDICTS, Diagnosis
from dgviz.rmt.threshold import Rule

_LOOKS = {
    "applies": ("green", ":material/check_circle:"),
    "care": ("orange", ":material/warning:"),
    "no_effect": ("gray", ":material/do_not_disturb_on:"),
    "not_applicable": ("red", ":material/cancel:"),
}
_LOOK = 0.1  # seconds between two looks at whether the user has moved on
_SHOWN = 4  # reasons in view; the others are one click away
_ADVISED = 2  # sentences: the first action, and what to score beside it


def draw_verdict(
    pair: CheckpointPair, rows: list[Assessment], rule: Rule, params: Mapping[str, Any], whole: bool
) -> Diagnosis:
    """Say whether a rule may be trusted on the model, and return that; weights checked before are not checked again.

    What it would do is foretold once `whole` of the model is known.
    """
    slot = st.empty()
    check_weights(rows, slot)
    diagnosis = verdict_of(rows, pair.base.config)
    with slot.container(border=True):
        foretold = forecast_rows(pair, rows, RepairPlan(rule.name, params)) if whole else None
        _draw(diagnosis, rule.title, foretold)
    return diagnosis


def check_weights(rows: list[Assessment], slot: DeltaGenerator) -> None:
    """Diagnose every weight, showing how far that is; those checked before cost nothing."""
    looked = time.monotonic() - _LOOK
    for done, row in enumerate(rows):
        if "diagnosis" not in vars(row) and time.monotonic() - looked >= _LOOK:
            slot.progress(done / len(rows), text=f"Checking {len(rows):,} weights ...")
            looked = time.monotonic()
        _ = row.diagnosis


def _draw(diagnosis: Diagnosis, title: str, foretold: Forecast | None) -> None:
    """Show a verdict with its forecast, reasons and advice."""
    colour, icon = _LOOKS[diagnosis.verdict]
    far = "" if foretold else " :gray[so far]"
    st.markdown(f"#### :{colour}[{icon} {title} {VERDICTS[diagnosis.verdict]}]{far}")
    if foretold:
        st.markdown(f"**What it would do:** {plain(foretold.sentence)}")
    st.markdown(_listed(diagnosis.reasons[:_SHOWN]))
    if diagnosis.advice:
        st.markdown(f"**What to do first:** {' '.join(map(plain, diagnosis.advice[:_ADVISED]))}")
    more = (*diagnosis.reasons[_SHOWN:], *diagnosis.advice[_ADVISED:])
    if more:
        with st.expander("More reasons and advice"):
            st.markdown(_listed(more))


def _listed(sentences: tuple[str, ...]) -> str:
    """Return sentences as a list; names may hold characters that Markdown takes for its own."""
    return "\n".join(f"- {plain(sentence)}" for sentence in sentences)
