"""The frame around every place: the bar with the open pair, its plan and running jobs; the drawer of the plan."""

import gc
import importlib
from pathlib import Path

import streamlit as st
from streamlit import config

from dgviz.app import worker as work
from dgviz.app.jobs import draw_running, running_jobs
from dgviz.app.late import readdress_late_reruns
from dgviz.app.messages import plain, show_error
from dgviz.app.navigation import navigate, page
from dgviz.app.pair import checkpoint_label, load_pair
from dgviz.app.picker import demo_buttons
from dgviz.app.plans import PLAN_CHANGED, read_saved
from dgviz.app.recents import note_opened, remember_pair, was_opened
from dgviz.app.state import View, change_view, close_pair, current_view
from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.read import samples_kept
from dgviz.errors import DgvizError, PairError, ServerError

gc.set_threshold(200_000, 20, 20)  # of 36,000 matrices, looking for cycles after every 700 objects is a fifth of all


def run_app() -> None:
    """Set the app up and run the page that the URL names; all that app.py does."""
    _configure()
    _refuse_unguarded()
    work.worker()  # warms up while the first page is read
    chosen = navigate()
    st.session_state["routed"] = True
    gc.disable()  # what a page leaves to be collected can wait for its end
    try:
        view = current_view()
        st.session_state.pop(PLAN_CHANGED, None)  # this run draws it
        planning = view.plan == "open" and view.has_pair and was_opened(view)
        with st.container(key="bar", horizontal=True, vertical_alignment="center", width="content", wrap=False):
            _bar(view)
        if planning:
            with st.container(key="drawer"):
                _drawer(view)
        # By its name the document's style knows the place.
        with st.container(key=f"place-{chosen.url_path or 'open'}"), samples_kept():
            chosen.run()
    finally:
        gc.enable()
        readdress_late_reruns()


def _refuse_unguarded() -> None:
    """Stop where Streamlit serves a script of the dashboard by itself, and so to everybody."""
    if config._server_mode == "starlette-managed":
        show_error(ServerError(f"{config._main_script_path} asks nobody for a token: start app.py, or `dgviz app`"))
        st.stop()


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
        _refuse_unguarded()
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
        st.page_link(page("open"), label="See every tensor and its reason", icon=":material/folder_open:")
        st.stop()
    return pair


def require_opened(view: View) -> None:
    """Ask before anything is read of a pair that only a link names, and stop the page until somebody says yes."""
    if was_opened(view):
        return
    st.markdown("This link names a pair that was not opened here before. Nothing of it has been read.")
    st.text(f"base   {view.base}\ntuned  {view.tuned}")
    st.button(
        "Open this pair",
        key="open-linked",
        icon=":material/folder_open:",
        type="primary",
        on_click=note_opened,
        args=(view.base, view.tuned),
    )
    st.stop()


def open_view(view: View) -> CheckpointPair:
    """Return the pair in view, whatever blocks its repair, or explain what is missing and stop the page."""
    if not view.has_pair:
        st.info("No pair is open. Choose a base checkpoint and its fine-tuned descendant, or start with the demo.")
        with st.container(horizontal=True):
            st.page_link(page("open"), label="Choose checkpoints", icon=":material/folder_open:")
            demo_buttons()
        st.stop()
    require_opened(view)
    try:
        pair = load_pair(view)
    except (DgvizError, OSError) as error:
        show_error(error)
        st.page_link(page("open"), label="Choose other checkpoints", icon=":material/folder_open:")
        st.stop()
    remember_pair(view)
    return pair


def _bar(view: View) -> None:
    """Show the pair, what runs, and the plan."""
    waits = _waits()
    st.fragment(_running, run_every=2 if waits else None)(waits)
    pair = f"{checkpoint_label(view.base)}  →  {checkpoint_label(view.tuned)}" if view.has_pair else "no pair is open"
    with st.popover(plain(pair), icon=":material/difference:", type="tertiary", wrap=False):
        if view.has_pair:
            st.text(f"{view.base}\n→ {view.tuned}")
            st.button(
                "Close the pair", icon=":material/close:", on_click=close_pair, type="tertiary", key="close-pair"
            )
        st.fragment(_machine, run_every=2 if waits else None)(view)
    if view.has_pair:
        st.button(
            plan_label(view),
            key="plan",
            icon=":material/playlist_add_check:",
            type="primary",
            help="What will be written: what every weight gets, what is treated apart, and where it goes.",
            on_click=change_view,
            kwargs={"plan": "" if view.plan else "open"},
        )


def plan_label(view: View) -> str:
    """Return what the button of the plan says."""
    count = len(read_saved(view).overrides)
    return "Plan" if not count else f"Plan · {count} override{'s' if count > 1 else ''}"


def _drawer(view: View) -> None:
    """Draw the plan; its module is loaded when it is first opened."""
    importlib.import_module("dgviz.app.drawer").draw_drawer(view)


def _waits() -> bool:
    """Return whether something of the bar will change by itself."""
    return work.devices() is None or any(not job.damage for _, job in running_jobs())


def _running(waited: bool) -> None:
    """Show the jobs that run, each with how far it is, behind a button; look again until there is nothing more."""
    if waited and not _waits():
        st.rerun()  # only a run of the whole page ends its looks
    jobs = running_jobs()
    if jobs:
        damaged = sum(bool(job.damage) for _, job in jobs)
        counts = {"running": len(jobs) - damaged, "unreadable": damaged}
        label = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        with st.popover(label, icon=":material/progress_activity:", type="tertiary"):
            draw_running(jobs)


def _machine(view: View) -> None:
    """Choose the device; the page never waits for the worker to say what devices exist."""
    known = work.devices()
    if known is None:
        st.text("looking for devices ...")
    else:
        _device_choice(view, known)
    if st.session_state.pop("device-changed", False):
        st.rerun()  # the whole page, not only this part of it


def _device_choice(view: View, known: dict[str, str]) -> None:
    """Choose where to compute."""
    options = ["auto", *known]
    automatic = next(iter(known.values()))
    if "device-choice" not in st.session_state:
        st.session_state["device-choice"] = view.device if view.device in options else "auto"
    st.selectbox(
        "Computed on",
        options,
        format_func=lambda name: f"auto: {automatic}" if name == "auto" else known[name],
        key="device-choice",
        on_change=_change_device,
    )


def _change_device() -> None:
    """Compute elsewhere from now on."""
    change_view(device=st.session_state["device-choice"])
    st.session_state["device-changed"] = True
