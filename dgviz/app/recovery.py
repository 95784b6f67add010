"""The Recovery page's table of metrics, and how its figures are shown."""

from dataclasses import replace
from typing import Any

import streamlit as st

from dgviz.app.messages import plain
from dgviz.figures import plot_config
from dgviz.repair.methods import method_words
from dgviz.scores.recovery import METRICS, MetricValue, Recovery
from dgviz.scores.recovery.report import definition, metrics_csv, tolerance_sentence

_PICTURE = "picture-format"
# What decides first, then what it is made of.
_ORDER = (
    "combined_population",
    "healed",
    "preserved",
    "on_task_retention",
    "non_damage",
    "clean_up",
    "retention",
    "combined_cell",
    "balance",
)


def choose_repairs(recovery: Recovery) -> Recovery:
    """Let the user choose which repairs are shown; return the study with these."""
    labels = list(recovery.repaired)
    if len(labels) < 2:
        return recovery
    shown = st.multiselect(
        "Repairs shown",
        labels,
        default=labels,
        format_func=method_words,
        key=f"repairs-{'-'.join(labels)}",
        placeholder="choose repairs",
    )
    if not shown:
        st.info("Choose at least one repair.")
        st.stop()
    return replace(recovery, repaired={label: found for label, found in recovery.repaired.items() if label in shown})


def choose_display() -> bool:
    """Let the user choose how the figures are drawn and saved; return whether the paper's are drawn too."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        paper = st.toggle(
            "Show the paper's published figures, in grey", key="paper", help="arXiv 2605.20296: other models."
        )
        st.segmented_control(
            "Camera buttons save", ["SVG", "PNG"], default="SVG", required=True, key=_PICTURE, width="content"
        )
    return paper


def picture_config(name: str) -> dict[str, Any]:
    """Return Plotly's configuration, with the picture format chosen on the page."""
    return plot_config(name, st.session_state.get(_PICTURE, "SVG").lower())


def titled(recovery: Recovery, label: str) -> str:
    """Return what a repair is called in tables and figures: by its method's title, and a control says so."""
    title = method_words(label)
    return f"{title} (control)" if label in recovery.study.controls and "ontrol" not in title else title


def shown_value(found: MetricValue) -> str:
    """Return a metric in words: value, interval and n."""
    if found.value is None:
        return "–"
    interval = f" [{found.interval[0]:.1f}, {found.interval[1]:.1f}]" if found.interval else ""
    return f"{found.value:.1f}{interval}, n = {found.n}"


def draw_verdict(recovery: Recovery) -> None:
    """Say what the best repair is, and where DG-Hard stands."""
    st.markdown(_verdict(recovery))


def draw_overview(recovery: Recovery) -> None:
    """Show how many benchmarks were damaged, and every metric of every repair."""
    counts = recovery.counts()
    total = sum(counts.values())
    columns = st.columns(4)
    for column, (part, count) in zip(columns, counts.items(), strict=False):
        column.metric(f"{part.capitalize()}: of {total} held-out", count, border=True)
    repairs = sum(not recovery.is_control(label) for label in recovery.repaired)
    columns[3].metric("Repairs", repairs, border=True)
    st.caption(f"{tolerance_sentence(recovery)}. Intervals: 95 %, {recovery.replicates} bootstrap replicates.")
    everything = {**recovery.repaired, **recovery.controls}
    defined = [name for name in _ORDER if any(found.metrics[name].value is not None for found in everything.values())]
    rows = [
        {
            "repair": titled(recovery, label),
            **{METRICS[name].title: shown_value(everything[label].metrics[name]) for name in defined},
        }
        for label in sorted(everything, key=recovery.is_control)
    ]
    config = {METRICS[name].title: st.column_config.TextColumn(help=definition(recovery, name)) for name in METRICS}
    config["repair"] = st.column_config.TextColumn(width=225, pinned=True)
    st.dataframe(rows, hide_index=True, width="stretch", height=38 + 35 * min(len(rows), 24), column_config=config)
    st.caption(
        "In percent, with interval and n, the number of scores behind it. The last rows are no repairs but controls; "
        "the very last two are what going back to base and keeping tuned would get. A metric that praises a control "
        "says little here." + _undefined_words([METRICS[name].title for name in _ORDER if name not in defined])
    )
    st.download_button(
        "CSV of all metrics", metrics_csv(recovery), "recovery-metrics.csv", "text/csv", icon=":material/download:"
    )


def _undefined_words(titles: list[str]) -> str:
    """Say which metrics no repair has."""
    if not titles:
        return ""
    return f" Not shown, for no benchmark here defines them: {', '.join(titles)}."


def _verdict(recovery: Recovery) -> str:
    """Return which repair has the highest Combined, and where DG-Hard stands, in words."""
    repairs = {label: found for label, found in recovery.repaired.items() if not recovery.is_control(label)}
    known = {label: found.metrics["combined_population"] for label, found in repairs.items()}
    ranked = sorted((k for k in known if known[k].value is not None), key=lambda k: -known[k].value)
    if not ranked:
        return "No repair has a Combined here: too many scores are missing."
    best = ranked[0]
    text = f"**{plain(method_words(best))}** has the highest Combined (population): {shown_value(known[best])}."
    if len(ranked) > 1 and "dg_hard" in ranked and best != "dg_hard":
        place = ranked.index("dg_hard") + 1
        text += f" DG-Hard is number {place} of {len(ranked)} with {shown_value(known['dg_hard'])}."
        other = known["dg_hard"]
    elif len(ranked) > 1:
        text += f" Next is {plain(method_words(ranked[1]))} with {shown_value(known[ranked[1]])}."
        other = known[ranked[1]]
    else:
        return text
    if known[best].interval and other.interval:
        apart = known[best].interval[0] > other.interval[1] or other.interval[0] > known[best].interval[1]
        text += " The two intervals do not overlap." if apart else " The two intervals overlap."
    return text
