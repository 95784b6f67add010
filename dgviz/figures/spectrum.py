"""Singular values against rank: with edge and threshold, panel (a) of Figure 4, and before and after a method."""

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from dgviz.figures.style import ACCENT, BULK_EDGE, LAW, MUTED, NARROW, base_figure, level_line
from dgviz.rmt.threshold import DEGENERATE_MEDIAN
from dgviz.words import number

MAX_POINTS = 4000
_CORNER = 0.25  # share of a linear axis below a line in which its label has room


def spectrum_plot(
    s: ArrayLike,
    tau: float,
    edge: float | None,
    *,
    log: bool,
    log_rank: bool = False,
    rule: str = "",
    rounding: tuple[str, ArrayLike] | None = None,
) -> go.Figure:
    """Return singular values against rank, kept ones in the accent colour, with bulk edge and tau as labelled lines.

    Parameters
    ----------
    s : (p,) array
        Singular values, descending.
    tau : float
        Threshold; values strictly above it are drawn as kept.
    edge : float or None
        Upper end of the noise bulk; None or 0 draws no edge, nor does a bulk at rounding level.
    log : bool
        Logarithmic axis of singular values.
    log_rank : bool
        Logarithmic axis of ranks, which spreads out the few kept ones.
    rule : str
        Title of the rule that set tau, for the label.
    rounding : (str, (p',) array), optional
        Format that the weights were rounded to, and the singular values that this rounding alone would give; they
        become a labelled dotted line.

    Returns
    -------
    go.Figure
        The bulk edge is shape and annotation 0, tau is 1, the kept values are trace 1. Ranks count from 1. Lines
        longer than 4000 points are thinned, the first thousand ranks and both sides of the threshold excepted.
    """
    values = np.asarray(s, dtype=np.float64)
    # An edge made from rounding is none. Plotly takes no numpy scalars.
    noisy = np.median(values) > DEGENERATE_MEDIAN * values[0]
    tau, edge = float(tau), float(edge) if edge and noisy else None
    rank = int(np.count_nonzero(values > tau))
    drawn = thin_ranks(values.size, rank)
    low, high = value_range(values, tau, edge, log)
    figure = base_figure(
        360,
        line(values, drawn, MUTED, "dropped"),
        line(values, drawn[drawn < rank], ACCENT, "kept"),
        xaxis=rank_axis(values.size, log_rank),
        yaxis=value_axis(low, high, log),
    )
    label, shown = f"τ = {number(tau)}" + (f" ({rule})" if rule else ""), edge or 0.0
    label_at = [max(shown, tau)] * 2 if edge and _near(edge, tau, low, high, log) else [shown, tau]
    # Beside the label of tau, which is about 6.6 pixels a letter.
    beside = {"text": f"bulk edge {number(shown)}", "xshift": -round(14 + 6.6 * len(label))}
    _level(figure, shown, label_at[0], log, BULK_EDGE, "dot", beside)
    _level(figure, tau, label_at[1], log, ACCENT, "dash", {"text": label})
    if not edge:  # kept in place, so that tau stays shape and annotation 1
        figure.layout.shapes[0].visible = figure.layout.annotations[0].visible = False
    if rounding is not None:
        _draw_rounding(figure, *rounding, low, high, log)
    if values[0] == 0:
        figure.add_annotation(
            text="all singular values are zero", xref="paper", yref="paper", x=0.5, y=0.5, showarrow=False
        )
    return figure


def effect_plot(s: ArrayLike, values: ArrayLike, edge: float | None) -> go.Figure:
    """Return the singular values of an update before a method, in grey, and after it.

    Parameters
    ----------
    s : (p,) array
        Of the fine-tuned update, descending.
    values : (p,) array
        Of the method's, in any order; drawn descending, zeros left out.
    edge : float or None
        Upper end of the noise bulk.
    """
    before = np.asarray(s, dtype=np.float64)
    after = np.sort(np.asarray(values, dtype=np.float64))[::-1]
    after = after[after > 0]
    low, high = value_range(before, 0.0, edge, log=True)
    high = max([high, *(1.2 * after[:1])])
    drawn = thin_ranks(before.size, after.size)
    figure = base_figure(
        240,
        line(before, drawn, MUTED, "before"),
        line(after, drawn[drawn < after.size], ACCENT, "after"),
        xaxis=rank_axis(before.size, log_rank=True),
        yaxis=value_axis(low, high, log=True) | {"title": None},
        margin=NARROW,
    )
    if edge and edge >= low:
        level_line(figure, edge, MUTED, "dot", 1)
    return figure


