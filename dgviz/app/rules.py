"""Choosing a threshold rule and its parameters."""

from typing import Any

import streamlit as st

from dgviz.app.messages import show_warning
from dgviz.app.parameters import parameter_field
from dgviz.app.state import View, change_view
from dgviz.errors import ThresholdError
from dgviz.repair.methods import Method
from dgviz.rmt.threshold import RULES, Rule
from dgviz.words import exact_number

CHOICES = tuple(RULES)


def current_rule(view: View, choices: tuple[str, ...] = CHOICES) -> tuple[Rule, dict[str, Any]]:
    """Return the rule in view with its parameters; a spoiled one is replaced by its defaults, and said so."""
    if view.rule not in choices:
        show_warning(f"There is no threshold rule {view.rule!r} here; showing DG-Hard.")
        return RULES["dg_hard"], RULES["dg_hard"].checked({})
    rule = RULES[view.rule]
    needed = {parameter.name: 0 for parameter in rule.parameters if parameter.default is None}
    try:
        return rule, rule.checked(needed | view.rule_params())
    except ThresholdError as error:
        show_warning(f"{error}; showing its defaults.")
        return rule, rule.checked(needed)


def choose_rule(view: View, place: str = "rule") -> tuple[Rule, dict[str, Any]]:
    """Let the user choose the rule and return it with its parameters; `place` tells two choices on a page apart."""
    rule, params = current_rule(view)
    chosen = f"{place}-choice"
    st.session_state[chosen] = rule.name
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Threshold rule",
            CHOICES,
            format_func=lambda name: RULES[name].title,
            key=chosen,
            help="How tau is first set; the slider moves it from there.",
            width=320,
            on_change=lambda: _change_rule(view, st.session_state[chosen]),
        )
        for parameter in rule.parameters:
            parameter_field(
                parameter,
                f"{place}-{parameter.name}",
                params[parameter.name],
                label=parameter.description.capitalize(),
                on_change=lambda value, name=parameter.name: change_view(
                    params=link_params(rule, params | {name: value})
                ),
            )
        st.markdown(f":gray[{rule.formula}]  \n:gray[{rule.citation}]".replace("*", r"\*"))
    return rule, params


def rule_button(view: View) -> tuple[Rule, dict[str, Any]]:
    """Show the rule and its factor on a button, and all there is to choose behind it; return rule and parameters."""
    rule, params = current_rule(view)
    factor = params.get("scale", 1.0)
    settings = "" if factor == 1 else f" × {factor:.3g}"
    with st.popover(f"{rule.title}{settings}", icon=":material/tune:"):
        return choose_rule(view)


def _change_rule(view: View, name: str) -> None:
    """Take the chosen rule; a manual one starts from the tau in view."""
    change_view(rule=name, params=f"tau:{view.tau}" if name == "manual" and view.tau else "")


def link_params(rule: Rule | Method, params: dict[str, Any]) -> str:
    """Return parameters as a link holds them: those that are not at their defaults."""
    return ",".join(f"{name}:{exact_number(value)}" for name, value in rule.changed(params).items())
