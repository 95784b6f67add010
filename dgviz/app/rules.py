"""Choosing a threshold rule and its parameters."""

from typing import Any

import streamlit as st

from dgviz.app.state import View, change_view
from dgviz.errors import ThresholdError
from dgviz.repair.methods import Method
from dgviz.rmt.threshold import RULES, Parameter, Rule

CHOICES = tuple(RULES)


def current_rule(view: View, choices: tuple[str, ...] = CHOICES) -> tuple[Rule, dict[str, Any]]:
    """Return the rule in view with its parameters; a spoiled one is replaced by its defaults, and said so."""
    if view.rule not in choices:
        st.warning(f"There is no threshold rule {view.rule!r} here; showing DG-Hard.")
        return RULES["dg_hard"], RULES["dg_hard"].checked({})
    rule = RULES[view.rule]
    needed = {parameter.name: 0 for parameter in rule.parameters if parameter.default is None}
    try:
        return rule, rule.checked(needed | view.rule_params())
    except ThresholdError as error:
        st.warning(f"{error}; showing its defaults.")
        return rule, rule.checked(needed)


def choose_rule(view: View) -> tuple[Rule, dict[str, Any]]:
    """Let the user choose the rule and return it with its parameters."""
    rule, params = current_rule(view)
    st.session_state["rule-choice"] = rule.name
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Threshold rule",
            CHOICES,
            format_func=lambda name: RULES[name].title,
            key="rule-choice",
            help="How tau is first set; the slider moves it from there.",
            width=320,
            on_change=lambda: _change_rule(view),
        )
        for parameter in rule.parameters:
            _parameter(rule, parameter, params)
        st.markdown(f":gray[{rule.formula}]  \n:gray[{rule.citation}]".replace("*", r"\*"))
    return rule, params


def _change_rule(view: View) -> None:
    """Take the chosen rule; a manual one starts from the tau in view."""
    name = st.session_state["rule-choice"]
    change_view(rule=name, params=f"tau:{view.tau}" if name == "manual" and view.tau else "")


def _parameter(rule: Rule, parameter: Parameter, params: dict[str, Any]) -> None:
    """Show one parameter as a number field."""
    key = f"param-{parameter.name}"
    kind = int if parameter.integer else float
    st.session_state[key] = kind(params[parameter.name])
    st.number_input(
        parameter.description.capitalize(),
        kind(parameter.minimum),
        kind(min(parameter.maximum, 2**31)),
        step=1 if parameter.integer else 0.01 if parameter.maximum <= 1 else None,
        format=None if parameter.integer else "%.6g",
        key=key,
        width=260,
        on_change=lambda: change_view(params=link_params(rule, params | {parameter.name: st.session_state[key]})),
    )


def link_params(rule: Rule | Method, params: dict[str, Any]) -> str:
    """Return parameters as a link holds them: those that are not at their defaults."""
    return ",".join(f"{name}:{value:.9g}" for name, value in rule.changed(params).items())
