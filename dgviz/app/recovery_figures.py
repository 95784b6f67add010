"""The Recovery page's figures: the plane, the bars by cohort, the frontiers."""

from collections.abc import Mapping

import streamlit as st

from dgviz.app.messages import plain
from dgviz.app.recovery import picture_config, shown_value, titled
from dgviz.figures import Bar, RepairPoint, recovery_bars, recovery_plane
from dgviz.scores.recovery import METRICS, PAPER_COMBINED, Assessment, MetricValue, Recovery
from dgviz.scores.recovery.report import definition

_EVERYTHING = "all benchmarks"


def _points(recovery: Recovery, x: str, y: str) -> list[RepairPoint]:
    """Return every repair, and the two that do nothing, in the plane of two metrics."""
    points = []
    for label, found in {**recovery.repaired, **recovery.controls}.items():
        across, up = found.metrics[x], found.metrics[y]
        if across.value is None or up.value is None:
            continue
        points.append(
            RepairPoint(
                label=titled(recovery, label),
                family=recovery.study.families.get(label, label),
                x=across.value,
                y=up.value,
                x_interval=across.interval,
                y_interval=up.interval,
                detail=f"{METRICS[x].title}: {shown_value(across)}<br>{METRICS[y].title}: {shown_value(up)}",
                reference=recovery.is_control(label),
            )
        )
    return points


def draw_plane(recovery: Recovery, paper: bool) -> None:
    """Draw recovery against preservation, with the line where their harmonic mean is 80."""
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
    st.plotly_chart(figure, config=picture_config("recovery"), key="plane")
    why = "" if side == "preserved" else (
        " No held-out benchmark was improved, so on-task retention stands for preservation."
        if len(sides) == 1
        else ""
    )  # fmt: skip
    st.caption(
        "Further right: more of the damage is healed. Further up: more is kept. Beyond the dashed line the harmonic "
        "mean of the two is above 80. Bars are 95 % intervals; a dotted line joins settings of one method; grey "
        f"points are controls, no repairs.{why}" + (_PAPER_LINES if paper else "")
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
    """Draw a metric by cohort."""
    names = ["combined_population", "combined_cell", "balance"]
    name = st.segmented_control(
        "Metric", names, format_func=lambda n: METRICS[n].title, key="bars-metric", default=names[0], required=True
    )
    bars = [
        Bar(
            cohort,
            titled(recovery, label),
            recovery.study.families.get(label, label),
            value.value,
            value.interval,
            value.n,
        )
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
        recovery_bars(bars, METRICS[name].title, references=references), config=picture_config("combined"), key="bars"
    )
    cohorts = (
        "" if recovery.study.cohorts else " No cohorts are set: name some under *Tolerance, cohorts, directions*."
    )
    st.caption(
        f"{METRICS[name].title}: {definition(recovery, name)}. Bars are 95 % intervals.{cohorts}"
        + (" Grey diamonds are the paper's, over its own models and benchmarks." if references else "")
    )


def draw_frontiers(recovery: Recovery, paper: bool) -> None:
    """Draw Clean-up against Retention, and one cohort against another, with what no other repair beats."""
    cohorts = list(recovery.study.cohorts)
    left, right = st.columns(2) if len(cohorts) > 1 else (st.container(), None)
    with left:
        points = _points(recovery, "clean_up", "retention")
        if points:
            figure = recovery_plane(
                points, METRICS["clean_up"].title, METRICS["retention"].title, contours={}, frontier=True
            )
            st.plotly_chart(figure, config=picture_config("clean-up-retention"), key="frontier")
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
    st.plotly_chart(figure, config=picture_config("cohorts"), key="cohort-frontier")
    st.caption(
        f"Combined (population) over {plain(across)} and over {plain(up)}; on-task retention counts in both. Far "
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
            control = recovery.is_control(label)
            points.append(
                RepairPoint(
                    titled(recovery, label), family, x.value, y.value, x.interval, y.interval, detail, control
                )
            )
    return points
