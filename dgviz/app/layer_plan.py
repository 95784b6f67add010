"""What the plan says of the weight in view, and how what is looked at gets into it."""

import streamlit as st

from dgviz.app.layer import LayerView
from dgviz.app.messages import show_error
from dgviz.app.plans import add_override, draw_problem, drop_override, read_saved, undo_plan
from dgviz.app.rules import link_params
from dgviz.app.state import View, change_view
from dgviz.errors import DgvizError
from dgviz.repair.methods import METHODS
from dgviz.repair.overrides import Override
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.assess import apply_rule, needs_delta
from dgviz.rmt.spectrum import Spectrum
from dgviz.words import exact_number

_MOVED = "plan-default-moved"


def draw_in_plan(view: View, layer: LayerView, spectrum: Spectrum, tau: float, own_tau: float, moved: bool) -> None:
    """Say what the plan does with the weight, and offer to take what is looked at into it.

    Parameters
    ----------
    view, layer, spectrum
        What is in view.
    tau, own_tau : float
        The threshold looked at, and the rule's own.
    moved : bool
        Whether the former was set by hand.
    """
    if st.session_state.pop(_MOVED, False):
        st.rerun()  # the rule's field stands outside the part of the page that was run
    try:
        plan = _plan(view, layer)
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
        with st.container(horizontal=True):
            _button("This weight only", f"{selection}: tau={exact_number(tau)}", view, ":material/add:", not moved)
            factor = _factor(layer, tau, own_tau)
            st.button(
                "This factor everywhere",
                key="plan-everywhere",
                icon=":material/done_all:",
                disabled=not moved or factor is None,
                help="The rule's tau times this factor becomes the default of every weight.",
                on_click=_set_factor,
                args=(layer, factor),
            )
            for side in ("tuned", "base"):
                title = "Keep as tuned" if side == "tuned" else "Take from base"
                _button(title, f"{selection}: keep={side}", view, ":material/lock:", False)
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


def _plan(view: View, layer: LayerView) -> RepairPlan:
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
    return f"τ = **{found.tau:.4g}** keeps {found.rank} of {spectrum.s.size} directions"


def _button(title: str, text: str, view: View, icon: str, disabled: bool) -> None:
    """Offer an override of this weight."""
    st.button(
        title,
        key=f"plan-{title}",
        icon=icon,
        disabled=disabled,
        help=f"Adds `{Override.parse(text)}` to the plan.",
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
