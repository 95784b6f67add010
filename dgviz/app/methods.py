"""Repair methods side by side on the weight in view."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dgviz.analysis.effect import Effect, MethodPanel, describe_effect, spectral_effect, yardstick
from dgviz.analysis.preview import prepare_stored
from dgviz.app import worker as work
from dgviz.app.messages import answered, show_warning
from dgviz.app.method import take_to_export
from dgviz.app.parameters import parameter_field
from dgviz.app.rules import choose_rule
from dgviz.app.spectra import load_spectra
from dgviz.app.state import current_view
from dgviz.checkpoint import CheckpointPair
from dgviz.errors import DgvizError
from dgviz.figures import effect_plot, entry_map, plot_config
from dgviz.repair.methods import METHODS, Method
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.assess import needs_delta
from dgviz.rmt.shrinkage import SHRINKERS
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import RULES

DEFAULT = ("dg_hard", "wise_ft", "norm_matched", "complement")
_AS_TUNED = RepairPlan(method="wise_ft", method_params={"alpha": 1.0})
_ABREAST = 5  # the fine-tuned update and the four methods chosen at first


@dataclass(frozen=True)
class _Slot:
    """A method's column: where its map and its spectrum go."""

    method: Method | None
    map: DeltaGenerator
    spectrum: DeltaGenerator

    @property
    def name(self) -> str:
        """The method's, or that of the fine-tuned update."""
        return "tuned" if self.method is None else self.method.name


def choose_shrinker(key: str) -> str:
    """Let the user choose what becomes of kept singular values."""
    return st.selectbox(
        "Shrinker",
        list(SHRINKERS),
        format_func=lambda name: SHRINKERS[name].title,
        key=key,
        help="What becomes of the singular values that the rule keeps. Hard leaves them as they are.",
        width=320,
    )


def choose_parameters(method: Method, largest_rank: int) -> dict[str, float]:
    """Show a method's parameters, its strength as a slider, and return their values."""
    strengths = {strength.parameter for strength in method.strengths}
    return {
        parameter.name: parameter_field(
            parameter,
            f"method-{method.name}-{parameter.name}",
            slider=parameter.name in strengths,
            **({"largest": largest_rank} if parameter.name in strengths else {}),
        )
        for parameter in method.parameters
    }


def choose_methods() -> list[Method]:
    """Let the user choose methods and return them."""
    names = st.multiselect(
        "Methods",
        list(METHODS),
        default=DEFAULT,
        format_func=lambda name: METHODS[name].listed,
        key="chosen-methods",
        help="Controls are no repairs: they show what a repair must be better than.",
    )
    return [METHODS[name] for name in names]


def choose_compared() -> tuple[list[Method], dict[str, Any]]:
    """Let the user choose methods, and the rule and shrinker of those that have a threshold: fields of a plan."""
    methods = choose_methods()
    if not any(method.thresholded for method in methods):
        return methods, {}
    rule, params = choose_rule(current_view(), "methods-rule")
    return methods, {"rule": rule.name, "params": params, "shrinker": choose_shrinker("methods-shrinker")}


def draw_methods(pair: CheckpointPair, weight: tuple, spectrum: Spectrum) -> None:
    """Compare methods on one weight."""
    st.caption(
        "Every method makes another update out of the fine-tuned one, and adds it to base. These figures say what a "
        "method does to a weight; whether that heals the model, only scores do."
    )
    _draw_weight(pair, weight, spectrum, *choose_compared())


@st.fragment
def _draw_weight(
    pair: CheckpointPair, weight: tuple, spectrum: Spectrum, methods: list[Method], common: dict[str, Any]
) -> None:
    """Draw the chosen methods on one weight, a column each; a slider runs only this part of the page again."""
    slots, plans = _columns(methods, spectrum, common)
    table = st.empty()
    if any(needs_delta(spectrum, plan.rule, plan.params) for plan in plans.values()):
        with st.spinner(f"{RULES[common['rule']].title}: working on the weight itself ..."), answered():
            spectrum = work.spectrum_with_threshold(*weight, common["rule"], common["params"])
    effects = {"tuned": _untouched(spectrum)}
    for plan in plans.values():
        if plan.recipe.spectral:
            effect = _preview(pair, weight, plan, spectrum)
            if effect is not None:
                effects[plan.method] = effect
    left_out = {name for name, plan in plans.items() if plan.recipe.spectral and name not in effects}
    slots = [slot for slot in slots if slot.name not in left_out]
    for slot in slots:  # what the spectrum tells is there before the worker is asked for anything
        if slot.name in effects:
            _draw_spectrum(slot, spectrum, effects[slot.name])
    _draw_table(table, plans, effects, {})
    panels: dict[str, MethodPanel] = {}
    for slot in slots:
        panels[slot.name] = _draw_map(slot, pair, weight, plans.get(slot.name, _AS_TUNED))
        if slot.name not in effects:
            effects[slot.name] = panels[slot.name].effect
            _draw_spectrum(slot, spectrum, effects[slot.name])
    _draw_table(table, plans, effects, panels)


