"""Checkpoints: choose base and tuned, and see what will happen to every tensor."""

import streamlit as st

from dgviz.app.fetches import require_fetched
from dgviz.app.frame import demo_buttons, enter_page, open_view, page
from dgviz.app.jobs import draw_task, try_start
from dgviz.app.messages import show_error
from dgviz.app.pair import DEMO, checkpoint_label, checkpoint_path, load_pair, load_preflight, recent_pairs
from dgviz.app.preflight import draw_fates, draw_notices, draw_scores, draw_summary
from dgviz.app.scans import scan_task
from dgviz.app.spectra import load_spectra
from dgviz.app.state import View, change_view
from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.hub import split_hub_id
from dgviz.errors import DgvizError

_OPENED = "opened-here"
_SCAN_ENTRIES = 2.5e8  # up to so many a scan takes well under a minute on two cores, and is begun without being asked


def draw() -> None:
    """Draw the page."""
    view = enter_page("Checkpoints")
    st.markdown(
        "dgviz opens a base checkpoint and its fine-tuned descendant and looks at what fine-tuning added to every "
        "weight: a few strong directions on top of noise, or something else. DG-Hard keeps the directions above a "
        "threshold and takes the rest for noise; here you can see whether that is so for your pair."
    )
    with st.form("pair", border=True):
        left, right = st.columns(2)
        shown = view if view.has_pair else None
        base = left.text_input(
            "Base checkpoint", shown.base if shown else "", placeholder="folder or org/name, before"
        )
        tuned = right.text_input(
            "Tuned checkpoint", shown.tuned if shown else "", placeholder="folder or org/name, after"
        )
        if st.form_submit_button("Open pair", icon=":material/folder_open:"):
            base, tuned = (typed.strip().strip("'\"") for typed in (base, tuned))
            if not (base and tuned):
                st.warning("Both are needed: the model before fine-tuning and the model after.")
            elif _opens(base, tuned):
                _take(base, tuned)
                st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        demo_buttons()
        for number, (known_base, known_tuned) in enumerate(recent_pairs()):
            st.button(
                f"{checkpoint_label(known_base)} → {checkpoint_label(known_tuned)}",
                key=f"recent-{number}",
                icon=":material/history:",
                help=f"{known_base} → {known_tuned}",
                on_click=_take,
                args=(known_base, known_tuned),
            )
    if not view.has_pair:
        st.info(
            "No pair is open. Name both checkpoints above, each a folder or a Hugging Face id (org/name), or start "
            "with the demo."
        )
        st.stop()

    require_fetched(view)
    pair = open_view(view)
    preflight = load_preflight(view)
    draw_summary(pair, preflight)
    draw_notices(preflight)
    if view.tuned.startswith(DEMO):
        st.markdown(
            "This is the built-in demo: a small vision transformer that knows handwritten digits in four views, "
            "fine-tuned on scrambled pixels. The *clean* fine-tune has little noise to remove; the *noisy* one was "
            "trained with noisy gradients. Both are real training runs, and DG-Hard does not help both."
        )
    if pair.repairable:
        _scan_by_itself(view, pair)
        if st.button("Look at the weights", type="primary", icon=":material/dashboard:"):
            st.switch_page(page("workbench"))
    if draw_scores(checkpoint_path(view.tuned).parent, checkpoint_path(view.tuned).name):
        st.page_link(page("recovery"), label="Every method, on the Recovery page", icon=":material/healing:")
    if pair.repairable:
        draw_task(scan_task(view, pair))
    draw_fates(preflight)


def _opens(base: str, tuned: str) -> bool:
    """Say whether a pair can be opened; why not is shown, and the pair that is open stays."""
    if any(split_hub_id(side) is not None and not checkpoint_path(side).exists() for side in (base, tuned)):
        return True  # not fetched yet: the page says how much there is to fetch
    try:
        load_pair(View(base=base, tuned=tuned))
    except (DgvizError, OSError) as error:
        show_error(error)
        return False
    return True


def _take(base: str, tuned: str) -> None:
    """Open a pair, which the user has asked for here."""
    change_view(base=base, tuned=tuned)
    st.session_state[_OPENED] = base, tuned


def _scan_by_itself(view: View, pair: CheckpointPair) -> None:
    """Begin the scan of a pair that was opened here, where that is a matter of seconds; never from a link alone."""
    if st.session_state.pop(_OPENED, None) != (view.base, view.tuned):
        return
    task = scan_task(view, pair)
    small = sum(tensor.tuned.numel for tensor in pair.repairable) <= _SCAN_ENTRIES
    if small and task.job is None and load_spectra(pair).missing:
        try_start(task.command, task.title, task.lock)
