"""What the threshold in view is compared with: another threshold, or any update of the same weight."""

from dataclasses import dataclass

import numpy as np
import streamlit as st

from dgviz.analysis.rules import rule_title
from dgviz.app import worker as work
from dgviz.app.direction import siblings
from dgviz.app.figure4 import start_tau
from dgviz.app.layer import LayerView
from dgviz.app.messages import show_error
from dgviz.app.state import View, change_view
from dgviz.checkpoint import CheckpointPair
from dgviz.errors import DgvizError, PairError
from dgviz.figures.figure4.maps import ComparedPanels
from dgviz.repair.methods import METHODS
from dgviz.repair.overrides import Override
from dgviz.repair.plan import RepairPlan, read_plan
from dgviz.rmt.assess import apply_rule
from dgviz.rmt.spectrum import Spectrum
from dgviz.spectra.weight import Weight
from dgviz.words import exact_number

_FINE_TUNE = "fine-tune="  # what is compared is the same weight in another fine-tune of the view


@dataclass(frozen=True)
class Update:
    """An update that is no threshold's on the weight in view: a plan's, of this fine-tune or of another one."""

    title: str
    plan: RepairPlan
    other: Weight | None = None


def read_against(
    view: View, pair: CheckpointPair, layer: LayerView, spectrum: Spectrum
) -> tuple[str, float, int] | Update | None:
    """Return what the threshold in view is compared with: name, tau and rank of another one, or an update.

    What is spoiled is said.
    """
    if view.against.startswith(_FINE_TUNE):
        title = view.against.removeprefix(_FINE_TUNE)
        found, problems = siblings(view, pair, layer)
        if title in found:
            plan = RepairPlan(rule=layer.rule.name, params=layer.params)
            return Update(f"{title}, {rule_title(plan)}", plan, found[title])
        known = ", ".join(found) or "none; add one among the fine-tunes of the model"
        show_error(PairError("; ".join([f"no other fine-tune {title!r} is open: there are {known}", *problems])))
        return None
    plan = _plan_against(view, said=True)
    if plan is None or not _is_threshold(plan):
        return None if plan is None else Update(_update_title(plan), plan)
    try:
        threshold = apply_rule(spectrum, plan.rule, plan.params)
    except DgvizError as error:
        show_error(error)
        return None
    tau = start_tau(spectrum.s, threshold)
    return rule_title(plan), tau, int(np.count_nonzero(spectrum.s > tau))


def _plan_against(view: View, said: bool = False) -> RepairPlan | None:
    """Return what the threshold in view is compared with, as a plan; what is none is `said` once.

    It is typed as the settings of an override are (``rule=energy, fraction=0.8``), or as a method that a comparison
    of methods names (``wise_ft:alpha=0.5``).
    """
    if not view.against or view.against.startswith(_FINE_TUNE):
        return None
    try:
        named = "=" not in view.against.partition(":")[0]
        return read_plan(view.against) if named else Override.parse(f"re=.: {view.against}").applied(RepairPlan())
    except DgvizError as error:
        if said:
            show_error(error)
        return None


def threshold_against(view: View) -> RepairPlan | None:
    """Return the threshold that the one in view is compared with; only these are told for every weight of a map."""
    plan = _plan_against(view)
    return plan if plan is not None and _is_threshold(plan) else None


def _is_threshold(plan: RepairPlan) -> bool:
    """Return whether a plan keeps what lies above a tau, as it is, and nothing else."""
    usual = RepairPlan()
    cut = (plan.method, plan.method_params, plan.shrinker) == (usual.method, usual.method_params, usual.shrinker)
    return cut and not plan.keep and not plan.directions


def _update_title(plan: RepairPlan) -> str:
    """Return what an update is called that is no threshold's."""
    if plan.keep:
        return f"{plan.keep} as it is"
    if plan.method == RepairPlan().method and not plan.directions:
        return rule_title(plan)
    told = {strength.parameter for strength in plan.recipe.strengths} | plan.recipe.changed(plan.method_params).keys()
    settings = [f"{name} {value:.4g}" for name, value in plan.method_params.items() if name in told]
    return ", ".join([plan.recipe.title, *settings])


def draw_against(
    view: View, pair: CheckpointPair, layer: LayerView, spectrum: Spectrum, tau: float, moved: bool
) -> None:
    """Offer to hold on to what is in view as A, and to choose what A is."""
    if not view.against:
        st.button(
            "Compare",
            key="compare",
            icon=":material/compare:",
            help="Holds on to this threshold as A; what you look at from now on is B.",
            on_click=change_view,
            kwargs={"against": _held(layer, tau, moved)},
        )
        return
    with st.popover("Comparing", icon=":material/compare:"):
        st.session_state["against-typed"] = view.against
        st.text_input(
            "A is",
            key="against-typed",
            help="A rule with its parameters (rule=energy, fraction=0.8), factor=0.5, tau=0.05, rank=12; a shrinker "
            "(shrinker=frobenius), keep=tuned, or a method (wise_ft:alpha=0.5).",
            on_change=lambda: change_view(against=st.session_state["against-typed"].strip()),
        )
        st.selectbox(
            "or a method, as it comes",
            list(METHODS),
            format_func=lambda name: METHODS[name].title,
            index=None,
            key="against-method",
            placeholder="choose a method",
            on_change=_hold_method,
        )
        if others := list(siblings(view, pair, layer)[0]):
            st.selectbox(
                "or another fine-tune, by the rule in view",
                others,
                index=None,
                key="against-other",
                placeholder="choose a fine-tune",
                on_change=_hold_other,
            )
        st.caption("B is what you look at: move it in the spectrum, or choose another rule. Hold B to blink.")
        with st.container(horizontal=True):
            st.button(
                "Hold this as A",
                key="against-hold",
                on_click=change_view,
                kwargs={"against": _held(layer, tau, moved)},
            )
            st.button(
                "Leave", key="against-leave", icon=":material/close:", on_click=change_view, kwargs={"against": ""}
            )


def _hold_method() -> None:
    """Compare with the method that was chosen; the field is free for another one."""
    if name := st.session_state["against-method"]:
        change_view(against=RepairPlan(method=name).label)
    st.session_state["against-method"] = None


def _hold_other() -> None:
    """Compare with the fine-tune that was chosen; the field is free for another one."""
    if title := st.session_state["against-other"]:
        change_view(against=f"{_FINE_TUNE}{title}")
    st.session_state["against-other"] = None


def _held(layer: LayerView, tau: float, moved: bool) -> str:
    """Return what is in view as the settings of an override."""
    if moved:
        return f"tau={exact_number(tau)}"
    changed = layer.rule.changed(layer.params)
    return ", ".join(
        [f"rule={layer.rule.name}", *(f"{name}={exact_number(value)}" for name, value in changed.items())]
    )


def compare_update(pair: CheckpointPair, layer: LayerView, update: Update, rank: int) -> ComparedPanels | None:
    """Return the maps of the update that the threshold in view is compared with; why there are none is said."""
    try:
        return work.compared_update(*layer.weight, update.title, update.plan, rank, update.other, pair)
    except DgvizError as error:
        show_error(error)
        return None
