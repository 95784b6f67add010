"""The Recovery page's table of metrics and its figures."""

from collections.abc import Mapping
from dataclasses import replace

import streamlit as st

from dgviz.figures import Bar, RepairPoint, plot_config, recovery_bars, recovery_plane
from dgviz.recovery import METRICS, PAPER_COMBINED, Assessment, MetricValue, Recovery
from dgviz.recovery.report import definition, metrics_csv, tolerance_sentence

_EVERYTHING = "all benchmarks"
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
    """Let the user choose which repairs are shown; return the study with these.

    Parameters
    ----------
    recovery : Recovery
        The assessed study.
    """
    labels = list(recovery.repaired)
    if len(labels) < 2:
        return recovery
    shown = st.multiselect(
        "Repairs shown", labels, default=labels, key=f"repairs-{'-'.join(labels)}", placeholder="choose repairs"
    )
    if not shown:
        st.info("Choose at least one repair.")
        st.stop()
    return replace(recovery, repaired={label: found for label, found in recovery.repaired.items() if label in shown})


def shown_value(found: MetricValue) -> str:
    """Return a metric in words: value, interval and n.

    Parameters
    ----------
    found : MetricValue
        The metric.
    """
    if found.value is None:
        return "undefined"
    interval = f" [{found.interval[0]:.1f}, {found.interval[1]:.1f}]" if found.interval else ""
    return f"{found.value:.1f}{interval}, n = {found.n}"


def draw_overview(recovery: Recovery) -> None:
    """Show how many benchmarks were damaged, what the best repair is, and every metric of every repair.

    Parameters
    ----------
    recovery : Recovery
        The assessed study.
    """
    counts = recovery.counts()
    total = sum(counts.values())
    columns = st.columns(4)
    for column, (part, count) in zip(columns, counts.items(), strict=False):
        column.metric(f"{part.capitalize()}: of {total} held-out", count, border=True)
    columns[3].metric("Repairs", len(recovery.repaired), border=True)
    st.caption(f"{tolerance_sentence(recovery)}. Intervals: 95 %, {recovery.replicates} bootstrap replicates.")
    st.markdown(_verdict(recovery))
    rows = [
        {"repair": label, **{METRICS[name].title: shown_value(found.metrics[name]) for name in _ORDER}}
        for label, found in {**recovery.repaired, **recovery.controls}.items()
    ]
    config = {METRICS[name].title: st.column_config.TextColumn(help=definition(recovery, name)) for name in METRICS}
    config["repair"] = st.column_config.TextColumn(width=190, pinned=True)
    st.dataframe(rows, hide_index=True, width="stretch", height=38 + 35 * min(len(rows), 24), column_config=config)
    st.caption(
        "In percent, with interval and n, the number of scores behind it. The last two rows are no repairs: what "
        "going back to base and keeping tuned would get. A metric that praises one of them says little here."
    )
    st.download_button(
        "CSV of all metrics", metrics_csv(recovery), "recovery-metrics.csv", "text/csv", icon=":material/download:"
    )


def _verdict(recovery: Recovery) -> str:
    """Return which repair has the highest Combined, and where DG-Hard stands, in words."""
    known = {k: v.metrics["combined_population"] for k, v in recovery.repaired.items()}
    ranked = sorted((k for k in known if known[k].value is not None), key=lambda k: -known[k].value)
    if not ranked:
        return "No repair has a Combined here: too many scores are missing."
    best = ranked[0]
    text = f"**{_plain(best)}** has the highest Combined (population): {shown_value(known[best])}."
    if len(ranked) > 1 and "dg_hard" in ranked and best != "dg_hard":
        place = ranked.index("dg_hard") + 1
        text += f" DG-Hard is number {place} of {len(ranked)} with {shown_value(known['dg_hard'])}."
        other = known["dg_hard"]
    elif len(ranked) > 1:
        text += f" Next is {_plain(ranked[1])} with {shown_value(known[ranked[1]])}."
        other = known[ranked[1]]
    else:
        return text
    if known[best].interval and other.interval:
        apart = known[best].interval[0] > other.interval[1] or other.interval[0] > known[best].interval[1]
        text += " The two intervals do not overlap." if apart else " The two intervals overlap."
    return text


