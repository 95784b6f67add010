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
from dgviz.app.roots import confine, writable_home
from dgviz.app.selection import choose_names
from dgviz.command import Command
from dgviz.errors import DgvizError, ExportError
from dgviz.repair.plan import RepairPlan


def draw() -> None:
    """Draw the page."""
    view = enter_page("Write the repaired checkpoint")
    require_pair(view)
    st.caption("Choose how every weight is repaired, and what to write.")
    method = choose_method(view)
    if view.tau and "rule" in method:
        st.info(
            f"τ = {view.tau} was set by hand for one weight, to look at. An export applies a rule to every weight; "
            "to apply this one number to all of them, choose the manual rule."
        )
    include, exclude = choose_names(view)
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
        repair = RepairPlan(**method, include=include or None, exclude=exclude or None, dtype=output.dtype)
        chosen = load_pair(view, repair.include, repair.exclude)
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
