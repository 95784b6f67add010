"""Choosing the repair method that an export applies, with its settings, kept in the URL."""

from typing import Any

import streamlit as st

from dgviz.app.messages import show_warning
from dgviz.app.parameters import parameter_field
from dgviz.app.rules import choose_rule, link_params
from dgviz.app.state import View, change_view
from dgviz.errors import MethodError
from dgviz.repair.methods import METHODS, Method
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.shrinkage import SHRINKERS


def choose_method(view: View) -> dict[str, Any]:
    """Let the user choose method, settings, shrinker and rule; return them as fields of `RepairPlan`."""
    method, settings = current_method(view)
    st.session_state["export-method"] = method.name
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Repair method",
            list(METHODS),
            format_func=lambda name: METHODS[name].listed,
            key="export-method",
            help="DG-Hard by default. Controls are no repairs: they show what a repair must be better than.",
            width=320,
            on_change=lambda: change_view(method=st.session_state["export-method"], settings=""),
        )
        for parameter in method.parameters:
            parameter_field(
                parameter,
                f"export-{method.name}-{parameter.name}",
                settings[parameter.name],
                on_change=lambda value, name=parameter.name: change_view(
                    settings=link_params(method, settings | {name: value})
                ),
            )
        if method.thresholded:
            shrinker = _shrinker(view)
    st.caption(f"{method.formula}. {method.citation}.".replace("*", r"\*"))
    chosen = {"method": method.name, "method_params": settings}
    if not method.thresholded:
        return chosen
    rule, params = choose_rule(view, "export-rule")
    return {**chosen, "shrinker": shrinker, "rule": rule.name, "params": params}


def current_method(view: View) -> tuple[Method, dict[str, float]]:
    """Return the method in view with its settings; what a link spoiled is replaced by defaults, and said so."""
    if view.method not in METHODS:
        show_warning(f"There is no repair method {view.method!r}; showing DG-Hard.")
        return METHODS["dg_hard"], METHODS["dg_hard"].checked({})
    method = METHODS[view.method]
    try:
        return method, method.checked(view.method_params())
    except MethodError as error:
        show_warning(f"{error}; showing its defaults.")
        return method, method.checked({})


def _shrinker(view: View) -> str:
    """Let the user choose what becomes of kept singular values."""
    known = view.shrinker in SHRINKERS
    if not known:
        show_warning(f"There is no shrinker {view.shrinker!r}; kept values stay as they are.")
    st.session_state["export-shrinker"] = view.shrinker if known else "hard"
    return st.selectbox(
        "Shrinker",
        list(SHRINKERS),
        format_func=lambda name: SHRINKERS[name].title,
        key="export-shrinker",
        help="What becomes of the singular values that the rule keeps. Hard leaves them as they are.",
        width=320,
        on_change=lambda: change_view(shrinker=st.session_state["export-shrinker"]),
    )


def take_to_export(plan: RepairPlan) -> None:
    """Put a plan's method, rule and shrinker into view, where the plan finds them."""
    view = {"method": plan.method, "settings": link_params(plan.recipe, plan.method_params)}
    if plan.recipe.thresholded:
        view["shrinker"] = plan.shrinker
    change_view(**view, plan="open")
