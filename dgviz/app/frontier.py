"""Methods at every strength against scores: the demo's own sweep, or a file that ``sweep`` has written."""

from typing import Any

import streamlit as st

from dgviz.analysis.sweep import find_standing, read_sweep, standing_words
from dgviz.app.messages import plain, show_error
from dgviz.app.pair import DEMO, checkpoint_path
from dgviz.app.roots import confine, typed_path
from dgviz.app.state import View
from dgviz.command import Command
from dgviz.demo import read_frontier
from dgviz.errors import AccessError, ScoresError
from dgviz.figures import frontier_plot, plot_config
from dgviz.repair.methods import METHODS
from dgviz.scores.read import read_scores_file

_FIRST = ("dg_hard", "wise_ft", "lines", "ties", "norm_matched", "norm_matched_global", "complement")


@st.fragment
def draw_frontier(view: View) -> None:
    """Draw held-out against target score of every method along its strength, and say where DG-Hard stands."""
    st.subheader("At every strength, scored", anchor=False)
    try:
        sweep = _sweep(view)
    except (ScoresError, AccessError, OSError) as error:
        show_error(error)
        return
    if sweep is None:
        return
    there = list(dict.fromkeys(line["method"] for line in sweep["lines"]))
    chosen = st.multiselect(
        "Methods drawn",
        there,
        default=[name for name in _FIRST if name in there] or there,
        format_func=lambda name: METHODS[name].listed,
        key="frontier-methods",
    )
    st.markdown(plain(standing_words(find_standing(sweep["lines"]))))
    st.plotly_chart(frontier_plot(sweep, methods=chosen), config=plot_config("frontier"), key="frontier")
    st.caption(
        "Up: more of what base could do. Right: more of what was trained. Numbers are strengths, bars one standard "
        "error, dashed lines controls. What lies above and to the right of a point is better; the sentence compares "
        "all methods, drawn or not. The best of many points is chosen after the fact, on the examples of its scores."
    )


def _sweep(view: View) -> dict[str, Any] | None:
    """Return the demo's sweep, or the one of a file; None after saying how to make one."""
    if view.base == f"{DEMO}base" and view.tuned.startswith(DEMO):
        sweep = (read_frontier() or {}).get(view.tuned.removeprefix(DEMO))
        if sweep is not None:
            return sweep
    left, right = st.columns(2)
    typed = left.text_input("Result of a sweep, on this machine", key="sweep-path", placeholder="sweep.json").strip()
    upload = right.file_uploader("or upload it", type="json", key="sweep-upload")
    if upload is not None:
        return read_sweep(upload.getvalue(), upload.name)
    if typed:
        path = confine(typed_path(typed))
        return read_sweep(read_scores_file(path), str(path))
    st.markdown(
        "Which repair heals more is not in the weights: it takes scores. Write the points of a sweep (`repair-all`), "
        "score base, tuned and each of them on your own tasks, and let `sweep` put the scores beside the figures. In "
        "the scores a point is called by its settings, `wise_ft:alpha=0.3`, or as `repair-all` calls its folder."
    )
    base, tuned = checkpoint_path(view.base), checkpoint_path(view.tuned)
    scored = {"scores": ["scores.csv"], "on_task": "BENCHMARK", "save": "sweep.json"}
    st.code(str(Command("sweep", base=base, tuned=tuned, **scored)), language="bash", wrap_lines=True)
    return None
