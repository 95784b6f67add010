"""Figures of recovery: what is drawn where, and that no label covers another."""

import itertools

import numpy as np
import pytest

from dgviz.figures import Bar, RepairPoint, recovery_bars, recovery_plane
from dgviz.figures.recovery import family_colours, pareto


def point(label, x, y, **options):
    return RepairPoint(label, options.pop("family", label), x, y, **options)


def traces(figure, mode):
    return [trace for trace in figure.data if (trace.mode or "").startswith(mode)]


def labels(figure):
    """Return by label what a point looks like: its trace, symbol, place of the label and x."""
    return {
        name: (trace, symbol, place, x)
        for trace in traces(figure, "markers")
        for name, symbol, place, x in zip(trace.text, trace.marker.symbol, trace.textposition, trace.x, strict=True)
    }


def test_the_contour_is_the_line_of_one_harmonic_mean():
    figure = recovery_plane([point("a", 50, 50)], "x", "y")
    line = next(trace for trace in figure.data if trace.name == "harmonic mean 80")
    x, y = np.array(line.x), np.array(line.y)
    np.testing.assert_allclose(2 * x * y / (x + y), 80)
    assert y[0] >= figure.layout.yaxis.range[1] - 1e-6 and x[-1] >= figure.layout.xaxis.range[1] - 1e-6


def test_axes_hold_everything():
    figure = recovery_plane([point("a", 140, -30, x_interval=(90, 180), y_interval=(-60, 10))], "x", "y")
    assert figure.layout.xaxis.range[1] > 180 and figure.layout.yaxis.range[0] < -60
    marker = traces(figure, "markers")[0]
    assert marker.error_x.array[0] == 40 and marker.error_x.arrayminus[0] == 50


def test_settings_of_one_method_are_joined_and_share_a_colour():
    points = [point("w1", 90, 20, family="w"), point("w2", 40, 90, family="w"), point("dg_hard", 30, 95)]
    figure = recovery_plane(points, "x", "y", contours={})
    joined = [trace for trace in traces(figure, "lines") if len(trace.x) == 2]
    assert [list(trace.x) for trace in joined] == [[40, 90]]
    colours = {name: trace.marker.color for name, (trace, *_) in labels(figure).items()}
    assert colours["w1"] == colours["w2"] != colours["dg_hard"] == family_colours([])["dg_hard"]


def test_references_are_grey_and_not_on_the_frontier():
    points = [point("a", 90, 90, reference=True), point("b", 50, 60), point("c", 60, 50), point("d", 40, 40)]
    figure = recovery_plane(points, "x", "y", contours={}, frontier=True)
    stairs = next(trace for trace in traces(figure, "lines") if trace.line.shape == "vh")
    assert list(stairs.x) == [50, 60] and list(stairs.y) == [60, 50]
    assert labels(figure)["a"][1] == "diamond-open"


def test_pareto_against_the_definition():
    draws = np.random.default_rng(0).integers(0, 12, (60, 2))
    points = [point(str(i), float(x), float(y)) for i, (x, y) in enumerate(draws)]
    beaten = lambda p: any(q.x >= p.x and q.y >= p.y and (q.x, q.y) != (p.x, p.y) for q in points)  # noqa: E731
    expected = sorted({(p.x, p.y) for p in points if not beaten(p)})
    assert [(p.x, p.y) for p in pareto(points)] == expected


def test_crowded_labels_give_way():
    figure = recovery_plane([point(f"a long label {n}", 30 + 4 * n, 50) for n in range(12)], "x", "y")
    shown = {name: found for name, found in labels(figure).items() if name}
    assert sum(len(trace.x) for trace in traces(figure, "markers")) == 12 > len(shown) > 2
    pixels = 640 / np.ptp(figure.layout.xaxis.range)
    for place in {place for _, _, place, _ in shown.values()}:
        at = sorted(x for _, _, where, x in shown.values() if where == place)
        assert all(right - left > 6 * len("a long label 9") / pixels for left, right in itertools.pairwise(at))


def test_bars_stand_where_they_belong():
    bars = [
        Bar("all", "dg_hard", "dg_hard", 50.0, (40.0, 65.0), 9),
        Bar("all", "w", "w", None, None, 0),
        Bar("K", "dg_hard", "dg_hard", -20.0, None, 3),
        Bar("K", "w", "w", 120.0, (110.0, 130.0), 3),
    ]
    figure = recovery_bars(bars, "Combined", references={"paper: DG-Hard": {"K": 84.8, "Other": 1.0}})
    assert list(figure.layout.xaxis.ticktext) == ["all", "K"]
    first, second, paper = figure.data
    assert first.name == "dg_hard" and list(first.y) == [50, -20]
    assert list(first.error_y.array) == [15, 0] and list(first.error_y.arrayminus) == [10, 0]
    assert list(second.y) == [120] and [note.text for note in figure.layout.annotations] == ["undefined"]
    assert list(paper.y) == [84.8] and paper.marker.symbol == "diamond-open"
    low, high = figure.layout.yaxis.range
    assert low < -20 and high > 130


@pytest.mark.parametrize("count", [1, 15])
def test_bars_do_not_overlap(count):
    bars = [Bar(group, f"r{n}", f"r{n}", 50.0, None, 1) for n in range(count) for group in ("a", "b")]
    figure = recovery_bars(bars, "x")
    edges = sorted((x - trace.width / 2, x + trace.width / 2) for trace in figure.data for x in trace.x)
    assert all(left[1] <= right[0] + 1e-9 for left, right in itertools.pairwise(edges))