def choose_plans(methods: list[Method], common: dict[str, Any], largest_rank: int) -> dict[str, RepairPlan]:
    """Show a column per method with its settings; return the plans they make."""
    plans = {}
    for start in range(0, len(methods), _ABREAST):
        for column, method in zip(st.columns(_ABREAST), methods[start : start + _ABREAST], strict=False):
            _draw_heading(column, method)
            with column:
                plans[method.name] = _choose_plan(method, common, largest_rank)
            _offer_plan(column, plans[method.name])
    return plans


def _draw_heading(column: DeltaGenerator, method: Method | None) -> None:
    """Name a method, or the fine-tuned update, and its formula."""
    title = "Fine-tuned" if method is None else method.title
    formula = "W1, as it is" if method is None else method.formula
    column.markdown(f"**{title}**  \n:small[:gray[{formula}]]".replace("*|", r"\*|").replace("D*", r"D\*"))


def _choose_plan(method: Method, common: dict[str, Any], largest_rank: int) -> RepairPlan:
    """Show a method's parameters and return its plan."""
    own = choose_parameters(method, largest_rank)
    return RepairPlan(method=method.name, method_params=own, **(common if method.thresholded else {}))


def _offer_plan(column: DeltaGenerator, plan: RepairPlan) -> None:
    """Offer to make a plan the pair's, in the drawer beside the page."""
    if column.button(
        "Take into the plan",
        key=f"export-{plan.method}",
        icon=":material/playlist_add:",
        type="tertiary",
        on_click=take_to_export,
        args=(plan,),
    ):
        st.rerun()


def _columns(
    methods: list[Method], spectrum: Spectrum, common: dict[str, Any]
) -> tuple[list[_Slot], dict[str, RepairPlan]]:
    """Lay out a column per method, aligned: heading, parameters, map, spectrum; return what is to be filled."""
    slots: list[_Slot] = []
    plans: dict[str, RepairPlan] = {}
    shown = [None, *methods]
    for start in range(0, len(shown), _ABREAST):
        heads, settings = (st.columns(_ABREAST) for _ in range(2))
        st.caption("Entries of the update: the largest in every block, all on the fine-tuned update's scale")
        maps = st.columns(_ABREAST)
        st.caption(
            "Singular values of the update against rank: fine-tuned in grey, the method's in colour; dotted, the "
            "edge of the noise"
        )
        spectra, ends = (st.columns(_ABREAST) for _ in range(2))
        for at, method in enumerate(shown[start : start + _ABREAST]):
            _draw_heading(heads[at], method)
            if method is not None:
                with settings[at]:
                    plans[method.name] = _choose_plan(method, common, spectrum.s.size)
                _offer_plan(ends[at], plans[method.name])
            slots.append(_Slot(method, maps[at].empty(), spectra[at].empty()))
    return slots, plans


def _untouched(spectrum: Spectrum) -> Effect:
    """Return the figures of the fine-tuned update itself."""
    measure = yardstick(spectrum.nonzero_s, spectrum.nonzero_shape)
    subspace, s = None if measure.leading is None else 1.0, spectrum.nonzero_s
    return describe_effect(s, s, np.zeros_like(s), spectrum.nonzero_shape, measure, subspace)


def _preview(pair: CheckpointPair, weight: tuple, plan: RepairPlan, spectrum: Spectrum) -> Effect | None:
    """Return what the spectrum alone tells, or None after saying what is missing."""
    matrices = ()
    if plan.recipe.whole_model:
        spectra = load_spectra(pair)
        if spectra.missing:
            st.info(
                f"{plan.recipe.title} takes its factor from the spectra of all weights; {len(spectra.missing)} are "
                "not known yet. Scan every weight first."
            )
            return None
        matrices = spectra.weights
    names = [item.name for item in pair.tensors if item.tuned is not None]
    try:
        return spectral_effect(plan, spectrum, prepare_stored(matrices, plan, names), weight[0].tensor.name)
    except DgvizError as error:
        show_warning(str(error))
        return None


