"""A sweep in the plane of two scores: what is gained against what is kept, one line per method."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from dgviz.figures.recovery import RepairPoint, family_colours, label_places
from dgviz.figures.style import GRID, MUTED, as_text, base_figure
from dgviz.repair.methods import find_method

_SYMBOLS = ("circle", "square", "triangle-up", "cross", "star", "triangle-down", "pentagon", "hexagram", "diamond")
_NAMES = {"held_out": "held-out mean", "target": "target"}
_FIRST = ("dg_hard", "wise_ft", "norm_matched", "complement")  # labels of these are placed before those of others


def frontier_plot(
    sweep: Mapping[str, Any],
    *,
    methods: Sequence[str] | None = None,
    x: str = "target",
    y: str = "held_out",
) -> go.Figure:
    """Return a sweep of methods as lines through the plane of two scores, in percent.

    Parameters
    ----------
    sweep : mapping
        ``lines`` from `sweep_result`, with scores, and ``ends``: the scores of ``base`` and ``tuned``.
    methods : sequence of str, optional
        The methods drawn; by default all of the sweep.
    x, y : str
        Benchmarks.

    Returns
    -------
    go.Figure
        Points in the order of strength, labelled by it where there is room; controls dashed, a method's second
        strength dotted; bars of one standard error; base and tuned as open diamonds.
    """
    lines = [line for line in sweep["lines"] if methods is None or line["method"] in methods]
    at = [(line, point, *_percents(point["scores"], x, y)) for line in lines for point in line["points"]]
    ends = {name: _percents(rows, x, y) for name, rows in sweep["ends"].items()}
    spans = [_span(values) for values in zip(*((a, b) for *_, a, b in at), *ends.values(), strict=True)]
    figure = base_figure(
        560,
        xaxis={"title": {"text": f"{_NAMES.get(x, x)}, %"}, "range": spans[0]},
        yaxis={"title": {"text": f"{_NAMES.get(y, y)}, %"}, "range": spans[1]},
        legend={"font": {"size": 12}, "tracegroupgap": 2, "itemsizing": "constant"},
    )
    places = _places(at, ends, spans)
    colours = family_colours([line["method"] for line in lines if not line["control"]])
    symbols = dict(zip(dict.fromkeys(line["method"] for line in lines), itertools.cycle(_SYMBOLS)))
    drawn: set[str] = set()
    for line in lines:
        colour = MUTED if line["control"] else colours[line["method"]]
        dash = "dash" if line["control"] else "dot" if line["method"] in drawn else "solid"
        drawn.add(line["method"])
        points = line["points"]
        across, up = zip(*(_percents(point["scores"], x, y) for point in points), strict=True)
        figure.add_scatter(
            x=across,
            y=up,
            name=f"{find_method(line['method']).title} ({line['parameter']})",
            mode="lines+markers+text",
            text=[f"{point['value']:g}" if places[line["label"], point["value"]] else "" for point in points],
            textposition=[places[line["label"], point["value"]] or "top right" for point in points],
            textfont={"color": colour, "size": 10},
            line={"color": colour, "width": 1.5, "dash": dash},
            marker={"color": colour, "size": 7, "symbol": symbols[line["method"]]},
            error_x=_bars(points, x),
            error_y=_bars(points, y),
            customdata=[_detail(point, (x, y)) for point in points],
            hovertemplate="%{customdata}<extra></extra>",
        )
    for name, (across, up) in ends.items():
        figure.add_scatter(
            x=[across],
            y=[up],
            name=as_text(name),
            mode="markers+text",
            text=[as_text(name)],
            textposition="bottom left" if name == "tuned" else "bottom right",
            textfont={"color": MUTED, "size": 13},
            marker={"color": MUTED, "size": 13, "symbol": "diamond-open", "line": {"width": 2}},
            hovertemplate=f"<b>{as_text(name)}</b><br>%{{x:.1f}} %, %{{y:.1f}} %<extra></extra>",
            showlegend=False,
        )
    return figure


def _percents(scores: Mapping[str, Any], *benchmarks: str) -> list[float]:
    """Return scores in percent."""
    return [100 * scores[name]["score"] for name in benchmarks]


def _span(values: Sequence[float]) -> list[float]:
    """Return an axis over the values, with room for labels."""
    low, high = min(values), max(values)
    room = max(2.0, 0.07 * (high - low))
    return [low - room, high + room]


def _places(
    at: Sequence[tuple], ends: Mapping[str, tuple[float, float]], spans: Sequence[Sequence[float]]
) -> dict[tuple[str, float], str]:
    """Return where the label of each point stands; empty where there is no room for it."""
    keys = [(line["label"], point["value"]) for line, point, *_ in at]
    points = [RepairPoint(f"{point['value']:g}", line["method"], a, b) for line, point, a, b in at]
    order = sorted(range(len(at)), key=lambda i: (points[i].family not in _FIRST, i))
    marks = [RepairPoint(name, "", *where) for name, where in ends.items()]
    found = label_places([*marks, *(points[i] for i in order)], *spans)[len(marks) :]
    return {keys[i]: place for i, place in zip(order, found, strict=True)}


def _bars(points: Sequence[Mapping[str, Any]], benchmark: str) -> dict[str, Any]:
    """Return bars of one standard error, quiet enough to be drawn for every point."""
    sizes = [100 * (point["scores"][benchmark]["stderr"] or 0) for point in points]
    return {"type": "data", "array": sizes, "color": GRID, "thickness": 1, "width": 0}


def _detail(point: Mapping[str, Any], benchmarks: Sequence[str]) -> str:
    """Return what the hover says of a point."""
    rows = [f"<b>{point['label']}</b>"]
    for name in benchmarks:
        row = point["scores"][name]
        spread = "" if row["stderr"] is None else f" ± {100 * row['stderr']:.1f}"
        rows.append(f"{_NAMES.get(name, name)}: {100 * row['score']:.1f}{spread} %")
    return as_text("<br>".join([*rows, f"length of the update: {100 * point['norm_kept']:.0f} %"]))
