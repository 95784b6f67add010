"""Export: write the repaired checkpoint."""

from pathlib import Path

import streamlit as st

from dgviz.errors import DgvizError
from dgviz.plan import OUTPUT_DTYPES, RepairPlan
from dgviz.ui.export_page import draw_command, draw_jobs, draw_plan, draw_start_error, start
from dgviz.ui.exports import free_folder, repair_command
from dgviz.ui.frame import enter_page, require_pair
from dgviz.ui.messages import show_error
from dgviz.ui.pair import checkpoint_path, load_pair
from dgviz.ui.roots import confine, writable_home
from dgviz.ui.rules import choose_rule

view = enter_page("Write the repaired checkpoint")
pair = require_pair(view)
st.caption("Choose what decides the rank of every weight. The output keeps tuned's names, files and tokenizer.")
rule, params = choose_rule(view)
if view.tau:
    st.info(
        f"τ = {view.tau} was set by hand for one weight, to look at. An export applies a rule to every weight; to "
        "apply this one number to all of them, choose the manual rule."
    )
left, middle, right = st.columns(3)
include = left.text_input(
    "Repair only names matching", key="include", placeholder="regular expression, e.g. attention"
)
exclude = middle.text_input("Keep names matching as tuned", key="exclude", placeholder="e.g. embed|lm_head")
dtype = right.selectbox(
    "Output dtype",
    OUTPUT_DTYPES,
    key="dtype",
    help="auto keeps each tensor's dtype. bfloat16 can round a small repaired update away; float32 keeps it.",
)
tuned_name = checkpoint_path(view.tuned).name
suggested = f"{tuned_name}-{rule.name.replace('_', '-')}"
if suggested not in st.session_state:  # chosen once, so that it does not move on when the export has filled it
    st.session_state[suggested] = str(free_folder(writable_home() / "dgviz-exports" / suggested))
folder = st.text_input("Output folder (new or empty)", key=suggested)
out = Path(folder).expanduser()
options = {
    "rule": "" if rule.name == "dg_hard" else rule.name,
    "rule-param": ",".join(f"{name}={value:g}" for name, value in rule.changed(params).items()),
    "include": include,
    "exclude": exclude,
    "dtype": "" if dtype == "auto" else dtype,
    "device": "" if view.device == "auto" else view.device,
}
command = repair_command(checkpoint_path(view.base), checkpoint_path(view.tuned), out, options)
try:
    confine(out)
    chosen = load_pair(view, include or None, exclude or None)
except DgvizError as error:
    show_error(error)
    draw_jobs()
    st.stop()
if draw_plan(chosen, RepairPlan(rule.name, params, include or None, exclude or None, dtype), out):
    st.button(
        "Start export",
        type="primary",
        icon=":material/save:",
        on_click=start,
        args=(command, out, f"{tuned_name} → {out.name}"),
    )
draw_start_error()
draw_command(command)
draw_jobs()