def _plain(name: str) -> str:
    """Return a name that Markdown prints as it is."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+-.!~$:<>|" else letter for letter in name)


def _points(recovery: Recovery, x: str, y: str) -> list[RepairPoint]:
    """Return every repair, and the two that do nothing, in the plane of two metrics."""
    points = []
    for label, found in {**recovery.repaired, **recovery.controls}.items():
        across, up = found.metrics[x], found.metrics[y]
        if across.value is None or up.value is None:
            continue
        points.append(
            RepairPoint(
                label=label,
                family=recovery.study.families.get(label, label),
                x=across.value,
                y=up.value,
                x_interval=across.interval,
                y_interval=up.interval,
                detail=f"{METRICS[x].title}: {shown_value(across)}<br>{METRICS[y].title}: {shown_value(up)}",
                reference=label in recovery.controls,
            )
        )
    return points


def draw_plane(recovery: Recovery, paper: bool) -> None:
    """Draw recovery against preservation, with the line where their harmonic mean is 80.

    Parameters
    ----------
    recovery : Recovery
        The assessed study.
    paper : bool
        Whether to draw the paper's figures too.
    """
    st.subheader("Recovery and preservation", anchor=False)
    sides = [name for name in ("preserved", "on_task_retention") if _points(recovery, "healed", name)]
    if not sides:
        st.info("No held-out benchmark is damaged, so there is no recovery to draw; see the frontiers below.")
        return
    side = sides[0]
    if len(sides) > 1:
        side = st.segmented_control(
            "Preservation", sides, format_func=lambda n: METRICS[n].title, key="plane-y", default=side, required=True
        )
    contours = {"harmonic mean 80": 80.0}
    if paper:
        contours |= {f"paper: {name}, Combined {v['all']:g}": v["all"] for name, v in PAPER_COMBINED.items()}
    figure = recovery_plane(
        _points(recovery, "healed", side), "% healed of what was damaged", _axis(side), contours=contours
    )
    st.plotly_chart(figure, config=plot_config("recovery"), key="plane")
    why = "" if side == "preserved" else (
        " No held-out benchmark was improved, so on-task retention stands for preservation."
        if len(sides) == 1
        else ""
    )  # fmt: skip
    st.caption(
        "Further right: more of the damage is healed. Further up: more is kept. Beyond the dashed line the harmonic "
        "mean of the two is above 80. Bars are 95 % intervals; a dotted line joins settings of one method; grey "
        f"points are no repairs.{why}" + (_PAPER_LINES if paper else "")
    )


_PAPER_LINES = (
    " The lines marked *paper* are where the harmonic mean equals the Combined that arXiv 2605.20296 prints for its "
    "own 14 pairs of model and task; they are not about these models."
)


def _axis(name: str) -> str:
    return {"preserved": "% preserved of what was gained", "on_task_retention": "on-task retention"}[name]


def _by_cohort(recovery: Recovery, found: Assessment) -> dict[str, Mapping[str, MetricValue]]:
    return {_EVERYTHING: found.metrics, **found.cohorts}


def draw_bars(recovery: Recovery, paper: bool) -> None:
    """Draw a metric by cohort.

    Parameters
    ----------
    recovery : Recovery
        The assessed study.
    paper : bool
        Whether to draw the paper's figures too.
    """
    st.subheader("Combined by cohort", anchor=False)
    names = ["combined_population", "combined_cell", "balance"]
    name = st.segmented_control(
        "Metric", names, format_func=lambda n: METRICS[n].title, key="bars-metric", default=names[0], required=True
    )
    bars = [
        Bar(cohort, label, recovery.study.families.get(label, label), value.value, value.interval, value.n)
        for label, found in recovery.repaired.items()
        for cohort, metrics in _by_cohort(recovery, found).items()
        for value in (metrics[name],)
    ]
    references = {}
    if paper and name == "combined_population":
        references = {
            f"paper: {method}": {_EVERYTHING if cohort == "all" else cohort: v for cohort, v in values.items()}
            for method, values in PAPER_COMBINED.items()
        }
    st.plotly_chart(
        recovery_bars(bars, METRICS[name].title, references=references), config=plot_config("combined"), key="bars"
    )
    cohorts = (
        "" if recovery.study.cohorts else " No cohorts are set: name some under *Tolerance, cohorts, directions*."
    )
    st.caption(
        f"{METRICS[name].title}: {definition(recovery, name)}. Bars are 95 % intervals.{cohorts}"
        + (" Grey diamonds are the paper's, over its own models and benchmarks." if references else "")
    )


def draw_frontiers(recovery: Recovery, paper: bool) -> None:
    """Draw Clean-up against Retention, and one cohort against another, with what no other repair beats.

    Parameters
    ----------
    recovery : Recovery
        The assessed study.
    paper : bool
        Whether to draw the paper's figures too.
    """
    st.subheader("Frontiers", anchor=False)
    cohorts = list(recovery.study.cohorts)
    left, right = st.columns(2) if len(cohorts) > 1 else (st.container(), None)
    with left:
        points = _points(recovery, "clean_up", "retention")
        if points:
            figure = recovery_plane(
                points, METRICS["clean_up"].title, METRICS["retention"].title, contours={}, frontier=True
            )
            st.plotly_chart(figure, config=plot_config("clean-up-retention"), key="frontier")
        st.caption(
            "The stairs join the repairs that no other one beats on both sides: to get further right from there, "
            "something must be given up. A repair below the stairs is beaten by one that heals and keeps at least "
            "as much." + ("" if right else " With two cohorts set, one is drawn against the other here.")
        )
    if right:
        with right:
            _draw_cohorts(recovery, paper, cohorts)


def _draw_cohorts(recovery: Recovery, paper: bool, cohorts: list[str]) -> None:
    """Draw one cohort's Combined against another's."""
    across, up = cohorts[:2]
    if len(cohorts) > 2:
        with st.container(horizontal=True):
            across = st.selectbox("Across", cohorts, key="cohort-x")
            up = st.selectbox("Up", [name for name in cohorts if name != across], key="cohort-y")
    points = _cohort_points(recovery, across, up)
    if paper and {across, up} <= PAPER_COMBINED["DG-Hard"].keys():
        at = (PAPER_COMBINED["DG-Hard"][name] for name in (across, up))
        points.append(RepairPoint("paper: DG-Hard", "", *at, detail="the paper's own models", reference=True))
    figure = recovery_plane(points, f"Combined, {across}", f"Combined, {up}", contours={}, frontier=True)
    st.plotly_chart(figure, config=plot_config("cohorts"), key="cohort-frontier")
    st.caption(
        f"Combined (population) over {_plain(across)} and over {_plain(up)}; on-task retention counts in both. Far "
        "from the diagonal a repair serves one at the cost of the other."
    )


def _cohort_points(recovery: Recovery, across: str, up: str) -> list[RepairPoint]:
    """Return every repair in the plane of two cohorts' Combined."""
    points = []
    for label, found in recovery.repaired.items():
        x, y = (found.cohorts[name]["combined_population"] for name in (across, up))
        if x.value is not None and y.value is not None:
            detail = f"{across}: {shown_value(x)}<br>{up}: {shown_value(y)}"
            family = recovery.study.families.get(label, label)
            points.append(RepairPoint(label, family, x.value, y.value, x.interval, y.interval, detail))
    return points
