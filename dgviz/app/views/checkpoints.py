"""Checkpoints: choose base and tuned, and see what will happen to every tensor."""

import streamlit as st

from dgviz.app.fetches import require_fetched
from dgviz.app.frame import demo_buttons, enter_page, open_view, page
from dgviz.app.jobs import draw_task
from dgviz.app.pair import DEMO, checkpoint_label, checkpoint_path, load_preflight, recent_pairs
from dgviz.app.preflight import draw_fates, draw_notices, draw_scores, draw_summary
from dgviz.app.scans import scan_task
from dgviz.app.state import change_view


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
            if base and tuned:
                change_view(base=base, tuned=tuned)
                st.rerun()
            st.warning("Both are needed: the model before fine-tuning and the model after.")
    with st.container(horizontal=True, vertical_alignment="center"):
        demo_buttons()
        for number, (known_base, known_tuned) in enumerate(recent_pairs()):
            st.button(
                f"{checkpoint_label(known_base)} → {checkpoint_label(known_tuned)}",
                key=f"recent-{number}",
                icon=":material/history:",
                help=f"{known_base} → {known_tuned}",
                on_click=change_view,
                kwargs={"base": known_base, "tuned": known_tuned},
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
    if pair.repairable and st.button(
        "Look at a weight's update (Figure 4)", type="primary", icon=":material/grid_on:"
    ):
        st.switch_page(page("layer"))
    if draw_scores(checkpoint_path(view.tuned).parent, checkpoint_path(view.tuned).name):
        st.page_link(page("recovery"), label="Every method, on the Recovery page", icon=":material/healing:")
    if pair.repairable:
        draw_task(scan_task(view, pair))
    draw_fates(preflight)
