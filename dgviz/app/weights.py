"""Choosing a weight: filters, previous and next, the matrix of a stack."""

import re

import streamlit as st

from dgviz.app.state import View, change_view
from dgviz.checkpoint import CheckpointPair, MatrixLayout
from dgviz.checkpoint.module_path import layer_labels, module_path
from dgviz.spectra.weight import Weight

_EVERY = "all"


def first_weight(pair: CheckpointPair) -> str:
    """Return the weight to show first: a large one in the middle of the model, where updates are typical."""
    at = {item.name: (path.tower, path.layer) for item in pair.repairable for path in [module_path(item.name)]}
    layered = [item for item in pair.repairable if at[item.name][1]] or list(pair.repairable)
    middle = at[layered[len(layered) // 2].name]
    return max((item for item in layered if at[item.name] == middle), key=lambda item: item.tuned.numel).name


def choose_weight(view: View, pair: CheckpointPair) -> Weight:
    """Let the user choose among the repairable weights and return the choice."""
    names = [item.name for item in pair.repairable]
    current = _current(view, pair, names)
    shown = _filters(names)
    at = shown.index(current) if current in shown else None
    options = shown if at is not None else [current, *shown]
    st.session_state["weight-choice"] = current
    with st.container(horizontal=True, vertical_alignment="bottom"):
        _step("Previous", ":material/chevron_left:", shown, at, -1, "p")
        st.selectbox(
            f"Weight ({len(shown)} of {len(names)})",
            options,
            key="weight-choice",
            on_change=lambda: change_view(weight=st.session_state["weight-choice"]),
        )
        _step("Next", ":material/chevron_right:", shown, at, 1, "n")
        layout = pair[current].layout
        index = _choose_slice(view, layout)
    return Weight(pair[current], index)


def _current(view: View, pair: CheckpointPair, names: list[str]) -> str:
    """Return the weight in view; of one that is not there it is said, and another is taken."""
    current = view.weight if view.weight in names else first_weight(pair)
    if view.weight and view.weight not in names:
        st.warning(f"{view.weight} is not a repairable weight of this pair; showing {current}.")
    if current != view.weight:
        change_view(weight=current)
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
    _step("Previous", ":material/chevron_left:", names, at, -1, "p", short=True)
    st.session_state["weight-choice"] = weight.tensor.name
    st.selectbox(
        "Weight",
        names,
        key="weight-choice",
        label_visibility="collapsed",
        width=230,
        on_change=lambda: change_view(weight=st.session_state["weight-choice"]),
    )
    _step("Next", ":material/chevron_right:", names, at, 1, "n", short=True)
    if weight.index is not None:
        _choose_slice(view, weight.tensor.layout)


def _filters(names: list[str]) -> list[str]:
    """Return the names that layer, module and text leave."""
    paths = {name: module_path(name) for name in names}
    labels = layer_labels(paths.values())
    layers = {name: labels[path.tower, path.layer] for name, path in paths.items()}
    modules = sorted({path.module for path in paths.values()})
    columns = st.columns([1, 2, 3])
    layer = columns[0].selectbox("Layer", [_EVERY, *labels.values()], key="filter-layer")
    module = columns[1].selectbox("Module", [_EVERY, *modules], key="filter-module")
    text = columns[2].text_input("Name contains", key="filter-name", placeholder="text or expression", live=True)
    try:
        found = re.compile(text or "", re.IGNORECASE)
    except re.error as error:
        st.warning(f"{text!r} is not a regular expression: {error}")
        return names
    shown = [name for name in names if layer in (_EVERY, layers[name]) and module in (_EVERY, paths[name].module)]
    shown = [name for name in shown if found.search(name)]
    if not shown:
        st.warning("No weight matches these filters.")
    return shown


def _step(
    label: str, icon: str, shown: list[str], at: int | None, by: int, shortcut: str, short: bool = False
) -> None:
    """Offer the neighbour of the weight in view; the first of the filtered ones where it is not among them."""
    target = 0 if at is None else at + by
    st.button(
        "" if short else label,
        key=f"step-{label}",
        icon=icon,
        help=f"{label} weight" if short else None,
        icon_position="right" if by > 0 else "left",
        shortcut=shortcut,
        disabled=not 0 <= target < len(shown),
        on_click=_move,
        args=(shown, by),
    )


def _move(shown: list[str], by: int) -> None:
    """Step from the weight now in view, which quick presses have moved on since the button was drawn."""
    current = st.session_state["view"].get("weight")
    target = shown.index(current) + by if current in shown else 0
    change_view(weight=shown[max(0, min(target, len(shown) - 1))])


def _choose_slice(view: View, layout: MatrixLayout) -> int | None:
    """Choose one matrix of a stack."""
    if layout.stack is None:
        return None
    current = min(view.index or 0, layout.stack - 1)
    st.session_state["slice-choice"] = current
    return int(
        st.number_input(
            f"Expert (0 to {layout.stack - 1})",
            0,
            layout.stack - 1,
            key="slice-choice",
            width=160,
            on_change=lambda: change_view(slice=st.session_state["slice-choice"]),
        )
    )
