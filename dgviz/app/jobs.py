"""Jobs on the pages: every kind of them in one list, started from a command, shown in one panel."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dgviz.app.messages import plain, show_error, show_warning
from dgviz.app.navigation import page
from dgviz.app.pair import checkpoint_path, state_dir
from dgviz.app.roots import allowed_roots, confine
from dgviz.app.state import address
from dgviz.command import Command
from dgviz.errors import CommandError, DgvizError, StateError, printable
from dgviz.files import read_record
from dgviz.jobs import Job, JobError, list_jobs, start_job
from dgviz.words import duration, size

_ERROR = "job-error"
_STATES = {
    "running": ":material/progress_activity: running",
    "done": ":material/check_circle: done",
    "failed": ":material/error: failed",
    "cancelled": ":material/cancel: cancelled",
    "died": ":material/error: ended without a word",
    "damaged": ":material/error: cannot be read",
}


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    `folder` of the state directory holds a directory per job; `page` with `view` shows them; `kept` says what an
    interrupted one leaves, from which the same command goes on; `outside` is true where it writes outside
    the state directory, `in_bytes` where its progress is counted in bytes, `deaf` where it can only be ended by
    force, `titled` where several share what they write and are told apart by their titles.
    """

    title: str
    folder: str
    page: str
    view: Mapping[str, str]
    kept: str = ""
    outside: bool = False
    in_bytes: bool = False
    deaf: bool = False
    titled: bool = False


KINDS = {
    "repair": Kind("Export", "jobs", "workbench", {"plan": "open"}, "finished files are kept", True, True),
    "scan": Kind("Scan", "scans", "open", {}, "what was computed is kept"),
    "fetch": Kind("Fetch", "fetches", "open", {}, "what was fetched is kept", True, True, deaf=True, titled=True),
    "family": Kind(
        "Family comparison", "families", "workbench", {"show": "family"}, "the spectra computed so far are kept"
    ),
    "compare-methods": Kind("Method comparison", "comparisons", "workbench", {"show": "model-methods"}),
    "sweep": Kind("Sweep", "sweeps", "workbench", {"show": "model-methods"}),
}
"""By the command that a job of the kind runs."""


@dataclass(frozen=True)
class Task:
    """A job that a page offers: what runs, and what is said of it.

    Attributes
    ----------
    command : Command
        Of one of `KINDS`.
    title : str
        What the job is called, in lists.
    lock : Path
        What it writes; the last job that writes it is the one shown.
    heading, about : str
        What it makes, and what is said before it has run; Markdown.
    start, again : str
        The button, at first and where there is a result.
    made : bool
        Whether there is a result, whatever became of the last job.
    result : function of Job
        What came of a finished one, in words.
    details : function
        Draws what else belongs to the command.
    """

    command: Command
    title: str
    lock: Path
    heading: str
    about: str
    start: str
    again: str = ""
    made: bool = False
    result: Callable[[Job], str] = lambda job: ""
    details: Callable[[], None] | None = None

    @property
    def kind(self) -> Kind:
        """What kind of job it is."""
        return KINDS[self.command.name]

    @property
    def key(self) -> str:
        """What tells its button and what is remembered of it from those of other tasks."""
        return f"{self.command.name}-{self.title}" if self.kind.titled else self.command.name

    @property
    def job(self) -> Job | None:
        """The last job, or None."""
        return find_job(self.command.name, self.lock, self.title if self.kind.titled else None)


def root(name: str) -> Path:
    """Return the directory that holds a directory per job of a kind."""
    return state_dir() / KINDS[name].folder


def known_jobs(name: str) -> list[Job]:
    """Return every job of a kind, the newest first, but for those about what this server may not open."""
    return [job for job in list_jobs(root(name)) if allowed_roots() is None or _is_allowed(job)]


def _is_allowed(job: Job) -> bool:
    if job.damage:  # nobody knows what it is about
        return True
    try:
        _confine(Command.parse(job.command), job.lock)
    except (DgvizError, OSError):
        return False
    return True


def _confine(command: Command, lock: Path | None) -> None:
    """Refuse a command that reads or writes what this server may not open; a job's own files are its own."""
    tuned = command.given.get("tuned", ())
    for side in filter(None, (command.given.get("base"), *([tuned] if isinstance(tuned, str) else tuned))):
        checkpoint_path(side)
    if KINDS[command.name].outside and lock is not None:
        confine(lock)


def find_job(name: str, lock: Path, title: str | None = None) -> Job | None:
    """Return the last job of a kind that writes something, of that title where one is given; or None."""
    real = Path(os.path.realpath(lock))
    return next((job for job in known_jobs(name) if job.lock == real and title in (None, job.title)), None)


