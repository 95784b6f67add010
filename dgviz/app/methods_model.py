"""Repair methods side by side on the whole model: measured in the background, read back, drawn."""

import sys
from pathlib import Path
from typing import Any

import orjson
import streamlit as st

from dgviz.app.exports import shown_command
from dgviz.app.messages import show_error
from dgviz.app.methods import PLANS
from dgviz.app.pair import state_dir
from dgviz.checkpoint import CheckpointPair
from dgviz.figures import comparison_bars, plot_config
from dgviz.jobs import Job, JobError, list_jobs, start_job
from dgviz.repair.methods.registry import METHODS
from dgviz.repair.plan import RepairPlan

_FIGURES = {
    "norm_kept": "Norm kept",
    "drift": "Drift from base",
    "sparsity": "Entries from base",
    "distance": "Distance to DG-Hard",
    "effective_rank": "Effective rank",
}


def comparisons_root() -> Path:
    """Return the directory that holds a directory per comparison."""
    return state_dir() / "comparisons"


def result_file(pair: CheckpointPair) -> Path:
    """Return where the last comparison of a pair is kept."""
    name = f"{pair.base.fingerprint[:16]}-{pair.tuned.fingerprint[:16]}.json"
    return comparisons_root().resolve() / ".results" / name


def comparison_command(
    base: Path, tuned: Path, plans: dict[str, RepairPlan], save: Path, device: str = "auto"
) -> list[str]:
    """Return the command that measures every method, those in view with the settings they have there."""
    labels = [plans[name].label if name in plans else name for name in METHODS]
    command = ["python", "-m", "dgviz", "compare-methods", str(base), str(tuned), "--methods", ",".join(labels)]
    command += ["--save", str(save)]
    return command if device == "auto" else [*command, "--device", device]


@st.fragment(run_every=1.0)
def draw_model(pair: CheckpointPair, base: Path, tuned: Path, device: str) -> None:
    """Show what every method makes of the whole model, and the job that measures it."""
    st.subheader("On the whole model", anchor=False)
    save = result_file(pair)
    command = comparison_command(base, tuned, st.session_state[PLANS], save, device)
    job = next((job for job in list_jobs(comparisons_root()) if job.lock == save), None)
    _draw_job(job, command, save, f"{base.name} → {tuned.name}")
    if save.is_file():
        _draw_result(orjson.loads(save.read_bytes())["methods"])


def _draw_job(job: Job | None, command: list[str], save: Path, title: str) -> None:
    """Show a button to measure, how far that is, or what went wrong."""
    running = job is not None and job.state == "running"
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(
                "**Every method, measured on what it would write.**  Nothing is written. Methods above have the "
                "settings chosen there, the others their own."
            )
            if running:
                st.button("Cancel", key="cancel-comparison", icon=":material/cancel:", on_click=job.cancel)
            else:
                st.button(
                    "Measure again" if save.is_file() else "Measure every method",
                    key="start-comparison",
                    icon=":material/play_arrow:",
                    on_click=_start,
                    args=(command, save, title),
                )
        if running:
            progress = job.progress()
            text = progress.message if progress else "starting ..."
            st.progress(progress.fraction if progress else 0.0, text=text)
        elif job is not None and job.state in ("failed", "died"):
            st.text(job.error or "It ended without a word.")
            with st.expander("Log"):
                st.code(job.log_tail(), language=None)
        elif job is not None and job.state == "cancelled":
            st.text("Cancelled; nothing was kept.")
        with st.expander("The same on the command line"):
            st.code(shown_command(command), language="bash", wrap_lines=True)


def _start(command: list[str], save: Path, title: str) -> None:
    """Start the comparison, or say why not."""
    root = Path(__file__).parents[2]
    try:
        start_job([sys.executable, *command[1:]], comparisons_root(), title, lock=save, cwd=root)
    except (JobError, OSError) as error:
        show_error(error)


def _draw_result(rows: list[dict[str, Any]]) -> None:
    """Draw the figures of every method and show them as a table."""
    named = [row | {"label": _title(row)} for row in rows]
    controls = [row["label"] for row in named if METHODS[row["method"]].control]
    st.caption(
        "Of the written model against base, over every tensor that both have: a method that leaves vectors to tuned "
        "is charged with tuned's vectors. Controls are blue."
    )
    st.plotly_chart(comparison_bars(named, _FIGURES, controls), config=plot_config("methods"), key="comparison")
    percent = {"norm_kept", "drift", "sparsity", "distance"}
    table = [
        {"method": row["label"]}
        | {
            f"{title} %" if name in percent else title: _times(row[name], 100 if name in percent else 1)
            for name, title in _FIGURES.items()
        }
        for row in named
    ]
    formats = {"Drift from base %": "%.2f", "Entries from base %": "%.2f"}
    columns = [key for key in table[0] if key != "method"]
    st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        column_config={
            name: st.column_config.NumberColumn(format=formats.get(name, "%.1f"), help=_HELP[name])
            for name in columns
        },
    )


def _title(row: dict[str, Any]) -> str:
    """Return a method's title with its settings."""
    settings = row["label"].partition(":")[2].replace(":", ", ")
    return METHODS[row["method"]].title + (f" ({settings})" if settings else "")


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


_HELP = {
    "Norm kept %": "Length of the written update over that of the fine-tuned one.",
    "Drift from base %": "Length of the written update over that of base's weights.",
    "Entries from base %": "Share of all entries that are base's.",
    "Distance to DG-Hard %": "Distance to DG-Hard as published, over the length of the fine-tuned update.",
    "Effective rank": "Median over matrices.",
}
