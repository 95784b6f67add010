"""A parameter of a rule or of a method, as a field or a slider."""

from collections.abc import Callable

import streamlit as st

from dgviz.rmt.threshold import Parameter

_LARGEST = 2**31  # a browser's fields hold no infinity


def parameter_field(
    parameter: Parameter,
    key: str,
    value: float | None = None,
    label: str = "",
    on_change: Callable[[float], object] | None = None,
    slider: bool = False,
    largest: float = _LARGEST,
) -> float:
    """Let the user set a parameter and return it.

    Without `on_change` the field remembers it, and `value` is where it starts, by default at the parameter's own
    default. With `on_change`, which is given what is set, it always shows `value`. Whole numbers end at `largest`.
    """
    kind = int if parameter.integer else float
    top = min(parameter.maximum, largest if parameter.integer else _LARGEST)
    if slider and not parameter.integer and top < 1:
        top = round(top - 0.005, 2)  # a slider's steps end at hundredths
    start = kind(min(parameter.default if value is None else value, top))
    options = {"min_value": kind(parameter.minimum), "max_value": kind(top), "key": key}
    if on_change is None:
        options["value"] = start
    else:
        st.session_state[key] = start
        options["on_change"] = lambda: on_change(st.session_state[key])
    label = label or f"{parameter.name}: {parameter.description}"
    if slider:
        return st.slider(label, step=1 if parameter.integer else 0.01, **options)
    step = 1 if parameter.integer else 0.05 if 1 < top < _LARGEST else 0.01
    return st.number_input(label, step=step, format=None if parameter.integer else "%.6g", width=260, **options)
