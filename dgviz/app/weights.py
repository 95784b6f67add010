"""Choosing a weight: previous and next, a list to type into, the matrix of a stack."""

import streamlit as st

from dgviz.app.messages import show_warning
from dgviz.app.state import View, change_view, take_first
from dgviz.checkpoint import CheckpointPair, MatrixLayout
from dgviz.checkpoint.module_path import module_path
from dgviz.spectra.weight import Weight


def first_weight(pair: CheckpointPair) -> str:
    """Return the weight to show first: a large one in the middle of the model, where updates are typical."""
    at = {item.name: (path.tower, path.layer) for item in pair.repairable for path in [module_path(item.name)]}
    layered = [item for item in pair.repairable if at[item.name][1]] or list(pair.repairable)
    middle = at[layered[len(layered) // 2].name]
    return max((item for item in layered if at[item.name] == middle), key=lambda item: item.tuned.numel).name


def _current(view: View, pair: CheckpointPair, names: list[str]) -> str:
    """Return the weight in view; of one that is not there it is said, and another is taken."""
    current = view.weight if view.weight in names else first_weight(pair)
    if view.weight and view.weight not in names:
        show_warning(f"{view.weight} is not a repairable weight of this pair; showing {current}.")
    if current != view.weight:
        take_first(current)
    return current


def weight_in_view(view: View, pair: CheckpointPair) -> Weight:
    """Return the weight in view, and of a stack the matrix."""
    current = _current(view, pair, [item.name for item in pair.repairable])
    layout = pair[current].layout
    return Weight(pair[current], None if layout.stack is None else min(view.index or 0, layout.stack - 1))


def step_weight(view: View, pair: CheckpointPair, weight: Weight) -> None:
    """Offer the weights before and after in the order of the checkpoint, and a list of all of them to type into."""
    names = [item.name for item in pair.repairable]
    at = names.index(weight.tensor.name)
    _step("Previous", ":material/chevron_left:", names, at, -1, "p")
    st.session_state["weight-choice"] = weight.tensor.name
    st.selectbox(
        "Weight",
        names,
        key="weight-choice",
        label_visibility="collapsed",
        width=230,
        on_change=lambda: change_view(weight=st.session_state["weight-choice"]),
    )
    _step("Next", ":material/chevron_right:", names, at, 1, "n")
    if weight.index is not None:
        _choose_slice(view, weight.tensor.layout)


def _step(label: str, icon: str, names: list[str], at: int, by: int, shortcut: str) -> None:
    """Offer the neighbour of the weight in view."""
    st.button(
        "",
        key=f"step-{label}",
        icon=icon,
        help=f"{label} weight",
        icon_position="right" if by > 0 else "left",
        shortcut=shortcut,
        disabled=not 0 <= at + by < len(names),
        on_click=_move,
        args=(names, by),
    )


def _move(names: list[str], by: int) -> None:
    """Step from the weight now in view, which quick presses have moved on since the button was drawn."""
    current = st.session_state["view"].get("weight")
    target = names.index(current) + by if current in names else 0
    change_view(weight=names[max(0, min(target, len(names) - 1))])


def _choose_slice(view: View, layout: MatrixLayout) -> None:
    """Choose one matrix of a stack."""
    st.session_state["slice-choice"] = min(view.index or 0, layout.stack - 1)
    st.number_input(
        f"Expert (0 to {layout.stack - 1})",
        0,
        layout.stack - 1,
        key="slice-choice",
        width=160,
        on_change=lambda: change_view(slice=st.session_state["slice-choice"]),
    )
