"""The frame around every page: navigation, the open pair, the device, running jobs."""

from pathlib import Path

import streamlit as st

from dgviz.app import worker as work
from dgviz.app.jobs import draw_running, running_jobs
from dgviz.app.late import readdress_late_reruns
from dgviz.app.messages import show_error
from dgviz.app.navigation import navigate, page
from dgviz.app.pair import checkpoint_label, load_pair, remember_pair
from dgviz.app.state import View, change_view, close_pair, current_view
from dgviz.checkpoint import CheckpointPair
from dgviz.errors import DgvizError, PairError


def run_app() -> None:
    """Set the app up and run the page that the URL names; all that app.py does."""
    _configure()
    work.worker()  # warms up while the first page is read
    chosen = navigate()
    st.session_state["routed"] = True
    try:
        with st.sidebar:
            _sidebar()
        chosen.run()
    finally:
        readdress_late_reruns()


def _configure() -> None:
    """Set title and icon: a picture of our own, since Streamlit would fetch a named one from elsewhere."""
    st.set_page_config(page_title="dgviz", page_icon=str(Path(__file__).with_name("icon.png")), layout="wide")


def enter_page(title: str) -> View:
    """Begin a page: route it if it was reached directly, reconcile URL and session, print its title.

    On a fresh server a first request to a page's own URL runs the page without app.py; then the navigation is
    declared here and the script runs again, through app.py.
    """
    if not st.session_state.get("routed"):
        st.session_state["routed"] = True
        _configure()
        navigate()
        st.rerun()
    view = current_view()
    st.title(title, anchor=False)
    return view


def require_pair(view: View) -> CheckpointPair:
    """Return the pair in view if it has weights to look at, or explain what is missing and stop the page."""
    pair = open_view(view)
    if not pair.repairable:
        show_error(PairError(pair.blockers[0].sentence))
        st.page_link(page("checkpoints"), label="See every tensor and its reason", icon=":material/folder_open:")
        st.stop()
    return pair


def open_view(view: View) -> CheckpointPair:
    """Return the pair in view, whatever blocks its repair, or explain what is missing and stop the page."""
    if not view.has_pair:
        st.info("No pair is open. Choose a base checkpoint and its fine-tuned descendant, or start with the demo.")
        with st.container(horizontal=True):
            st.page_link(page("checkpoints"), label="Choose checkpoints", icon=":material/folder_open:")
            demo_buttons()
        st.stop()
    try:
        pair = load_pair(view)
    except (DgvizError, OSError) as error:
        show_error(error)
        st.page_link(page("checkpoints"), label="Choose other checkpoints", icon=":material/folder_open:")
        st.stop()
    remember_pair(view)
    return pair


def demo_buttons() -> None:
    """Offer the two built-in fine-tunes."""
    for name, title in (("noisy", "Open the noisy demo"), ("clean", "Open the clean demo")):
        st.button(
            title,
            key=f"open-{name}",
            icon=":material/play_arrow:",
            on_click=change_view,
            kwargs={"base": "demo:base", "tuned": f"demo:{name}"},
        )


def _sidebar() -> None:
    """Show the pair, the device and the jobs that run."""
    view = current_view()
    st.caption("PAIR")
    if view.has_pair:
        st.text(f"{checkpoint_label(view.base)}  →  {checkpoint_label(view.tuned)}")
        st.button("Close", icon=":material/close:", on_click=close_pair, type="tertiary", key="close-pair")
    else:
        st.text("none open")
    waiting = work.devices() is None or running_jobs()
    st.fragment(_machine, run_every=2 if waiting else None)(view)


def _machine(view: View) -> None:
    """Choose the device and show jobs that run; the page never waits for the worker to say what devices exist."""
    st.caption("DEVICE")
    known = work.devices()
    if known is None:
        st.text("looking ...")
    else:
        _device_choice(view, known)
    draw_running()
    if st.session_state.pop("device-changed", False):
        st.rerun()  # the whole page, not only this part of it


def _device_choice(view: View, known: dict[str, str]) -> None:
    """Choose where to compute."""
    options = ["auto", *known]
    automatic = next(iter(known.values()))
    if "device-choice" not in st.session_state:
        st.session_state["device-choice"] = view.device if view.device in options else "auto"
    st.selectbox(
        "Device",
        options,
        format_func=lambda name: f"auto: {automatic}" if name == "auto" else known[name],
        label_visibility="collapsed",
        key="device-choice",
        on_change=_change_device,
    )


def _change_device() -> None:
    """Compute elsewhere from now on."""
    change_view(device=st.session_state["device-choice"])
    st.session_state["device-changed"] = True
