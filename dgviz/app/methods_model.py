"""Repair methods side by side on the whole model: measured in the background, read back, drawn."""

from typing import Any

import streamlit as st

from dgviz.app.jobs import Task, draw_saved, draw_task, root
from dgviz.app.methods import choose_compared, choose_plans
from dgviz.app.methods_preview import draw_preview
from dgviz.app.pair import checkpoint_path, contents_of
from dgviz.app.state import View
from dgviz.checkpoint import CheckpointPair
from dgviz.command import Command
from dgviz.figures import comparison_bars, plot_config
from dgviz.repair.methods import METHODS
from dgviz.repair.plan import RepairPlan

_FIGURES = {
    "norm_kept": "Norm kept",
    "norm_kept_matrices": "Norm kept, matrices",
    "norm_kept_vectors": "Norm kept, vectors",
    "drift": "Drift from base",
    "sparsity": "Entries from base",
    "distance": "Distance to DG-Hard",
    "effective_rank": "Effective rank",
}
_DRAWN = {name: title for name, title in _FIGURES.items() if not name.endswith(("kept", "vectors"))}


def comparison_task(view: View, pair: CheckpointPair, plans: dict[str, RepairPlan]) -> Task:
    """Return the job that measures every method, those in view with the settings they have there."""
    name = f"{contents_of(pair.base)[:16]}-{contents_of(pair.tuned)[:16]}.json"
    save = root("compare-methods").resolve() / ".results" / name
    base, tuned = checkpoint_path(view.base), checkpoint_path(view.tuned)
    labels = [plans[name].label if name in plans else name for name in METHODS]
    return Task(
        Command("compare-methods", base=base, tuned=tuned, methods=labels, device=view.device, save=save),
        f"{base.name} → {tuned.name}",
        save,
        "Every method, measured on what it would write.",
        "Nothing is written. Methods above have the settings chosen there, the others their own.",
        "Measure every method",
        again="Measure again",
        made=save.is_file(),
    )


def draw_methods_on_model(view: View, pair: CheckpointPair) -> None:
    """Show what the chosen methods make of the whole model, and the job that measures all of them."""
    methods, common = choose_compared()
    largest = max(min(tensor.tuned.shape[-2:]) for tensor in pair.repairable)
    plans = choose_plans(methods, common, largest)
    draw_preview(pair, plans)
    task = comparison_task(view, pair, plans)
    draw_task(task)
    if task.made:
        draw_saved(task, lambda saved: _draw_result(saved["methods"]))


def _draw_result(rows: list[dict[str, Any]]) -> None:
    """Draw the figures of every method and show them as a table."""
    named = [dict.fromkeys(_FIGURES) | row | {"label": _title(row)} for row in rows]  # older results have fewer
    controls = [row["label"] for row in named if METHODS[row["method"]].control]
    st.caption(
        "Of the written model against base, over every tensor that both have: a method that leaves vectors to tuned "
        "is charged with tuned's vectors. Controls are blue."
    )
    st.plotly_chart(comparison_bars(named, _DRAWN, controls), config=plot_config("methods"), key="comparison")
    percent = {"norm_kept", "norm_kept_matrices", "norm_kept_vectors", "drift", "sparsity", "distance"}
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
    "Norm kept, matrices %": "The same of matrices alone.",
    "Norm kept, vectors %": "The same of vectors alone, which methods for matrices leave to tuned.",
    "Drift from base %": "Length of the written update over that of base's weights.",
    "Entries from base %": "Share of all entries that are base's.",
    "Distance to DG-Hard %": "Distance to DG-Hard as published, over the length of the fine-tuned update.",
    "Effective rank": "Median over matrices.",
}
