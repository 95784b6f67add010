"""The Recovery page's tables: every benchmark, sizes of change, other tolerances, and what to beware of."""

import streamlit as st

from dgviz.app.recovery import picture_config, titled
from dgviz.figures import Bar, recovery_bars
from dgviz.repair.methods import method_words
from dgviz.scores import Score
from dgviz.scores.recovery import METRICS, Comparison, Recovery
from dgviz.scores.recovery.detail import SIZES
from dgviz.scores.recovery.report import benchmarks_csv, definition
from dgviz.scores.recovery.resample import RESAMPLED

_NOTES = 12  # so many are shown at once
_PARTS = {"damaged": "▼ damaged", "improved": "▲ improved", "unchanged": "= unchanged", "on_task": "on-task"}


def draw_benchmarks(recovery: Recovery) -> None:
    """Show raw scores of base, tuned and every repair, with arrows."""
    several = len(recovery.study.cells) > 1
    rows = []
    for item in recovery.comparisons:
        row = {"cell": item.cell} if several else {}
        cohort = recovery.cohort_of(item)
        row |= {"benchmark": item.benchmark} | ({"cohort": cohort} if recovery.study.cohorts else {})
        row |= {
            "part": _PARTS[item.part],
            "n": item.base.n,
            "base": _score(item.base),
            "tuned": f"{_arrow(item, item.tuned, item.base)} {_score(item.tuned)}",
        }
        for label in recovery.repaired:
            found = item.repaired.get(label)
            row[label] = "missing" if found is None else f"{_arrow(item, found, item.tuned)} {_score(found)}"
        rows.append(row)
    st.dataframe(rows, hide_index=True, width="stretch", height=min(38 + 35 * len(rows), 600))
    st.caption(
        "Raw scores ± standard error. The arrow of *tuned* says whether it is better (▲) or worse (▼) than base, "
        "that of a repair whether it is better or worse than tuned; = is a difference within the tolerance."
    )
    st.download_button(
        "CSV of all scores", benchmarks_csv(recovery), "recovery-scores.csv", "text/csv", icon=":material/download:"
    )


def _score(score: Score) -> str:
    return f"{score.value:.4g}" if score.stderr is None else f"{score.value:.4g} ± {score.stderr:.2g}"


def _arrow(item: Comparison, score: Score, reference: Score) -> str:
    """Return whether a score is better than another one, beyond the tolerance."""
    gain = (score.value - reference.value) * (1 if item.higher_is_better else -1)
    return "=" if abs(gain) <= item.limit else "▲" if gain > 0 else "▼"


def draw_sizes(recovery: Recovery) -> None:
    """Draw how much was healed, or preserved, by how much fine-tuning had changed."""
    parts = [part for part in ("damaged", "improved") if recovery.counts()[part]]
    if not parts:
        st.info("No held-out benchmark changed by more than the tolerance.")
        return
    part = parts[0]
    if len(parts) > 1:
        part = st.segmented_control("Benchmarks that were", parts, key="sizes-part", default=part, required=True)
    found = [(label, item) for label, a in recovery.repaired.items() for item in a.sizes if item.part == part]
    found.sort(key=lambda pair: list(SIZES).index(pair[1].percent_of_base))
    counts = {size: max((i.n for _, i in found if i.percent_of_base == size), default=0) for size in SIZES}
    bars = [
        Bar(
            f"{item.percent_of_base} (n = {counts[item.percent_of_base]})",
            titled(recovery, label),
            recovery.study.families.get(label, label),
            item.percent,
            None,
            item.n,
        )
        for label, item in found
    ]
    title = METRICS["healed" if part == "damaged" else "preserved"].title
    st.plotly_chart(recovery_bars(bars, title), config=picture_config("sizes"), key="sizes")
    st.caption(
        f"{title}, averaged over the benchmarks whose score fine-tuning changed by so many percent of base's. Small "
        "changes make small denominators: their percentages swing widely and say the least."
    )


def draw_tolerance(recovery: Recovery) -> None:
    """Show how the metrics of one repair hang on what counts as unchanged."""
    labels = list(recovery.repaired)
    label = st.selectbox(
        "Repair",
        labels,
        index=labels.index("dg_hard") if "dg_hard" in labels else 0,
        format_func=method_words,
        key="tolerance-of",
        width=320,
    )
    names = ("healed", "preserved", "non_damage", "clean_up", "retention", "combined_population", "combined_cell")
    rows = [
        {
            "tolerance": row["tolerance"],
            "standard errors": row["z"],
            **{part: row[part] for part in ("damaged", "improved", "unchanged")},
            **{METRICS[name].title: "–" if row[name] is None else f"{row[name]:.1f}" for name in names},
        }
        for row in recovery.sensitivity(label)
    ]
    config = {"tolerance": st.column_config.NumberColumn(format="%.4g")}
    st.dataframe(rows, hide_index=True, width="stretch", column_config=config)
    st.caption(
        "The paper does not state its tolerance, so look whether yours matters: where these rows differ, the choice "
        "of what counts as unchanged decides, not the repair."
    )


def draw_notes(recovery: Recovery) -> None:
    """Show what to beware of, and which scores are missing."""
    notes: dict[str, list[str]] = {note: [] for note in recovery.notes}
    for label, found in recovery.repaired.items():
        for note in found.notes:
            notes.setdefault(note, []).append(label)
    if not notes and not recovery.missing:
        return
    st.subheader("To beware of", anchor=False)
    whole = len(recovery.repaired)
    lines = [
        f"· {note}" if not about or len(about) == whole else f"· {', '.join(about)}: {note}"
        for note, about in notes.items()
    ]
    for line in lines[:_NOTES]:
        st.text(line)
    if lines[_NOTES:]:
        with st.expander(f"{len(lines) - _NOTES} more", icon=":material/more_horiz:"):
            st.text("\n".join(lines[_NOTES:]))
    if recovery.missing:
        with st.expander(f"Missing scores: {len(recovery.missing)}", icon=":material/playlist_remove:"):
            st.text("\n".join(recovery.missing))


def draw_definitions(recovery: Recovery) -> None:
    """Show what every metric means and what was resampled."""
    st.text("b, t, r: scores of base, tuned and repaired.")
    rows = [{"metric": METRICS[name].title, "definition": definition(recovery, name)} for name in METRICS]
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        row_height=54,
        column_config={"metric": st.column_config.TextColumn(width="small")},
    )
    st.text(f"Intervals: {recovery.replicates} replicates, seed {recovery.seed}. {RESAMPLED}")
    st.text("Source: arXiv 2605.20296; where it is silent, the definition says what was chosen.")
