"""What the plan says of the weight in view, and how what is looked at gets into it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import streamlit as st

from dgviz.app.layer import LayerView
from dgviz.app.messages import code_span, show_error
from dgviz.app.overrides import draw_problem
from dgviz.app.plans import add_override, drop_override, read_saved, undo_plan
from dgviz.app.rules import link_params
from dgviz.app.state import View, change_view
from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.module_path import layer_order, module_path
from dgviz.checkpoint.selector import Selector
from dgviz.errors import DgvizError
from dgviz.repair.methods import METHODS
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.assess import apply_rule, needs_delta
from dgviz.rmt.directions import told
from dgviz.rmt.spectrum import Spectrum
from dgviz.words import exact_number

_MOVED = "plan-default-moved"
_LONG = 160  # characters of an override that a hint shows


@dataclass(frozen=True)
class Selection:
    """Some weights of a pair, and the selection of an override that finds exactly them."""

    text: str
    names: tuple[str, ...]


def selection_of(pair: CheckpointPair, names: Sequence[str]) -> Selection | None:
    """Return what was selected on the map as an override selects: a module, layers, or else every name."""
    known = {tensor.name: tensor for tensor in pair.repairable}
    chosen = tuple(name for name in names if name in known)
    if not chosen:
        return None
    paths = [module_path(name) for name in chosen]
    texts = [f"name={chosen[0]}"] if len(chosen) == 1 else []
    modules = {path.module for path in paths}
    texts += [f"module={module.removesuffix('.weight')}" for module in modules if len(modules) == 1]
    levels = list(dict.fromkeys(path.level for path in sorted(paths, key=lambda path: layer_order(path.layer))))
    texts += [f"layers={levels[0]}-{levels[-1]}", f"layers={','.join(levels)}"] if all(levels) else []
    for text in texts:
        found = {name for name, tensor in known.items() if Selector(text).finds(tensor)}
        if found == set(chosen):
            return Selection(text.replace(f"={levels[0]}-{levels[0]}", f"={levels[0]}"), chosen)
    return Selection(f"re=^({'|'.join(map(re.escape, chosen))})$", chosen)


def draw_in_plan(
    view: View,
    layer: LayerView,
    spectrum: Spectrum,
    tau: float,
    own_tau: float,
    moved: bool,
    beside: Mapping[str, Selection] | None = None,
) -> None:
    """Say what the plan does with the weight, and offer to take what is looked at into it.

    Parameters
    ----------
    view, layer, spectrum
        What is in view.
    tau, own_tau : float
        The threshold looked at, and the rule's own.
    moved : bool
        Whether the former was set by hand.
    beside : mapping of str to Selection
        Further weights that can get the same, by what they are called.
    """
    if st.session_state.pop(_MOVED, False):
        st.rerun()  # the rule's field stands outside the part of the page that was run
    try:
        plan = plan_in_view(view, layer)
    except DgvizError as error:
        show_error(error)
        return
    draw_problem(read_saved(view))
    tensor, index = layer.matrix.tensor, layer.matrix.index
    override = plan.override_of(tensor, index)
    whose = f"by the override `{override}`" if override else "by default"
    looking = f" You are looking at τ = **{tau:.4g}**." if moved else ""
    with st.container(border=True):
        st.markdown(f"**In the plan**: {_treatment(plan.at(tensor, index), spectrum)}, {whose}.{looking}")
        selection = f"name={layer.matrix.name}"
        factor = _factor(layer, tau, own_tau)
        _draw_scope(view, layer, "This weight only", selection, f"tau={exact_number(tau)}" if moved else "")
        scaled = f"factor={exact_number(factor)}" if moved and factor is not None else ""
        for title, others in (beside or {}).items():
            _draw_scope(view, layer, title, others.text, scaled)
        with st.container(horizontal=True):
            st.button(
                "This factor everywhere",
                key="plan-everywhere",
                icon=":material/done_all:",
                disabled=not scaled,
                help="The rule's tau times this factor becomes the default of every weight.",
                on_click=_set_factor,
                args=(layer, factor),
            )
            st.button(
                "Back to the default",
                key="plan-default",
                icon=":material/close:",
                disabled=override is None or override.selector.text != selection,
                on_click=drop_override,
                args=(view, str(override)),
            )
            st.button(
                "Undo",
                key="plan-undo",
                icon=":material/undo:",
                disabled=not read_saved(view).past,
                on_click=undo_plan,
                args=(view,),
            )


def _draw_scope(view: View, layer: LayerView, title: str, selection: str, threshold: str) -> None:
    """Offer overrides of one selection: the threshold looked at where there is one, and either side's values."""
    with st.container(horizontal=True, vertical_alignment="center"):
        _button(
            title, f"{selection}: {threshold or 'keep=tuned'}", view, ":material/add:", f"plan-{title}", not threshold
        )
        for side, words in (("tuned", "Keep as tuned"), ("base", "Take from base")):
            key = f"plan-{words}" if selection == f"name={layer.matrix.name}" else f"plan-{words}-{title}"
            _button(words, f"{selection}: keep={side}", view, ":material/lock:", key)


def plan_in_view(view: View, layer: LayerView) -> RepairPlan:
    """Return the plan as the Export page has it."""
    method = METHODS.get(view.method, METHODS["dg_hard"])
    return RepairPlan(
        rule=layer.rule.name,
        params=layer.params,
        method=method.name,
        method_params=method.checked(view.method_params()) if method.name == view.method else {},
        shrinker=view.shrinker,
        overrides=read_saved(view).overrides,
    )


def _treatment(own: RepairPlan, spectrum: Spectrum) -> str:
    """Return in words what a plan without overrides does with a weight."""
    if own.keep:
        return f"{own.keep}'s values, unchanged"
    if not own.recipe.thresholded:
        settings = ", ".join(f"{name} {value:g}" for name, value in own.method_params.items())
        return own.recipe.title.replace("*", r"\*") + (f" ({settings})" if settings else "")
    if needs_delta(spectrum, own.rule, own.params):
        return f"the threshold of rule {own.rule}"
    found = apply_rule(spectrum, own.rule, own.params)
    alone = [
        f"{verb} {'directions' if len(numbers) > 1 else 'direction'} {told(numbers)} by itself"
        for verb, numbers in (("keeps", own.directions.kept), ("drops", own.directions.dropped))
        if numbers
    ]
    return ", ".join([f"τ = **{found.tau:.4g}** keeps {found.rank} of {spectrum.s.size} directions", *alone])


def _button(title: str, text: str, view: View, icon: str, key: str, disabled: bool = False) -> None:
    """Offer an override."""
    shown = text if len(text) <= _LONG else f"{text[:_LONG]} ..."
    hint = f"Move τ first: it becomes an override of {code_span(shown.rpartition(': ')[0] or shown)}."
    st.button(
        title,
        key=key,
        icon=icon,
        disabled=disabled,
        help=hint if disabled else f"Adds {code_span(shown)} to the plan.",
        on_click=add_override,
        args=(view, text),
    )


def _factor(layer: LayerView, tau: float, own_tau: float) -> float | None:
    """Return the factor on the rule's tau that gives the one looked at; None where the rule takes none."""
    if "scale" not in layer.params or not own_tau > 0 or not layer.params["scale"] > 0:
        return None
    return float(layer.params["scale"]) * tau / own_tau


def _set_factor(layer: LayerView, factor: float) -> None:
    """Make a factor the default's."""
    change_view(params=link_params(layer.rule, layer.params | {"scale": factor}), tau="")
    st.session_state[_MOVED] = True
