"""The export: its plan in words, its start, its progress, its result."""

import time
from pathlib import Path

import streamlit as st

from dgviz.app.export_options import OutputChoice
from dgviz.app.export_result import draw_result, duration
from dgviz.app.exports import all_exports, shown_command, start_export
from dgviz.app.messages import show_error
from dgviz.checkpoint import CheckpointPair, matrix_layout
from dgviz.errors import DgvizError
from dgviz.export import ExportPlan, plan_export
from dgviz.export.push import check_repository, refuse_local_base
from dgviz.jobs import Job, JobError
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.threshold import RULES

_STATES = {
    "running": ":material/progress_activity: running",
    "done": ":material/check_circle: done",
    "failed": ":material/error: failed",
    "cancelled": ":material/cancel: cancelled",
    "died": ":material/error: ended without a word",
}


def draw_plan(pair: CheckpointPair, repair: RepairPlan, out: Path, output: OutputChoice) -> bool:
    """Say what will be written where; return whether it can be started."""
    known = next((job for job in all_exports() if job.lock == out.resolve()), None)
    running = known is not None and known.state == "running"
    if running or (known is not None and known.state == "done" and out.exists()):
        what = "is being written by the export below" if running else "holds the export below"
        st.info(f"The folder {what}. Choose another folder to write once more.")
        return False
    try:
        for name in filter(None, (output.base_name, output.push_to)):
            check_repository(name)
        plan = plan_export(pair, repair, out, output.format, output.allow_code, output.base_name)
        if output.push_to:
            refuse_local_base(plan)
    except DgvizError as error:
        show_error(error)
        return False
    st.markdown(_plan_words(plan))
    if output.push_to:
        kind = "private " if output.private else "public "
        st.markdown(f"When it is finished it is uploaded to the {kind}repository **{output.push_to}**.")
    if plan.finished:
        st.info(
            f"The folder holds an unfinished export of this plan; {len(plan.finished)} finished file(s) stay, if the "
            "inputs' contents are still the same."
        )
    for warning in plan.warnings:
        st.warning(warning[0].upper() + warning[1:] + ".")
    return True


def _plan_words(plan: ExportPlan) -> str:
    """Return what will be written, in words."""
    pair = plan.pair
    counts = pair.counts()
    also = sum(plan.repair.changes(item) for item in pair.tensors) - counts["repair"]
    free = f"the disk has {plan.free_bytes / 2**30:,.1f} GiB free"
    done = "changed" if plan.repair.recipe.control else "repaired"
    repaired = f"**{counts['repair']}** of {len(pair.tensors)} tensors are {done} by {_title(plan.repair)}"
    if plan.format != "full":
        what = "an adapter" if plan.format == "lora" else "factors"
        return (
            f"{repaired}; what the rule keeps of them becomes {what}. Each direction kept of each matrix takes "
            f"{_bytes_per_rank(pair):,.0f} KiB in the mean; the ranks decide the size, {free}."
        )
    others = f", **{counts['base_only']}** exist only in base and are not written" if counts["base_only"] else ""
    files = f"{len(plan.shards)} file" + ("s" if len(plan.shards) != 1 else "")
    if also:
        repaired += (
            f", **{also}** more (vectors and small tensors, which methods for matrices leave to tuned) are changed "
            "too, for it acts on every tensor"
        )
    copied = counts["keep"] - also
    others = (f", **{copied}** are copied from tuned" if copied else "") + others
    return f"{repaired}{others}. {plan.total_bytes / 2**20:,.1f} MiB go into {files}; {free}."


def _title(repair: RepairPlan) -> str:
    """Return what a repair is called: its method, and the rule where that is another than its own."""
    own = RULES[repair.rule].title
    if repair.method == "dg_hard":
        return own
    title = repair.recipe.title.replace("*", r"\*")
    return f"{title}, threshold by {own}" if repair.recipe.thresholded and repair.rule != "dg_hard" else title


def _bytes_per_rank(pair: CheckpointPair) -> float:
    """Return the mean size of one direction of a matrix, in KiB of float32."""
    layouts = [matrix_layout(item.name, item.tuned.shape) for item in pair.repairable]
    sizes = [4 * (layout.rows + layout.cols) / 1024 for layout in layouts for _ in range(layout.stack or 1)]
    return sum(sizes) / len(sizes) if sizes else 0.0


def start(command: list[str], out: Path, title: str) -> None:
    """Start the export; `draw_start_error` says why not."""
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
        with st.container(horizontal=True, vertical_alignment="center", width="content"):
            _draw_buttons(job, state)
    if state == "running":
        _draw_progress(job)
    elif state == "done":
        draw_result(job)
    elif state == "cancelled":
        st.text(f"Cancelled. Continue takes over what is finished in {job.lock}.")
    else:
        st.text(job.error or "")
        if job.lock.is_dir():
            st.text(f"Continue takes over what is finished in {job.lock}.")
        with st.expander("Log"):
            st.code(job.log_tail(), language=None)


def _draw_buttons(job: Job, state: str) -> None:
    """Offer what can be done with an export."""
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


def _draw_progress(job: Job) -> None:
    """Show how far an export is."""
    progress = job.progress()
    elapsed = time.time() - job.created
    if progress is None:
        st.progress(0.0, text=f"starting ... {elapsed:.0f} s")
        return
    left = progress.seconds_left()
    eta = "" if left is None else f" · about {duration(left)} left"
    rate = progress.done / 2**20 / max(elapsed, 0.1)
    st.progress(
        progress.fraction,
        text=f"{progress.message} · {progress.done / 2**20:,.1f} of {progress.total / 2**20:,.1f} MiB · "
        f"{rate:,.1f} MiB/s · {duration(elapsed)}{eta}",
    )


def draw_command(command: list[str]) -> None:
    """Show the command that does the same."""
    with st.expander("The same on the command line"):
        st.code(shown_command(command), language="bash", wrap_lines=True)
