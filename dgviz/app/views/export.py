"""Export: write the repaired checkpoint."""

from pathlib import Path

import streamlit as st

from dgviz.app.export_options import choose_output
from dgviz.app.export_page import draw_plan, free_folder, suggested_name
from dgviz.app.export_result import draw_result
from dgviz.app.frame import enter_page, require_pair
from dgviz.app.jobs import draw_command, draw_list, draw_start_error, try_start
from dgviz.app.messages import show_error
from dgviz.app.method import choose_method
from dgviz.app.pair import checkpoint_path, load_pair
from dgviz.app.plans import add_override, draw_overrides, planned, read_saved
from dgviz.app.roots import confine, writable_home
from dgviz.app.selection import choose_names
from dgviz.app.state import View
from dgviz.command import Command
from dgviz.errors import DgvizError, ExportError
from dgviz.words import exact_number


def draw() -> None:
    """Draw the page."""
    view = enter_page("Write the repaired checkpoint")
    require_pair(view)
    st.caption("Choose how every weight is repaired, and what to write.")
    method = choose_method(view)
    if view.tau and view.weight:
        _offer_tau(view)
    include, exclude = choose_names(view)
    st.markdown("**Weights treated apart**")
    draw_overrides(view)
    output = choose_output()
    base, tuned = checkpoint_path(view.base), checkpoint_path(view.tuned)
    suggested = suggested_name(tuned, method, output.format)
    folder = f"suggested {suggested}"
    if folder not in st.session_state:  # chosen once, so that it does not move on when the export has filled it
        st.session_state[folder] = str(free_folder(writable_home() / "dgviz-exports" / suggested))
    # As the field's default: a value set by its key is sent once, and a browser that is still loading misses it.
    named = st.text_input("Output folder (new or empty)", st.session_state[folder], key=suggested).strip()
    out = Path(named).expanduser()
    try:
        if not named:  # a path of no name is the folder the server was started in
            raise ExportError("the output folder has no name; give a new or empty folder")
        confine(out)
        chosen = load_pair(view, include or None, exclude or None)
        default = {**method, "include": include or None, "exclude": exclude or None, "dtype": output.dtype}
        repair = planned(view, chosen, **default)
    except DgvizError as error:
        show_error(error)
        draw_list("repair", draw_result)
        st.stop()
    written = {"format": output.format, **output.arguments, "device": view.device}
    command = Command("repair", base=base, tuned=tuned, out=out, **repair.arguments, **written)
    if draw_plan(chosen, repair, out, output):
        st.button(
            "Start export",
            type="primary",
            icon=":material/save:",
            on_click=try_start,
            args=(command, f"{tuned.name} → {out.name}", out),
        )
    draw_start_error()
    draw_command(command)
    draw_list("repair", draw_result)


def _offer_tau(view: View) -> None:
    """Offer to put a threshold that was set by hand into the plan, where it is not there."""
    weight = view.weight if view.index is None else f"{view.weight}[{view.index}]"
    try:
        text = f"name={weight}: tau={exact_number(float(view.tau))}"
    except ValueError:
        return
    if text in read_saved(view).overrides:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.info(f"τ = {view.tau} was set by hand on {weight}, and is not in the plan.")
        st.button(
            "This weight only", key="offer-tau", icon=":material/add:", on_click=add_override, args=(view, text)
        )
