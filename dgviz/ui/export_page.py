"""The export: its plan in words, its start, its progress, its result."""

import json
import time
from pathlib import Path

import orjson
import streamlit as st

from dgviz.checkpoint import CheckpointPair
from dgviz.errors import DgvizError
from dgviz.export import plan_export
from dgviz.jobs import Job, JobError
from dgviz.plan import RepairPlan
from dgviz.threshold import RULES
from dgviz.ui.exports import all_exports, shown_command, start_export
from dgviz.ui.messages import show_error

_STATES = {
    "running": ":material/progress_activity: running",
    "done": ":material/check_circle: done",
    "failed": ":material/error: failed",
    "cancelled": ":material/cancel: cancelled",
    "died": ":material/error: ended without a word",
}


def draw_plan(pair: CheckpointPair, repair: RepairPlan, out: Path) -> bool:
    """Say what will be written where; return whether it can be started.

    Parameters
    ----------
    pair : CheckpointPair
        With include and exclude applied.
    repair : RepairPlan
        Rule and output dtype.
    out : Path
        Output folder.
    """
    known = next((job for job in all_exports() if job.lock == out.resolve()), None)
    running = known is not None and known.state == "running"
    if running or (known is not None and known.state == "done" and out.exists()):
        what = "is being written by the export below" if running else "holds the export below"
        st.info(f"The folder {what}. Choose another folder to write once more.")
        return False
    try:
        plan = plan_export(pair, repair, out)
    except DgvizError as error:
        show_error(error)
        return False
    counts = pair.counts()
    others = f", **{counts['base_only']}** exist only in base and are not written" if counts["base_only"] else ""
    files = f"{len(plan.shards)} file" + ("s" if len(plan.shards) != 1 else "")
    st.markdown(
        f"**{counts['repair']}** of {len(pair.tensors)} tensors are repaired by {RULES[repair.rule].title}, "
        f"**{counts['keep']}** are copied from tuned{others}. {plan.total_bytes / 2**20:,.1f} MiB go into {files}; "
        f"the disk has {plan.free_bytes / 2**30:,.1f} GiB free."
    )
    if plan.finished:
        st.info(f"The folder holds an unfinished export of this plan; {len(plan.finished)} finished file(s) stay.")
    for warning in plan.warnings:
        st.warning(warning[0].upper() + warning[1:] + ".")
    return True


def start(command: list[str], out: Path, title: str) -> None:
    """Start the export; `draw_start_error` says why not.

    Parameters
    ----------
    command : list of str
        What to run.
    out : Path
        What it writes.
    title : str
        What pages call it.
    """
    try:
        start_export(command, out, title)
    except (DgvizError, JobError, OSError) as error:
        st.session_state["start-error"] = error


def draw_start_error() -> None:
    """Say why the last start failed, where the button is."""
    error = st.session_state.pop("start-error", None)
    if error is not None:
        show_error(error)


def _continue(job: Job) -> None:
    """Start an ended export again with the same command; it takes over what is finished."""
    start(["python", *job.command[1:]], job.lock, job.title)
    if "start-error" not in st.session_state:
        job.forget()


@st.fragment(run_every=1.0)
def draw_jobs() -> None:
    """Show every export this machine remembers, live."""
    jobs = all_exports()
    if jobs:
        st.subheader("Exports", anchor=False)
    for job in jobs[:8]:
        with st.container(border=True):
            _draw_job(job)
    running = {job.id for job in jobs if job.state == "running"}
    if st.session_state.get("seen-running", running) - running:
        st.session_state["seen-running"] = running
        st.rerun()  # one has ended: what the page says of its folder is no longer so
    st.session_state["seen-running"] = running


def _draw_job(job: Job) -> None:
    """Show one export by its state."""
    state = job.state
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f"**{job.title}**  {_STATES[state]}")
        if state == "running" and (job.directory / "cancel").exists():
            st.markdown(":gray[cancelling: it stops after the tensor it is working on]")
        elif state == "running":
            st.button("Cancel", key=f"cancel-{job.id}", icon=":material/cancel:", on_click=job.cancel)
        else:
            if state != "done":
                st.button(
                    "Continue",
                    key=f"continue-{job.id}",
                    icon=":material/play_arrow:",
                    on_click=_continue,
                    args=(job,),
                )
            st.button("Forget", key=f"forget-{job.id}", icon=":material/close:", type="tertiary", on_click=job.forget)
    if state == "running":
        _draw_progress(job)
    elif state == "done":
        _draw_result(job)
    elif state == "cancelled":
        st.text(f"Cancelled. Continue takes over the files already finished in {job.lock}.")
    else:
        st.text(job.error or "")
        with st.expander("Log"):
            st.code(job.log_tail(), language=None)


def _draw_progress(job: Job) -> None:
    """Show how far an export is."""
    progress = job.progress()
    elapsed = time.time() - job.created
    if progress is None:
        st.progress(0.0, text=f"starting ... {elapsed:.0f} s")
        return
    left = progress.seconds_left()
    eta = "" if left is None else f" · about {_duration(left)} left"
    rate = progress.done / 2**20 / max(elapsed, 0.1)
    st.progress(
        progress.fraction,
        text=f"{progress.message} · {progress.done / 2**20:,.1f} of {progress.total / 2**20:,.1f} MiB · "
        f"{rate:,.1f} MiB/s · {_duration(elapsed)}{eta}",
    )


def _draw_result(job: Job) -> None:
    """Show what was written and how to load it."""
    result = job.result or {}
    out = Path(result["out"])
    st.markdown(
        f"Wrote {result['total_bytes'] / 2**20:,.1f} MiB in {len(result['shards'])} file(s) in "
        f"{_duration(result['seconds'])}; read back and compared with the plan."
    )
    kind = _model_class(out)
    if kind is not None:
        st.code(f"from transformers import {kind}\n\nmodel = {kind}.from_pretrained({str(out)!r})", language="python")
    for warning in result["warnings"][:5]:
        st.caption(f":material/warning: {warning}")
    with st.expander("Every tensor"):
        _draw_rows(out)


def _model_class(out: Path) -> str | None:
    """Return the transformers class that the output's config names, or the general one; None without a config."""
    try:
        names = json.loads((out / "config.json").read_bytes()).get("architectures") or []
    except (OSError, ValueError):
        return None
    return names[0] if names else "AutoModel"


def _draw_rows(out: Path) -> None:
    """Show the report the output carries."""
    try:
        report = orjson.loads((out / "dgviz.json").read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        st.text(f"{out / 'dgviz.json'} cannot be read any more: {error}")
        return
    rows = [
        {
            "tensor": name,
            "written": row["written"],
            "rank": _plain(row.get("rank")),
            "energy kept": _plain(row.get("energy_kept")),
            "MP-fit of what was dropped": _plain((row.get("mp_fit") or {}).get("discarded")),
            "gain after rounding": _plain(row.get("gain")),
            "seconds": row["seconds"],
        }
        for name, row in report["tensors"].items()
    ]
    st.dataframe(rows, hide_index=True, width="stretch", height=min(38 + 35 * len(rows), 420))


def _plain(value: object) -> str:
    """Return a figure, or the range of a stack's figures, as text."""
    if value is None:
        return ""
    if isinstance(value, list):
        known = [item for item in value if item is not None]
        return f"{min(known):.4g} to {max(known):.4g}" if known else ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def draw_command(command: list[str]) -> None:
    """Show the command that does the same.

    Parameters
    ----------
    command : list of str
        What the page runs.
    """
    with st.expander("The same on the command line"):
        st.code(shown_command(command), language="bash", wrap_lines=True)
