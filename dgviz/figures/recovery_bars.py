"""Bars of percentages with intervals: by cohort, or by size of change."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from dgviz.figures.recovery import REFERENCE, Interval, family_colours, interval_bars
from dgviz.figures.style import MUTED, SMALL_LEGEND_ABOVE, base_figure


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
        xaxis={"tickvals": list(range(len(groups))), "ticktext": groups, "range": [-0.5, len(groups) - 0.5]},
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
            name=label,
            # Settings of one method share its colour, from faint to full.
            marker={"color": _faded(colours[families[label]], (same.index(label) + 1) / len(same))},
            error_y=interval_bars(
                [bar.value for bar in known], [bar.interval for bar in known], color=MUTED, thickness=1.2
            ),
            customdata=[(bar.n, _interval_words(bar.interval)) for bar in known],
            hovertemplate=f"<b>{label}</b><br>%{{y:.1f}} % %{{customdata[1]}}, n = %{{customdata[0]}}<extra></extra>",
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
    return figure


def _faded(colour: str, strength: float) -> str:
    """Return a colour mixed with transparency; the legend shows it as the bars do."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {0.35 + 0.65 * strength:.2f})"


def _interval_words(interval: Interval | None) -> str:
    return f"[{interval[0]:.1f}, {interval[1]:.1f}]" if interval else ""
