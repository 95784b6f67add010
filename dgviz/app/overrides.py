"""The list of what a plan treats apart: each entry can be taken out, one is added by its words, the last undone."""

from collections.abc import Callable
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dgviz.app.messages import show_error, show_warning
from dgviz.app.plans import SavedPlan, add_override, drop_override, read_saved, undo_plan
from dgviz.app.state import View, change_view
from dgviz.errors import DgvizError, PlanError
from dgviz.repair.overrides import Override
from dgviz.repair.plan import RepairPlan


def draw_problem(saved: SavedPlan) -> None:
    """Say what kept the plan from being read or written."""
    for problem in filter(None, (saved.problem, st.session_state.pop("plan-error", ""))):
        show_error(PlanError(problem))


def draw_overrides(view: View) -> None:
    """List the overrides, each with a way to take it out; add one by its words; undo."""
    saved = read_saved(view)
    draw_problem(saved)
    for field, text in _masks(view):
        with _entry(
            text,
            f"mask-{field}",
            "It is an expression of the default, above: what it leaves out stays tuned's, whatever follows.",
            lambda field=field: change_view(**{field: ""}),
        ):
            st.button(
                "Into the list",
                key=f"mask-override-{field}",
                icon=":material/playlist_add:",
                type="tertiary",
                on_click=_mask_to_override,
                args=(view, field, text),
                help="Makes it an override, which is kept with the plan, has an undo, and gives way to later ones.",
            )
    for number, text in enumerate(saved.overrides):
        _entry(
            text,
            f"override-{number}",
            "What it selected gets the default again, or what another override says.",
            lambda text=text: drop_override(view, text),
        )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Add an override",
            key="override-typed",
            placeholder="layers=3-7: factor=0.5, or lm_head: keep=tuned",
            help="SELECTION: SETTING. Of several overrides that select a weight the last one counts.",
            on_change=_add_typed,
            args=(view,),
        )
        st.button(
            "Undo",
            key="override-undo",
            icon=":material/undo:",
            disabled=not saved.past,
            on_click=undo_plan,
            args=(view,),
            help="The plan is kept at every change; this goes back one.",
        )
    if problem := st.session_state.pop("override-problem", ""):
        show_warning(problem)


def _entry(text: str, key: str, about: str, take_out: Callable[[], Any]) -> DeltaGenerator:
    """Draw one entry of the list, with a way to take it out; return the line, for more."""
    line = st.container(horizontal=True, vertical_alignment="center")
    with line:
        st.button("Take out", key=key, icon=":material/close:", on_click=take_out, help=about)
        st.code(text, language=None)
    return line


def _masks(view: View) -> list[tuple[str, str]]:
    """Return the expressions that leave weights out, as the overrides that say the same."""
    said = {"include": f"not re={view.include}", "exclude": f"re={view.exclude}"}
    return [(field, f"{selection}: keep=tuned") for field, selection in said.items() if getattr(view, field)]


def _mask_to_override(view: View, field: str, text: str) -> None:
    """Put an override in the place of an expression that leaves weights out."""
    try:
        add_override(view, text)
    except DgvizError as error:
        st.session_state["override-problem"] = str(error)
    else:
        change_view(**{field: ""})


def _add_typed(view: View) -> None:
    """Add what was typed; what is no override stays in the field, with the reason."""
    text = st.session_state["override-typed"].strip()
    if not text:
        return
    try:
        parsed = Override.parse(text)
        parsed.applied(RepairPlan())
        add_override(view, str(parsed))
    except DgvizError as error:
        st.session_state["override-problem"] = str(error)
    else:
        st.session_state["override-typed"] = ""
