"""Open: choose base and tuned, see whether the method applies to them, and what will happen to every tensor."""

import streamlit as st

from dgviz.app.fetches import require_fetched
from dgviz.app.frame import enter_page, open_view, page, require_opened
from dgviz.app.jobs import draw_task, try_start
from dgviz.app.messages import plain, show_error
from dgviz.app.model_verdict import draw_verdict
from dgviz.app.navigation import lead_to
from dgviz.app.pair import DEMO, checkpoint_label, checkpoint_path, load_preflight
from dgviz.app.picker import OPENED, choose_pair, demo_buttons, draw_recents
from dgviz.app.preflight import draw_fates, draw_notices, draw_scores, draw_sides
from dgviz.app.recents import remember_pair, take_typed
from dgviz.app.rules import current_rule
from dgviz.app.scans import find_scan, scan_task
from dgviz.app.spectra import load_assessments, load_spectra
from dgviz.app.state import View
from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.remote.record import is_remote
from dgviz.errors import DgvizError
from dgviz.rmt.diagnosis import VERDICTS

_SCAN_ENTRIES = 2.5e8  # up to so many a scan takes well under a minute on two cores, and is begun without being asked


def draw() -> None:
    """Draw the page."""
    view = enter_page("Open a pair")
    left, right = st.columns([0.36, 0.64], gap="large")
    with left:
        choose_pair(view)
        with st.container(horizontal=True):
            demo_buttons()
        draw_recents()
        st.caption(
            "dgviz looks at what fine-tuning added to every weight of a base checkpoint: a few strong directions on "
            "top of noise, or something else. DG-Hard keeps the directions above a threshold and takes the rest for "
            "noise; here you can see whether that is so for your pair."
        )
    with right:
        _draw_pair(view)


def _draw_pair(view: View) -> None:
    """Draw what is known of the pair in view, the verdict on it, and the way on."""
    if not view.has_pair:
        st.info(
            "No pair is open. Name both checkpoints, each a folder, a Hugging Face id (org/name) or an address "
            "(hf://, https://, s3://, gs://), or start with the demo."
        )
        return
    st.subheader(plain(f"{checkpoint_label(view.base)} → {checkpoint_label(view.tuned)}"), anchor=False)
    require_opened(view)
    require_fetched(view)
    pair = open_view(view)
    preflight = load_preflight(view)
    st.markdown(preflight.summary)
    draw_notices(preflight)
    if pair.repairable:
        _scan_by_itself(view, pair)
        known = _draw_verdict(view, pair)
        if not known:
            draw_task(scan_task(view, pair))
        st.button(
            "Look at the weights", type="primary", icon=":material/dashboard:", on_click=lead_to, args=("workbench",)
        )
    if view.tuned.startswith(DEMO):
        st.markdown(
            "This is the built-in demo: a small vision transformer that knows handwritten digits in four views, "
            "fine-tuned on scrambled pixels. The *clean* fine-tune has little noise to remove; the *noisy* one was "
            "trained with noisy gradients. Both are real training runs, and DG-Hard does not help both."
        )
    if draw_scores(checkpoint_path(view.tuned).parent, checkpoint_path(view.tuned).name):
        st.page_link(page("evidence"), label="Every method, scored", icon=":material/healing:")
    draw_sides(pair)
    draw_fates(preflight)
    if pair.repairable and known:
        draw_task(scan_task(view, pair))


def _draw_verdict(view: View, pair: CheckpointPair) -> bool:
    """Say whether the rule in view may be trusted on the model; return whether all its weights are scanned."""
    job = find_scan(pair)
    spectra = load_spectra(pair, job.id if job is not None and job.state == "done" else "")
    if spectra.missing or (job is not None and job.state == "running"):
        return False
    rule, params = current_rule(view)
    try:
        rows = load_assessments(pair, spectra, rule.name, params)
    except DgvizError as error:
        show_error(error)
        return True
    diagnosis = draw_verdict(pair, rows, rule, params, whole=True)
    if not rule.changed(params):
        remember_pair(view, f"{rule.title} {VERDICTS[diagnosis.verdict]}")
    return True


def _scan_by_itself(view: View, pair: CheckpointPair) -> None:
    """Begin the scan of a pair that was opened here, where that is a matter of seconds; never from a link alone."""
    clicked, typed = st.session_state.pop(OPENED, None) == (view.base, view.tuned), take_typed(view)
    if not (clicked or typed):
        return
    if any(is_remote(side.path) for side in (pair.base, pair.tuned)):
        return  # a scan reads all of it, which is for whoever pays for the line to say
    task = scan_task(view, pair)
    small = sum(tensor.tuned.numel for tensor in pair.repairable) <= _SCAN_ENTRIES
    if small and task.job is None and load_spectra(pair).missing:
        try_start(task.command, task.title, task.lock)
