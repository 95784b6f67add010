"""Scans of a whole pair as detached jobs: started, watched, cancelled and gone on with."""

import hashlib
import sys
import time
from pathlib import Path

import streamlit as st

from dgviz.app.exports import shown_command
from dgviz.app.messages import show_error
from dgviz.app.pair import state_dir
from dgviz.checkpoint import CheckpointPair
from dgviz.jobs import Job, JobError, list_jobs, start_job


def scans_root() -> Path:
    """Return the directory that holds a directory per scan; exports have one of their own."""
    return state_dir() / "scans"


def running_scans() -> list[Job]:
    """Return the scans that run now, newest first."""
    return [job for job in list_jobs(scans_root()) if job.state == "running"]


def scan_command(base: Path, tuned: Path, device: str = "auto") -> list[str]:
    """Return the command that puts every spectrum of a pair into the store.

    It names no rule: spectra are the same for all, and pages apply theirs to what is stored.
    """
    command = ["python", "-m", "dgviz", "scan", str(base), str(tuned)]
    return command if device == "auto" else [*command, "--device", device]


def find_scan(pair: CheckpointPair) -> Job | None:
    """Return the last scan of a pair, in the state its files are in now, or None."""
    return next((job for job in list_jobs(scans_root()) if job.lock == _lock(pair)), None)


def start_scan(pair: CheckpointPair, command: list[str], title: str) -> Job:
    """Start a scan that outlives the page and the server."""
    root = Path(__file__).parents[2]
    return start_job([sys.executable, *command[1:]], scans_root(), title, lock=_lock(pair), cwd=root)


def _lock(pair: CheckpointPair) -> Path:
    """Return what stands for a pair among the locks: nothing is ever written there."""
    identity = hashlib.sha256(f"{pair.base.fingerprint}{pair.tuned.fingerprint}".encode()).hexdigest()
    return scans_root().resolve() / ".pairs" / identity


@st.fragment(run_every=1.0)
def draw_scan(pair: CheckpointPair, command: list[str], title: str) -> None:
    """Show the scan of a pair, live: a button to start it, its progress, or what came of it."""
    job = find_scan(pair)
    state = None if job is None else job.state
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(f"**Every weight's spectrum**  {_described(job, state)}")
            if state == "running":
                st.button("Cancel", key=f"cancel-scan-{job.id}", icon=":material/cancel:", on_click=job.cancel)
            else:
                st.button(
                    {None: "Scan every weight", "done": "Scan again"}.get(state, "Go on"),
                    key="start-scan",
                    icon=":material/play_arrow:",
                    type="tertiary" if state == "done" else "secondary",
                    on_click=_start,
                    args=(pair, command, title),
                )
        if state == "running":
            _draw_progress(job)
        elif state in ("failed", "died"):
            _draw_failure(job)
        if state != "done":
            with st.expander("The same on the command line"):
                st.code(shown_command(command), language="bash", wrap_lines=True)
    seen = st.session_state.get("scan-seen")
    st.session_state["scan-seen"] = (_lock(pair), state)
    if seen is not None and seen[0] == _lock(pair) and seen[1] != state:
        st.rerun()  # it has begun or ended: the page around it says or does something else now


def _start(pair: CheckpointPair, command: list[str], title: str) -> None:
    """Start the scan, or say why not."""
    try:
        start_scan(pair, command, title)
    except (JobError, OSError) as error:
        show_error(error)


def _described(job: Job | None, state: str | None) -> str:
    """Return the state of a scan in words."""
    if state is None:
        return "is computed in the background and kept, so that no page waits for it."
    if state == "done":
        result = job.result or {}
        found, computed, seconds = (result.get(name, 0) for name in ("stored", "computed", "seconds"))
        return f":material/check_circle: known: {computed} computed in {_duration(seconds)}, {found} had been before."
    return {
        "running": ":material/progress_activity: being computed",
        "cancelled": ":material/cancel: cancelled; what was computed is kept.",
        "failed": ":material/error: some could not be computed; the others are kept.",
        "died": ":material/error: ended without a word; what was computed is kept.",
    }[state]


def _draw_progress(job: Job) -> None:
    """Show how far a scan is."""
    progress = job.progress()
    elapsed = _duration(time.time() - job.created)
    if progress is None:
        st.progress(0.0, text=f"starting ... {elapsed}")
        return
    left = progress.seconds_left()
    stored = progress.extra.get("stored", 0)
    parts = [
        progress.message,
        f"{progress.extra.get('matrices', 0)} matrices" + (f", {stored} of them known before" if stored else ""),
        elapsed,
        *([] if left is None else [f"about {_duration(left)} left"]),
    ]
    st.progress(progress.fraction, text=" · ".join(parts))


def _draw_failure(job: Job) -> None:
    """Say what went wrong, weight by weight where it is known."""
    st.text(job.error or "")
    errors = (job.result or {}).get("errors", {})
    if errors:
        rows = [{"weight": name, "error": error} for name, error in errors.items()]
        st.dataframe(rows, hide_index=True, width="stretch", height=min(38 + 35 * len(rows), 300))
    with st.expander("Log"):
        st.code(job.log_tail(), language=None)


def _duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
