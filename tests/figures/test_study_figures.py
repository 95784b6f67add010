"""The paper's figures of a study: a panel per cohort and per safety axis, what is not shown said in it."""

import pytest

from dgviz.figures import axis_trends, combined_panels, recovery_panels
from dgviz.figures.style import LAW
from dgviz.scores import Score, ScoreTable, choose_scores
from dgviz.scores.recovery import Tolerance, assess, plan_study
from dgviz.scores.recovery.study import study_arguments

ROWS = {
    ("one", "a"): (0.6, 0.4, 0.55, 0.5),
    ("one", "b"): (0.4, 0.6, 0.58, 0.5),
    ("one", "harm"): (0.1, 0.4, 0.2, 0.3),
    ("two", "a"): (0.7, 0.5, 0.6, 0.6),
    ("two", "b"): (0.5, 0.5, 0.5, 0.5),
    ("two", "harm"): (0.2, 0.3, None, 0.25),
}
CONTENT = {
    "note": "made up <b>",
    "cells": [
        {"name": c, "model": c.upper(), "base": "base", "tuned": "t", "repaired": {"dg_hard": "d", "LoRA": "l"}}
        for c in ("one", "two")
    ],
    "benchmarks": {"a": {}, "b": {}},
    "axes": {"harm": {"title": "Harm", "lower_is_better": True}},
    "cohorts": {"First": ["one"], "Second": ["two"], "Unknown": None},
}


@pytest.fixture(scope="module")
def recovery():
    rows = [
        Score(model, name, value, cell=cell)
        for (cell, name), values in ROWS.items()
        for model, value in zip(("base", "t", "d", "l"), values, strict=True)
        if value is not None
    ]
    study = plan_study(table := ScoreTable(tuple(rows)), **study_arguments(CONTENT, "x"))
    return assess(study, choose_scores(table), Tolerance(), replicates=20)


def words(figure):
    return [note.text for note in figure.layout.annotations]


def points(figure, name, mode="markers"):
    return [trace for trace in figure.data if trace.name == name and trace.mode == mode and trace.y[0] is not None]


def test_figure_1_has_a_panel_per_cohort(recovery):
    figure = recovery_panels(recovery)
    assert words(figure)[:4] == [
        "Overall, n = 2 / 1 / 1", "First, n = 1 / 1 / 0", "Second, n = 1 / 0 / 1", "Unknown, open",
    ]  # fmt: skip
    overall, first = points(figure, "DG-Hard")  # in Second nothing improved, Unknown is open
    assert (overall.marker.symbol, overall.marker.color) == ("diamond", LAW)
    assert (first.x[0], first.y[0]) == (pytest.approx(75), pytest.approx(90))
    assert (overall.x[0], overall.y[0]) == (pytest.approx(62.5), pytest.approx(90))
    assert "without % healed or % preserved: DG-Hard, LoRA" in words(figure)
    assert any("leaves open" in text for text in words(figure))
    assert figure.layout.title.text == "made up <b>"
    assert len(points(figure, "ideal")) == 4 and len(points(figure, "harmonic mean 80", "lines")) == 4
    shown = [trace.name for trace in figure.data if trace.showlegend]
    assert len(shown) == len(set(shown)) and {"DG-Hard", "LoRA", "ideal"} <= set(shown)


def test_a_method_that_the_first_panel_lacks_is_in_the_legend():
    content = CONTENT | {"cohorts": {"Overall": ["two"], "First": ["one"]}}
    rows = [
        Score(model, name, value, cell=cell)
        for (cell, name), values in ROWS.items()
        for model, value in zip(("base", "t", "d", "l"), values, strict=True)
        if value is not None
    ]
    study = plan_study(table := ScoreTable(tuple(rows)), **study_arguments(content, "x"))
    figure = recovery_panels(assess(study, choose_scores(table), Tolerance(), replicates=0))
    assert [trace.name for trace in figure.data if trace.showlegend].count("DG-Hard") == 1


def test_figure_2_says_its_values(recovery):
    figure = combined_panels(recovery)
    bars = figure.data[0]
    expected = recovery.repaired["dg_hard"].metrics["combined_population"]
    assert dict(zip(bars.x, bars.y, strict=True))["DG-Hard"] == pytest.approx(expected.value)
    assert bars.error_y.array[list(bars.x).index("DG-Hard")] == pytest.approx(expected.interval[1] - expected.value)


def test_trends_have_a_panel_per_axis_and_open_points_where_cells_are_missing(recovery):
    figure = axis_trends(recovery)
    assert words(figure)[0] == "Harm: lower is better"
    one = next(trace for trace in points(figure, "ONE") if trace.marker.size == 10)
    assert list(one.y) == [0.1, 0.4, 0.2, 0.3] and set(one.marker.symbol) == {"circle"}
    two = next(trace for trace in points(figure, "TWO") if trace.marker.size == 10)
    assert two.y[2] is None and "without a score: TWO, DG-Hard" in words(figure)
