"""Models named by hub ids that are not on this machine: what fetching them means, and the job that does it."""

import sys
from pathlib import Path

import streamlit as st

from dgviz.app.exports import shown_command
from dgviz.app.messages import show_error
from dgviz.app.pair import checkpoint_path, state_dir
from dgviz.app.preflight import size_text
from dgviz.app.roots import confine
from dgviz.app.state import View
from dgviz.checkpoint import open_checkpoint
from dgviz.checkpoint.hub import HubPlan, cache_folder, find_cached, is_cached_whole, plan_download, split_hub_id
from dgviz.errors import AccessError, CheckpointError
from dgviz.jobs import Job, JobError, list_jobs, start_job


def fetches_root() -> Path:
    """Return the directory that holds a directory per download."""
    return state_dir() / "fetches"


def running_fetches() -> list[Job]:
    """Return the downloads that run now, newest first."""
    return [job for job in list_jobs(fetches_root()) if job.state == "running"]


def fetch_command(name: str) -> list[str]:
    """Return the command that fetches a model."""
    return ["python", "-m", "dgviz", "fetch", name]


def find_fetch(name: str) -> Job | None:
    """Return the last download of a model, in the state its files are in now, or None."""
    return next((job for job in list_jobs(fetches_root()) if job.title == name), None)


def start_fetch(name: str) -> Job:
    """Start a download that outlives the page and the server."""
    confine(cache_folder())
    repo = split_hub_id(name)[0]
    lock = cache_folder() / f"models--{repo.replace('/', '--')}"
    root = Path(__file__).parents[2]
    return start_job([sys.executable, *fetch_command(name)[1:]], fetches_root(), name, lock=lock, cwd=root)


def require_fetched(view: View) -> None:
    """Offer to fetch what the pair in view lacks, and stop the page until it is there."""
    lacking = [name for name in dict.fromkeys((view.base, view.tuned)) if view.has_pair and _lacks(name)]
    for name in lacking:
        running = (job := find_fetch(name)) is not None and job.state == "running"
        st.fragment(_draw_fetch, run_every=1.0 if running else None)(name)
    if lacking:
        st.stop()


def _lacks(name: str) -> bool:
    """Say whether a name is a hub id whose weights are not, or not all, on this machine."""
    hub = split_hub_id(name)
    if hub is None:
        return False
    try:
        checkpoint_path(name)
        if find_cached(*hub) is None:
            return True
        if is_cached_whole(*hub):
            return False
        open_checkpoint(name)  # a licence may lack; weights may not
    except AccessError:
        return False  # opening says so
    except CheckpointError:
        return True
    return False


def _draw_fetch(name: str) -> None:
    """Show a download: what it would bring and the button that starts it, its progress, or what came of it."""
    job = find_fetch(name)
    state = None if job is None else job.state
    if state == "done" and not _lacks(name):
        st.rerun()
    with st.container(border=True):
        if state == "running":
            _draw_running(job)
            return
        if state in ("failed", "died"):
            show_error(CheckpointError(job.error or ""))
        _draw_plan(name)


def _draw_running(job: Job) -> None:
    """Show how far a download is; ended by force, for a transfer of the hub listens to nobody."""
    progress = job.progress()
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.text(f"{job.title} is being fetched")
        st.button("Cancel", key=f"cancel-{job.id}", icon=":material/cancel:", on_click=job.cancel, args=(True,))
    if progress is None:
        st.progress(0.0, text="asking the hub")
        return
    left = progress.seconds_left()
    parts = [f"{size_text(progress.done)} of {size_text(progress.total)}"]
    parts += [] if left is None else [f"about {left:.0f} s left"]
    st.progress(progress.fraction, text=" · ".join(parts))


def _draw_plan(name: str) -> None:
    """Show what fetching a model means, and the button that starts it."""
    try:
        with st.spinner("Asking the Hugging Face Hub"):
            plan = _plan(*split_hub_id(name))
    except CheckpointError as error:
        show_error(error)
        st.button("Ask again", key=f"ask-{name}", icon=":material/refresh:")
        return
    st.text(f"{name} is not on this machine.")
    there = f", {len(plan.cached)} are in the cache" if plan.cached else ""
    st.caption(
        f"Commit {plan.commit[:12]}: {len(plan.files)} files to fetch{there}. Weights and configs, never code."
    )
    if st.button(f"Fetch {size_text(plan.nbytes)}", key=f"fetch-{name}", icon=":material/download:", type="primary"):
        try:
            start_fetch(name)
        except (JobError, AccessError, OSError) as error:
            show_error(error)
            return
        st.rerun()
    with st.expander("Files, and the same on the command line"):
        st.code(shown_command(fetch_command(name)), language="bash", wrap_lines=True)
        st.dataframe(_rows(plan), hide_index=True, width="stretch", height="content")


@st.cache_data(ttl=60, show_spinner=False)
def _plan(repo: str, revision: str | None) -> HubPlan:
    return plan_download(repo, revision)


def _rows(plan: HubPlan) -> list[dict[str, str]]:
    return [
        {"file": name, "size": size_text(size), "state": state}
        for state, files in (("to fetch", plan.files), ("in the cache", plan.cached))
        for name, size in files
    ]
