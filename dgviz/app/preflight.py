"""The pair in words and in a table: what it is, what is surprising, and what will happen to every tensor."""

from collections import Counter
from pathlib import Path

import streamlit as st

from dgviz.app.messages import plain, show_warning
from dgviz.checkpoint import CheckpointPair, Notice, Preflight, PreflightRow
from dgviz.checkpoint.expression import compile_expression
from dgviz.demo import read_scores
from dgviz.errors import AccessError, DgvizError, PairError
from dgviz.repair.methods import find_method
from dgviz.words import size

_FATES = {
    "repair": ("Repaired", "base plus the part of the update above the threshold"),
    "keep": ("Kept", "tuned's bytes are copied unchanged"),
    "base_only": ("Base only", "not written: tuned does not have it"),
}
_SHOWN = ("dg_hard", "wise_ft")  # of the scores beside a pair; all methods are in Evidence
_SEVERITIES = {
    "blocks": (":red[:material/block: **Nothing can be written yet**]", "Remedy"),
    "warning": (":orange[:material/warning: **Look at this first**]", "What to do"),
    "info": (":material/info: **Good to know**", "What it means"),
}


def draw_sides(pair: CheckpointPair) -> None:
    """Show sizes and dtypes of both sides, and the number of tensors by fate."""
    columns = st.columns(5)
    for column, title, checkpoint in ((columns[0], "Base", pair.base), (columns[1], "Tuned", pair.tuned)):
        parameters = sum(info.numel for info in checkpoint.tensors.values())
        dtypes = Counter(info.dtype for info in checkpoint.tensors.values())
        files = f"{len(checkpoint.shards)} file" + ("s" if len(checkpoint.shards) != 1 else "")
        column.metric(title, _count(parameters), help=plain(str(checkpoint.path)), border=True)
        column.caption(f"parameters · {size(checkpoint.nbytes)} · {', '.join(dtypes)} · {files}")
    total = len(pair.tensors)
    for column, (fate, (title, meaning)) in zip(columns[2:], _FATES.items(), strict=True):
        count = pair.counts()[fate]
        column.metric(title, count, border=True)
        column.caption(f"of {total} tensors: {meaning}")


def draw_notices(preflight: Preflight) -> None:
    """Show everything surprising about a pair, with its remedy; what blocks a repair first, notes folded away."""
    for severity in ("blocks", "warning"):
        found = [notice for notice in preflight.notices if notice.severity == severity]
        if found:
            with st.container(border=True):
                st.markdown(_SEVERITIES[severity][0])
                _draw_list(found)
    notes = [notice for notice in preflight.notices if notice.severity == "info"]
    if notes:
        with st.expander(f"{_SEVERITIES['info'][0]} ({len(notes)})"):
            _draw_list(notes)


def _draw_list(notices: list[Notice]) -> None:
    """Show notices of one severity; as plain text, for names may hold any character."""
    for notice in notices:
        with st.container(gap=None):
            st.text(notice.message)
            if notice.exclude:
                st.caption("If this is the right base, keep tuned's bytes: enter this in the plan under *Keep*.")
                st.code(notice.exclude, language=None, wrap_lines=True)
            else:
                st.caption(notice.remedy)


def draw_scores(folder: Path, tuned: str) -> bool:
    """Show the scores that lie beside a pair, and return whether there are any."""
    try:
        scores = read_scores(folder)
        if scores is None:
            return False
        rows, titles = _score_rows(scores, tuned)
        pictures = scores["split"]["held_out"]
    except AccessError:
        return False
    except (DgvizError, KeyError, TypeError, ValueError, AttributeError) as error:
        show_warning(f"{folder / 'scores.json'} is not read: it is no table as the demo has it ({error!r})")
        return False
    st.subheader("What the models can do, measured", anchor=False)
    st.dataframe(rows, hide_index=True, width="stretch", column_order=["model", *titles])
    st.caption(
        f"Accuracy in % ± standard error on {int(pictures)} pictures no training saw. *Target*: the "
        "scrambled pixels of the fine-tune. *Held-out*: the four views the base already knew. Higher is better. "
        "WiSE-FT is plain averaging with the base and needs no spectrum; where it does better than DG-Hard, that is "
        "what was measured."
    )
    return True


def _score_rows(scores: dict, tuned: str) -> tuple[list[dict[str, str]], list[str]]:
    """Return the scores of a pair and of its repairs, a row for each model, and the columns."""
    held_out = [name for name, about in scores["benchmarks"].items() if about["role"] == "held_out"]
    titles = {"held_out": "held-out mean", "target": "target"} | {name: f"held-out: {name}" for name in held_out}
    rows: dict[str, dict[str, str]] = {}
    for row in scores["scores"]:
        about = scores["models"][row["model"]]
        if row["model"] in ("base", tuned) or (about.get("tuned") == tuned and about.get("method") in _SHOWN):
            cells = rows.setdefault(row["model"], {"model": _model_title(row["model"], about)})
            cells[titles[row["benchmark"]]] = f"{100 * row['score']:.1f} ± {100 * row['stderr']:.1f}"
    return list(rows.values()), list(titles.values())


def _model_title(name: str, about: dict) -> str:
    """Return what a model is, in words."""
    if about["role"] == "repaired":
        method = find_method(about["method"]).title
        settings = ", ".join(f"{key} = {value:g}" for key, value in about["params"].items())
        return f"{name.split('/')[0]}, repaired by {method}" + (f", {settings}" if settings else "")
    return f"{name} ({about['role']})"


def draw_fates(preflight: Preflight) -> None:
    """Show the searchable table of every tensor's fate."""
    st.subheader("What will happen to every tensor", anchor=False)
    counts = preflight.totals.counts
    with st.container(horizontal=True, vertical_alignment="bottom"):
        fate = st.segmented_control(
            "Fate",
            [name for name in _FATES if counts[name]],
            format_func=lambda name: f"{_FATES[name][0]} ({counts[name]})",
            key="fate-filter",
        )
        text = st.text_input("Search names and reasons", key="fate-search", placeholder="e.g. mlp|embed", live=True)
    try:
        found = compile_expression(text or "", ignore_case=True)
    except PairError as error:
        show_warning(str(error))
        return
    rows = [
        _cells(row)
        for row in preflight.rows
        if (fate is None or row.action == fate) and found.search(f"{row.name} {row.reason}")
    ]
    if not rows:
        st.info("No tensor matches.")
        return
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        height=min(38 + 35 * len(rows), 560),
        column_config={
            "reason": st.column_config.TextColumn(width="large"),
            "MiB": st.column_config.NumberColumn(format="%.3g", width="small"),
        },
    )


def _cells(row: PreflightRow) -> dict[str, str | float]:
    """Return a row of the table; where the two sides differ, base's shape and dtype come first."""
    sides = [side for side in (row.base, row.tuned) if side is not None]
    shapes = dict.fromkeys(" × ".join(map(str, side.shape)) or "scalar" for side in sides)
    return {
        "tensor": row.name,
        "fate": _FATES[row.action][0],
        "reason": row.reason,
        "shape": " → ".join(shapes),
        "dtype": " → ".join(dict.fromkeys(side.dtype for side in sides)),
        "MiB": row.side.nbytes / 2**20,
    }


def _count(number: int) -> str:
    """Return a number of parameters as people say it."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return str(number)