def _draw_rounding(figure: go.Figure, kind: str, expected: ArrayLike, low: float, high: float, log: bool) -> None:
    """Add the line of what rounding alone would give, labelled in the empty corner below it."""
    levels = np.asarray(expected, dtype=np.float64)
    at = thin_ranks(levels.size, 0, 400)
    label = f"rounding to {kind} alone"
    start, place, note = float(levels[0]), {"yref": "paper", "y": 0.01}, label
    if start <= low:
        note = f"{label}: below what is shown"
    else:
        hover, style = f"rank %{{x}}: %{{y:.5g}}<extra>{label}</extra>", {"color": LAW, "width": 2, "dash": "dot"}
        figure.add_scatter(x=at + 1, y=levels[at], name=label, mode="lines", line=style, hovertemplate=hover)
        if not log and start < _CORNER * high:  # no room below
            place = {"y": start, "yshift": 2}
    figure.add_annotation(
        xref="paper", x=0.01, xanchor="left", yanchor="bottom", **place,
        text=note, showarrow=False, font={"color": LAW, "size": 13},
    )  # fmt: skip


def line(values: NDArray[np.float64], at: NDArray[np.int64], colour: str, name: str) -> go.Scatter:
    """Return the singular values at some positions as a line, with markers where they are kept."""
    few = at.size <= 64
    return go.Scatter(
        x=at + 1,
        y=values[at],
        name=name,
        mode="lines+markers" if name == "kept" else "lines",
        line={"color": colour, "width": 2},
        marker={"color": colour, "size": 5 if few else 3},
        hovertemplate="rank %{x}: s = %{y:.5g}<extra>" + name + "</extra>",
    )


def rank_axis(count: int, log_rank: bool) -> dict[str, Any]:
    """Return the axis of ranks, with a little air on both sides."""
    if log_rank:
        ends = [math.log10(0.9), math.log10(count * 1.1)]
        return {"title": {"text": "rank r"}, "type": "log", "range": ends, "dtick": 1}
    return {"title": {"text": "rank r"}, "range": [1 - 0.012 * count, count * 1.012]}


def value_range(values: NDArray[np.float64], tau: float, edge: float | None, log: bool) -> tuple[float, float]:
    """Return the ends of the axis of singular values: all of them, the edge, and tau up to twice s_1."""
    top = max(float(values[0]), edge or 0.0, min(tau, 2 * float(values[0]))) or 1.0
    if not log:
        return 0.0, 1.06 * top
    low = min([_floor(values)] + [x for x in (edge or 0.0, tau) if 0 < x <= top])
    return max(low, 1e-12 * top) / 1.25, top * (top / low) ** 0.06 * 1.05


def value_axis(low: float, high: float, log: bool) -> dict[str, Any]:
    """Return the axis of singular values."""
    axis = {"title": {"text": "singular value s<sub>r</sub>"}}
    if log:
        ticks = {"tickformat": "~g", "dtick": _decades(low, high)}
        return axis | ticks | {"type": "log", "range": [math.log10(low), math.log10(high)]}
    return axis | {"type": "linear", "range": [low, high]}


def _near(a: float, b: float, low: float, high: float, log: bool) -> bool:
    """Return whether two levels lie within the height of a label of each other."""
    if min(a, b) <= 0:
        return not log and abs(a - b) < 0.08 * (high - low)
    gap = abs(math.log(a / b)) / math.log(high / low) if log else abs(a - b) / (high - low)
    return gap < 0.08


def _decades(low: float, high: float) -> int | str:
    """Return the tick rule of a logarithmic axis: 1-2-5 within two decades, else whole decades, six at most."""
    decades = math.log10(high / low)
    return "D2" if decades < 2 else max(1, math.ceil(decades / 6))


def _level(
    figure: go.Figure, value: float, label_at: float, log: bool, colour: str, dash: str, label: dict[str, Any]
) -> None:
    """Add a horizontal line and its label at the right end, above `label_at`; neither is seen at 0 on a log axis."""
    visible = value > 0 or not log
    y, at = (value, label_at) if visible else (1.0, 1.0)
    level_line(figure, y, colour, dash)
    figure.add_annotation(
        xref="paper", x=1, xanchor="right", y=math.log10(at) if log else at, yanchor="bottom",
        showarrow=False, font={"color": colour, "size": 13}, **label,
    )  # fmt: skip
    figure.layout.shapes[-1].visible = figure.layout.annotations[-1].visible = visible


def thin_ranks(count: int, rank: int, limit: int = MAX_POINTS) -> NDArray[np.int64]:
    """Return the 0-based positions of a long line that are worth drawing: spikes, boundary and an even remainder."""
    if count <= limit:
        return np.arange(count)
    dense = limit // 4
    even = np.linspace(dense, count - 1, limit - dense - 2).round().astype(np.int64)
    boundary = [i for i in (rank - 1, rank) if 0 <= i < count]
    return np.unique(np.concatenate([np.arange(dense), even, np.asarray(boundary, dtype=np.int64)]))


def _floor(s: ArrayLike) -> float:
    """Return the smallest singular value a logarithmic axis needs to show."""
    values = np.asarray(s, dtype=np.float64)
    positive = values[values > 0]
    if positive.size == 0:
        return 1e-3
    typical = float(np.median(values))
    return max(float(positive.min()), typical / 100 if typical > 1e-12 * positive.max() else positive.max() / 1e3)
