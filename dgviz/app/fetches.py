"""Models named by hub ids that are not on this machine: what fetching them means, and the job that does it."""

import functools

import streamlit as st

from dgviz.app.jobs import Task, draw_task
from dgviz.app.messages import show_error
from dgviz.app.pair import checkpoint_path
from dgviz.app.state import View
from dgviz.checkpoint import open_checkpoint
from dgviz.checkpoint.hub import HubPlan, cache_folder, find_cached, is_cached_whole, plan_download, split_hub_id
from dgviz.command import Command
from dgviz.errors import AccessError, CheckpointError
from dgviz.words import size


def fetch_task(name: str, plan: HubPlan | None = None) -> Task:
    """Return the job that fetches a model; without a plan of what there is to fetch for one that runs already."""
    about = button = ""
    if plan is not None:
        there = f", {len(plan.cached)} are in the cache" if plan.cached else ""
        files = f"{len(plan.files)} files to fetch{there}. Weights and configs, never code."
        about, button = f"Commit {plan.commit[:12]}: {files}", f"Fetch {size(plan.nbytes)}"
    return Task(
        Command("fetch", model=name),
        name,
        cache_folder() / f"models--{split_hub_id(name)[0].replace('/', '--')}",
        f"{name} is not on this machine.",
        about,
        button,
        details=None if plan is None else functools.partial(_draw_files, plan),
    )


def require_fetched(view: View) -> None:
    """Offer to fetch what the pair in view lacks, and stop the page until it is there."""
    lacking = [name for name in dict.fromkeys((view.base, view.tuned)) if view.has_pair and _lacks(name)]
    for name in lacking:
        job = fetch_task(name).job
        if job is not None and job.state == "running":
            draw_task(fetch_task(name))
            continue
        try:
            with st.spinner("Asking the Hugging Face Hub"):
                plan = _plan(*split_hub_id(name))
        except CheckpointError as error:
            show_error(error)
            st.button("Ask again", key=f"ask-{name}", icon=":material/refresh:")
        else:
            draw_task(fetch_task(name, plan))
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


@st.cache_data(ttl=60, show_spinner=False)
def _plan(repo: str, revision: str | None) -> HubPlan:
    return plan_download(repo, revision)


def _draw_files(plan: HubPlan) -> None:
    """List what is fetched and what is there."""
    rows = [
        {"file": name, "size": size(nbytes), "state": state}
        for state, files in (("to fetch", plan.files), ("in the cache", plan.cached))
        for name, nbytes in files
    ]
    st.dataframe(rows, hide_index=True, width="stretch", height="content")
