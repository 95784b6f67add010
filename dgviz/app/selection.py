"""The selection: which weights are repaired, chosen on the map or by expressions, and what that changes."""

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dgviz.analysis.model_spectra import Assessment
from dgviz.app.messages import show_warning
from dgviz.app.state import View, change_view
from dgviz.checkpoint.selection import Selection, selection_of
from dgviz.errors import PairError

_CHOSEN = "selection-chosen"


def read_selection(view: View, names: list[str]) -> set[str]:
    """Return the names that are selected for repair; of an expression that is not valid it is said, and all are."""
    try:
        return set(Selection(view.include, view.exclude).select(names))
    except PairError as error:
        show_warning(f"{error}; no weight is left out.")
        return set(names)


def note_chosen(names: list[str]) -> None:
    """Remember the weights that were selected on the map."""
    st.session_state[_CHOSEN] = names


def draw_selection(view: View, names: list[str], rows: list[Assessment]) -> None:
    """Show the selection, what to do with what is selected on the map, and what the selection changes."""
    repaired = read_selection(view, names)
    with st.container(border=True):
        _draw_choice(names, repaired)
        choose_names(view)
        _draw_preview(names, repaired, rows)
        with st.container(horizontal=True):
            if st.button(
                "Open the plan",
                icon=":material/playlist_add_check:",
                disabled=not repaired,
                on_click=change_view,
                kwargs={"plan": "open"},
            ):
                st.rerun()  # this may be a part of the page, and the plan is another
            st.button(
                "Repair every weight",
                icon=":material/close:",
                disabled=len(repaired) == len(names),
                on_click=_use,
                args=(Selection(),),
            )


def _draw_choice(names: list[str], repaired: set[str]) -> None:
    """Offer what can be done with the weights selected on the map."""
    known = set(names)
    chosen = {name for name in st.session_state.get(_CHOSEN, []) if name in known}
    if not chosen:
        st.markdown(
            "Click a cell of the map to choose its weights, with Shift for more; for many, take the box or the lasso "
            "from the map's toolbar. Or type regular expressions. Crossed cells are left out: they stay as tuned."
        )
        return
    what = "weight is" if len(chosen) == 1 else "weights are"
    st.markdown(f"**{len(chosen):,}** {what} chosen on the map.")
    with st.container(horizontal=True):
        for title, icon, wanted in (
            ("Repair only these", ":material/filter_alt:", chosen),
            ("Leave these out", ":material/remove:", repaired - chosen),
            ("Repair these too", ":material/add:", repaired | chosen),
        ):
            st.button(
                title, icon=icon, disabled=wanted == repaired, on_click=_use, args=(selection_of(names, wanted),)
            )


def _use(selection: Selection) -> None:
    """Take a selection into view."""
    change_view(include=selection.include, exclude=selection.exclude)
    note_chosen([])


def choose_names(view: View, place: str = "") -> tuple[str, str]:
    """Let the user type the expressions of the selection; return include and exclude."""
    left, right = st.columns(2)
    include = _expression(left, "include", place, "Repair only names matching", view.include, "e.g. attention")
    exclude = _expression(right, "exclude", place, "Keep names matching as tuned", view.exclude, "e.g. embed|lm_head")
    return include, exclude


def _expression(column: DeltaGenerator, field: str, place: str, title: str, value: str, example: str) -> str:
    """Show one expression to edit and return it."""
    key = place + field
    st.session_state[key] = value
    return column.text_input(
        title,
        key=key,
        placeholder=f"regular expression, {example}",
        on_change=lambda: change_view(**{field: st.session_state[key]}),
    )


def _draw_preview(names: list[str], repaired: set[str], rows: list[Assessment]) -> None:
    """Say what the selection changes, next to the repair of every weight."""
    inside = [row for row in rows if row.weight.tensor.name in repaired]
    energy = sum(row.spectrum.energy for row in rows)
    dropped, all_dropped = (sum(row.dropped_energy for row in part) for part in (inside, rows))
    kept, directions = sum(row.rank for row in inside), sum(row.spectrum.s.size for row in inside)
    factors = sum(row.kept_parameters for row in inside)
    with st.container(horizontal=True):
        st.metric("Tensors repaired", f"{len(repaired):,} of {len(names):,}", help="The others stay as tuned.")
        st.metric("Directions kept in them", f"{kept:,} of {directions:,}")
        st.metric("Numbers kept, as factors", f"{factors:,}", help="Sum of rank x (rows + columns).")
        if energy > 0:
            st.metric(
                "Energy kept of the whole update",
                f"{100 * (1 - dropped / energy):.2f} %",
                help=f"Without it: {100 * (1 - all_dropped / energy):.2f} %. What is left out is kept whole.",
            )