def _draw_spectrum(slot: _Slot, spectrum: Spectrum, effect: Effect) -> None:
    """Draw the singular values before and after."""
    edge = RULES["dg_hard"].apply(spectrum.nonzero_s, spectrum.nonzero_shape).edge
    slot.spectrum.plotly_chart(
        effect_plot(spectrum.nonzero_s, effect.values, edge),
        config=plot_config(f"spectrum-{slot.name}"),
        key=f"spectrum-{slot.name}",
    )


def _draw_map(slot: _Slot, pair: CheckpointPair, weight: tuple, plan: RepairPlan) -> MethodPanel:
    """Draw the entries of a method's update on the scale of the fine-tuned one, and return what the worker told."""
    with slot.map, st.spinner(_waiting(plan, pair)), answered():
        scale = work.entry_panels(*weight, 0).scale
        panel = work.method_panel(*weight, plan, pair)
    with slot.map.container():
        st.plotly_chart(
            entry_map(panel.codes, scale, panel.shape, dark=st.context.theme.type == "dark", height=280, narrow=True),
            config=plot_config(f"update-{slot.name}"),
            key=f"update-{slot.name}",
        )
        if panel.peak > 1.001 * scale.high > 0:
            st.caption(f"Entries reach {panel.peak / scale.high:.3g} times the end of the scale.")
    return panel


def _waiting(plan: RepairPlan, pair: CheckpointPair) -> str:
    """Say what is being done."""
    if plan.recipe.whole_model:
        return f"Looking at all {len(pair.repairable)} tensors ..."
    return "Drawing ..." if plan.recipe.spectral else "Decomposing ..."


def _draw_table(
    place: DeltaGenerator,
    plans: dict[str, RepairPlan],
    effects: dict[str, Effect],
    panels: dict[str, MethodPanel],
) -> None:
    """Show every figure of every method."""
    rows = []
    for name, effect in effects.items():
        panel = panels.get(name)
        rows.append(
            {
                "method": plans[name].recipe.title if name in plans else "Fine-tuned",
                "settings": plans[name].label.partition(":")[2].replace(":", ", ") if name in plans else "",
                "norm kept %": 100 * effect.norm_kept,
                "energy kept %": 100 * effect.norm_kept**2,
                "from base %": None if panel is None else 100 * panel.sparsity,
                "effective rank": effect.effective_rank,
                "MP-fit": effect.mp_kept,
                "removed, with zeros": effect.mp_removed,
                "removed, without": effect.mp_removed_own,
                "of noise": effect.mp_noise,
                "subspace kept %": None if effect.subspace is None else 100 * effect.subspace,
            }
        )
    place.dataframe(rows, hide_index=True, width="stretch", column_config=_COLUMN_CONFIG)


def _number(style: str, words: str) -> Any:
    """Return how a column of numbers is shown."""
    return st.column_config.NumberColumn(format=style, help=words)


_COLUMN_CONFIG = {
    "norm kept %": _number("%.1f", "Length of the method's update over that of the fine-tuned one."),
    "energy kept %": _number("%.1f", "The square of the norm kept."),
    "from base %": _number("%.2f", "Entries that are base's once the sum is rounded to the output's dtype."),
    "effective rank": _number("%.1f", "exp of the entropy of the singular values' shares of their sum."),
    "MP-fit": _number("%.1f", "How well the method's update fits the noise law of the fine-tuned one."),
    "removed, with zeros": _number(
        "%.1f",
        "MP-fit of what the method takes away: the fine-tuned update minus its own. Low: it is something other than "
        "noise, or much is left, for which zeros stand.",
    ),
    "removed, without": _number("%.1f", "MP-fit of what is taken away, over its values that are not zero."),
    "of noise": _number("%.1f", "MP-fit that noise of independent entries of this shape usually scores."),
    "subspace kept %": _number(
        "%.1f",
        "Of the directions above DG-Hard's published threshold, how much lies in as many leading directions of the "
        "method's update. A method made from that threshold keeps them by construction.",
    ),
}
