"""Repairs as points in a plane of two percentages, healed against kept, and as bars with intervals."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from dgviz.figures.style import ACCENT, MUTED, RULE_COLOURS, SMALL_LEGEND_ABOVE, as_text, base_figure

Interval = tuple[float, float]

CONTOUR = 80.0
_SYMBOLS = ("circle", "square", "triangle-up", "cross", "star", "triangle-down", "pentagon", "hexagram")
REFERENCE = "diamond-open"
_DASHES = ("dash", "dot", "longdashdot")
_INNER = (640, 430)  # pixels taken for the plane when labels are placed; a wider page only spreads them
_LETTER, _LINE = 6.6, 15  # width of a letter and height of a line of a label, in pixels
# Where a label may stand, clear of the bars of both intervals: text position, and its box from there.
_PLACES = {
    "top right": (0.0, 0.0, 4, 8),
    "bottom right": (0.0, -1.0, 4, -8),
    "top left": (-1.0, 0.0, -4, 8),
    "bottom left": (-1.0, -1.0, -4, -8),
}


@dataclass(frozen=True)
class RepairPoint:
    """A repair in a plane of two percentages.

    Attributes
    ----------
    label, family : str
        Its name, and that of the method it is a setting of: one colour, joined by a line.
    x, y : float
        Percentages.
    x_interval, y_interval : (float, float) or None
        Lower and upper end of an interval.
    detail : str
        For the hover, after the name.
    reference : bool
        Not a result of these scores: drawn in grey, open.
    """

    label: str
    family: str
    x: float
    y: float
    x_interval: Interval | None = None
    y_interval: Interval | None = None
    detail: str = ""
    reference: bool = False


def family_colours(families: Sequence[str]) -> dict[str, str]:
    """Return one colour per method; the accent is DG-Hard's."""
    others = [name for name in dict.fromkeys(families) if name != "dg_hard"]
    palette = [colour for colour in RULE_COLOURS if colour not in (ACCENT, MUTED)]
    return {"dg_hard": ACCENT} | {name: palette[i % len(palette)] for i, name in enumerate(others)}


def recovery_plane(
    points: Sequence[RepairPoint],
    x_title: str,
    y_title: str,
    *,
    contours: Mapping[str, float] | None = None,
    frontier: bool = False,
) -> go.Figure:
    """Return repairs as points of two percentages, with lines of equal harmonic mean.

    Parameters
    ----------
    points : sequence of RepairPoint
        All that is drawn.
    x_title, y_title : str
        Axes.
    contours : mapping of text to float, optional
        Harmonic means of x and y to draw a line at; by default one at 80.
    frontier : bool
        Whether to join the points that no other one beats on both axes.

    Returns
    -------
    go.Figure
        Both axes cover at least 0 to 100; labels that would overlap are left to the hover.
    """
    percent = {"dtick": 20, "ticksuffix": " %"}
    spans = _range([(p.x, p.x_interval) for p in points]), _range([(p.y, p.y_interval) for p in points])
    figure = base_figure(
        500,
        xaxis=percent | {"title": {"text": as_text(x_title)}, "range": spans[0]},
        yaxis=percent | {"title": {"text": as_text(y_title)}, "range": spans[1]},
    )
    lines = {f"harmonic mean {CONTOUR:g}": CONTOUR} if contours is None else contours
    for (text, level), dash in zip(lines.items(), itertools.cycle(_DASHES)):
        x, y = contour_line(level, max(spans[0][1], spans[1][1]))
        _draw_line(figure, x, y, text, color=MUTED, width=1.6, dash=dash)
    if lines:
        figure.update_layout(showlegend=True, legend=SMALL_LEGEND_ABOVE, margin={"t": 30})
    own = [point for point in points if not point.reference]
    if frontier:
        best = pareto(own)
        _draw_line(figure, [p.x for p in best], [p.y for p in best], color=MUTED, width=2, shape="vh")
    colours = family_colours([point.family for point in own])
    for family in dict.fromkeys(point.family for point in own):
        members = sorted((p for p in own if p.family == family), key=lambda p: p.x)
        if len(members) > 1:
            x, y = [p.x for p in members], [p.y for p in members]
            _draw_line(figure, x, y, color=colours[family], width=1, dash="dot")
    shapes = {name: _SYMBOLS[number % len(_SYMBOLS)] for number, name in enumerate(colours)}
    placed: dict[
        str, list[tuple[RepairPoint, str]]
    ] = {}  # by colour: a trace each costs more than anything else here
    for point, place in zip(points, label_places(points, *spans), strict=True):
        placed.setdefault(MUTED if point.reference else colours[point.family], []).append((point, place))
    figure.add_traces([_markers(colour, members, shapes) for colour, members in placed.items()])
    return figure