def running_jobs() -> list[tuple[str, Job]]:
    """Return every job that runs now or cannot be read, of every kind, with the name of its kind."""
    return [(name, job) for name in KINDS for job in known_jobs(name) if job.state in ("running", "damaged")]


def start(command: Command, title: str, lock: Path, cwd: Path | None = None) -> Job:
    """Start a job that outlives the page and the server."""
    _confine(command, lock)
    return start_job(command, root(command.name), title, lock=lock, cwd=cwd)


def try_start(command: Command, title: str, lock: Path, cwd: Path | None = None) -> bool:
    """Start a job from a button; `draw_start_error` says why not."""
    try:
        start(command, title, lock, cwd)
    except (DgvizError, JobError, OSError) as error:
        st.session_state[_ERROR] = error
        return False
    return True


def draw_start_error() -> None:
    """Say why the last start failed, where the button is."""
    error = st.session_state.pop(_ERROR, None)
    if error is not None:
        show_error(error)


def draw_task(task: Task) -> None:
    """Show a job: a button to start it, how far it is, or what came of it; live while it runs."""
    job = task.job
    running = job is not None and job.state == "running"
    st.fragment(draw_panel, run_every=1.0 if running else None)(task)


def _row() -> DeltaGenerator:
    """Return a line with words at its left and buttons at its right."""
    return st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute")


def draw_panel(task: Task) -> None:
    """Show a job as it is now; the whole page runs again when it has begun or ended."""
    job = task.job
    state = None if job is None else job.state
    name = task.command.name
    interrupted = state in ("cancelled", "failed", "died")
    with st.container(border=True):
        with _row():
            st.markdown(f"**{task.heading}**  {_described(task, job, state)}")
            if state == "running":
                _cancel_button(name, job)
            else:
                again = task.made or state == "done"
                go_on = interrupted and task.kind.kept
                st.button(
                    "Go on" if go_on else task.again if again and task.again else task.start,
                    key=f"start-{task.key}",
                    icon=":material/play_arrow:",
                    type="tertiary" if again and not go_on else "secondary",
                    on_click=try_start,
                    args=(task.command, task.title, task.lock),
                )
        draw_start_error()
        if job is not None:
            draw_progress(name, job, state)
        draw_command(task.command, task.details)
    seen = st.session_state.get(f"seen-{task.key}")
    st.session_state[f"seen-{task.key}"] = now = (str(task.lock), state)
    if seen is not None and seen[0] == now[0] and seen != now:
        st.rerun()  # the page around it says or does something else now


def _described(task: Task, job: Job | None, state: str | None) -> str:
    """Return the state of a task's job in words."""
    if state is None:
        return task.about
    if state == "done":
        return f"{_STATES[state]}. {_drawn(job.directory, task.result, job) or ''}"
    kept = f"; {task.kind.kept}" if state != "running" and task.kind.kept else ""
    return f"{_STATES[state]}{kept}."


def draw_saved(task: Task, draw: Callable[[dict[str, Any]], None]) -> None:
    """Draw the file that a task has written; where it is not what this version writes, say so."""
    try:
        saved = read_record(task.lock)
    except StateError as error:
        show_error(StateError(f"{error}; run it again"))
    else:
        _drawn(task.lock, draw, saved)


def _drawn(path: Path, draw: Callable[[Any], Any], saved: Any) -> Any:
    """Return what is made of something that was stored; where it lacks what this version stores, say so."""
    try:
        return draw(saved)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        show_error(StateError(f"{path} is damaged or of another version ({error!r}); run it again"))
    return None


def draw_progress(name: str, job: Job, state: str) -> None:
    """Show how far a job is, or what went wrong with it, weight by weight where that is known."""
    if job.problem:
        show_warning(job.problem)
    if state == "running":
        progress = job.progress()
        st.progress(progress.fraction if progress else 0.0, text=plain(_progress_words(KINDS[name], job)))
    elif state in ("failed", "died"):
        st.text(job.error or "It ended without a word.")
        errors = (job.result or {}).get("errors")
        if errors and isinstance(errors, dict):
            rows = [{"weight": weight, "error": error} for weight, error in errors.items()]
            st.dataframe(rows, hide_index=True, width="stretch", height=min(38 + 35 * len(rows), 300))
        with st.expander("Log"):
            st.code("\n".join(map(printable, job.log_tail().split("\n"))), language=None)