def _markers(colour: str, placed: Sequence[tuple[RepairPoint, str]], shapes: Mapping[str, str]) -> dict[str, Any]:
    """Return the trace of all points of one colour, each with the place of its label."""
    points = [point for point, _ in placed]
    x, y = [point.x for point in points], [point.y for point in points]
    return {
        "type": "scatter",
        "x": x,
        "y": y,
        "mode": "markers+text",
        "text": [as_text(point.label) if place else "" for point, place in placed],
        "textposition": [place or "top right" for _, place in placed],
        "textfont": {"color": colour, "size": 12},
        "marker": {
            "color": colour,
            "size": 11,
            "symbol": [REFERENCE if point.reference else shapes[point.family] for point in points],
        },
        "error_x": interval_bars(x, [point.x_interval for point in points], color=colour, thickness=1),
        "error_y": interval_bars(y, [point.y_interval for point in points], color=colour, thickness=1),
        "hovertemplate": [as_text(f"<b>{p.label}</b><br>{p.detail}") + "<extra></extra>" for p in points],
        "cliponaxis": False,
        "showlegend": False,
    }


def _range(values: Sequence[tuple[float, Interval | None]]) -> list[float]:
    """Return an axis over all values and intervals, and 0 to 100 with room for labels."""
    ends = [end for value, interval in values for end in (value, *(interval or ()))]
    return [min([-6.0, *(end - 4 for end in ends)]), max([112.0, *(end + 4 for end in ends)])]


def interval_bars(values: Sequence[float], intervals: Sequence[Interval | None], **style: Any) -> dict[str, Any]:
    """Return Plotly's error bars of the intervals around some values; none where an interval is None."""
    ends = [interval or (value, value) for value, interval in zip(values, intervals, strict=True)]
    return style | {
        "type": "data",
        "visible": any(intervals),
        "symmetric": False,
        "array": [max(high - value, 0) for value, (_, high) in zip(values, ends, strict=True)],
        "arrayminus": [max(value - low, 0) for value, (low, _) in zip(values, ends, strict=True)],
        "width": 3,
    }