def _progress_words(kind: Kind, job: Job) -> str:
    """Return how far a job is, in words."""
    progress, elapsed = job.progress(), max(0.0, time.time() - job.created)
    if progress is None:
        return f"starting ... {duration(elapsed)}"
    parts = [progress.message]
    if kind.in_bytes:
        parts += [f"{size(progress.done)} of {size(progress.total)}", f"{size(progress.done / max(elapsed, 0.1))}/s"]
    elif "matrices" in progress.extra:
        stored = progress.extra.get("stored")
        known = f", {stored} of them known before" if stored else ""
        parts.append(f"{progress.extra['matrices']} matrices{known}")
    left = progress.seconds_left()
    parts.append(duration(elapsed))
    if left is not None:
        parts.append("almost done" if left < 1 else f"about {duration(left)} left")
    return " · ".join(parts)


def draw_command(command: Command, details: Callable[[], None] | None = None) -> None:
    """Show the command that does the same, and what belongs to it."""
    with st.expander("The same on the command line"):
        st.code(str(command), language="bash", wrap_lines=True)
        if details is not None:
            details()


def draw_list(
    name: str, result: Callable[[Job], None], most: int = 8, of: Callable[[Job], bool] = lambda job: True
) -> None:
    """Show the last jobs of a kind, each with what can be done about it and, where it is done, its result."""
    running = {job.id for job in known_jobs(name) if job.state == "running"}
    st.fragment(_draw_list, run_every=1.0 if running else None)(name, result, most, of, running)


def _draw_list(
    name: str, result: Callable[[Job], None], most: int, of: Callable[[Job], bool], watched: set[str]
) -> None:
    """Show them as they are now; the whole page runs again when one has ended, or runs that is not watched."""
    jobs = [job for job in known_jobs(name) if job.state == "running" or (not job.damage and of(job))][:most]
    if jobs:
        st.subheader(f"{KINDS[name].title}s", anchor=False)
    for job in jobs:
        state = job.state
        with st.container(border=True):
            with _row():
                st.markdown(f"**{plain(job.title)}**  {_STATES[state]}")
                with st.container(horizontal=True, vertical_alignment="center", width="content"):
                    _draw_buttons(name, job, state)
            draw_progress(name, job, state)
            if state == "done":
                _drawn(job.directory, result, job)
            elif state not in ("running", "damaged") and KINDS[name].kept:
                st.text(f"In {job.lock} {KINDS[name].kept}; go on from there.")
    running = {job.id for job in jobs if job.state == "running"}
    before = st.session_state.get(f"seen-{name}", running)
    st.session_state[f"seen-{name}"] = running
    if before - running or running - watched:
        st.rerun()  # what the page says of an output is no longer so, or has to be followed from now on


def _draw_buttons(name: str, job: Job, state: str) -> None:
    """Offer what can be done about a job."""
    if state == "running":
        _cancel_button(name, job)
        return
    if state not in ("done", "damaged"):
        st.button("Go on", key=f"go-on-{job.id}", icon=":material/play_arrow:", on_click=_go_on, args=(job,))
    st.button("Forget", key=f"forget-{job.id}", icon=":material/close:", type="tertiary", on_click=job.forget)


def _cancel_button(name: str, job: Job) -> None:
    """Offer to cancel a job; one that has been asked stops at its next word."""
    if (job.directory / "cancel").exists():
        st.markdown(":gray[cancelling: it stops after what it is working on]")
    else:
        force = KINDS[name].deaf
        st.button("Cancel", key=f"cancel-{job.id}", icon=":material/cancel:", on_click=job.cancel, args=(force,))


def _go_on(job: Job) -> None:
    """Start an ended job again with the same command; it takes over what is finished."""
    try:
        command = Command.parse(job.command)
    except CommandError as error:  # of another version
        st.session_state[_ERROR] = error
        return
    if try_start(command, job.title, job.lock, job.cwd):
        job.forget()


def draw_running(jobs: list[tuple[str, Job]]) -> None:
    """Show jobs that run, of every kind, and where to look at them."""
    for number, (name, job) in enumerate(jobs):
        progress, kind = job.progress(), KINDS[name]
        if job.damage:
            show_warning(f"{kind.title}: {job.damage}")
            st.button("Forget", key=f"forget-damaged-{name}-{job.id}", icon=":material/close:", on_click=job.forget)
            continue
        st.progress(progress.fraction if progress else 0.0, text=plain(f"{kind.title}: {job.title}"))
        if all(name != later for later, _ in jobs[number + 1 :]):
            link = address(**kind.view)
            st.page_link(page(kind.page), label="Show", icon=":material/monitoring:", query_params=link)