def contour_line(level: float, top: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the line on which the harmonic mean of both axes is `level`, from `top` to `top`."""
    x = np.geomspace(level * top / (2 * top - level), top, 160)
    return x, level * x / (2 * x - level)


def _draw_line(figure: go.Figure, x: ArrayLike, y: ArrayLike, name: str = "", **line: Any) -> None:
    """Draw a line without markers, in the legend where it has a name."""
    figure.add_scatter(x=x, y=y, mode="lines", name=name, line=line, hoverinfo="skip", showlegend=bool(name))


def pareto(points: Sequence[RepairPoint]) -> list[RepairPoint]:
    """Return the points that no other one equals or beats on both axes, from left to right."""
    best: list[RepairPoint] = []
    for point in sorted(points, key=lambda p: (-p.x, -p.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return best[::-1]


def label_places(points: Sequence[RepairPoint], x_range: Sequence[float], y_range: Sequence[float]) -> list[str]:
    """Return a text position per point that overlaps no marker and no other label; empty where there is none."""
    scale = [size / (high - low) for size, (low, high) in zip(_INNER, (x_range, y_range), strict=True)]
    at = [((p.x - x_range[0]) * scale[0], (p.y - y_range[0]) * scale[1]) for p in points]
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in at]
    places = []
    for number, (point, (x, y)) in enumerate(zip(points, at, strict=True)):
        width = _LETTER * len(point.label)
        for name, (left, bottom, dx, dy) in _PLACES.items():
            box = (x + dx + left * width, y + dy + bottom * _LINE)
            box = (*box, box[0] + width, box[1] + _LINE)
            inside = box[0] > 0 and box[2] < _INNER[0] and box[1] > 0 and box[3] < _INNER[1]
            if inside and not any(_overlap(box, other) for i, other in enumerate(taken) if i != number):
                taken.append(box)
                places.append(name)
                break
        else:
            places.append("")
    return places


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes
    ----------
    group, label, family : str
        Where it stands, whose it is, and the method that gives the colour.
    value : float or None
        Percent; None is written as undefined.
    interval : (float, float) or None
        Lower and upper end.
    n : int
        How many scores it rests on.
    """

    group: str
    label: str
    family: str
    value: float | None
    interval: Interval | None
    n: int


def recovery_bars(
    bars: Sequence[Bar], title: str, *, references: Mapping[str, Mapping[str, float]] | None = None
) -> go.Figure:
    """Return bars in groups, with intervals and n.

    Parameters
    ----------
    bars : sequence of Bar
        In the order drawn.
    title : str
        Of the axis.
    references : mapping of name to mapping of group to float, optional
        Values from elsewhere, as open grey diamonds over a group.
    """
    groups, labels = list(dict.fromkeys(b.group for b in bars)), list(dict.fromkeys(b.label for b in bars))
    colours = family_colours([bar.family for bar in bars])
    ends = [end for bar in bars if bar.value is not None for end in (bar.value, *(bar.interval or ()))]
    span = [1.08 * min([0.0, *ends]), max([106.0, *(1.04 * end for end in ends)])]
    rows = math.ceil(sum(len(name) + 6 for name in labels) / 110)
    figure = base_figure(
        420,
        xaxis={
            "tickvals": list(range(len(groups))),
            "ticktext": list(map(as_text, groups)),
            "range": [-0.5, len(groups) - 0.5],
        },
        yaxis={"title": {"text": title}, "range": span, "ticksuffix": " %"},
        legend=SMALL_LEGEND_ABOVE | {"y": 1.02},
        margin={"l": 64, "r": 16, "t": 14 + 22 * rows, "b": 52},
        barmode="overlay",
    )
    width = 0.86 / len(labels)
    families = {bar.label: bar.family for bar in bars}
    for number, label in enumerate(labels):
        own = [bar for bar in bars if bar.label == label]
        same = [name for name in labels if families[name] == families[label]]
        known = [bar for bar in own if bar.value is not None]
        shift = (number - (len(labels) - 1) / 2) * width
        figure.add_bar(
            x=[groups.index(bar.group) + shift for bar in known],
            y=[bar.value for bar in known],
            width=0.9 * width,
            name=as_text(label),
            # Settings of one method share its colour, from faint to full.
            marker={"color": _faded(colours[families[label]], (same.index(label) + 1) / len(same))},
            error_y=interval_bars(
                [bar.value for bar in known], [bar.interval for bar in known], color=MUTED, thickness=1.2
            ),
            customdata=[(bar.n, interval_words(bar.interval)) for bar in known],
            hovertemplate=as_text(f"<b>{label}</b><br>%{{y:.1f}} % %{{customdata[1]}}, n = %{{customdata[0]}}")
            + "<extra></extra>",
        )
        for bar in own:
            if bar.value is None:
                figure.add_annotation(
                    x=groups.index(bar.group) + shift, y=0, text="undefined", textangle=-90, showarrow=False,
                    yanchor="bottom", font={"color": MUTED, "size": 11},
                )  # fmt: skip
    for name, values in (references or {}).items():
        shown = {group: value for group, value in values.items() if group in groups}
        figure.add_scatter(
            x=[groups.index(group) + 0.46 for group in shown],  # beside the bars
            y=list(shown.values()),
            mode="markers",
            name=name,
            marker={"color": MUTED, "symbol": REFERENCE, "size": 12, "line": {"width": 2}},
            hovertemplate=f"<b>{name}</b><br>%{{y:.1f}} %<extra></extra>",
        )
    if len(groups) == 1:  # a name below every bar is read at once, a legend of many is not
        places = [(number - (len(labels) - 1) / 2) * width for number in range(len(labels))]
        figure.update_xaxes(tickvals=places, ticktext=list(map(as_text, labels)), tickangle=-40)
        figure.update_xaxes(title={"text": as_text(groups[0])})
        figure.update_traces(showlegend=False, selector={"type": "bar"})
        figure.update_layout(margin_t=14 + 22 * bool(references))
    return figure


def _faded(colour: str, strength: float) -> str:
    """Return a colour mixed with transparency; the legend shows it as the bars do."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {0.35 + 0.65 * strength:.2f})"


def interval_words(interval: Interval | None) -> str:
    """Return an interval for the hover; nothing where there is none."""
    return f"[{interval[0]:.1f}, {interval[1]:.1f}]" if interval else ""
