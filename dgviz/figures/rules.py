"""Several threshold rules on one spectrum."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from dgviz.figures.spectrum import line, rank_axis, thin_ranks, value_axis, value_range
from dgviz.figures.style import LABEL_HEIGHT, MUTED, base_figure, level_line, series_colour
from dgviz.rmt.threshold import Threshold
from dgviz.words import number as written

_HEIGHT = 420


def rules_plot(s: ArrayLike, thresholds: Mapping[str, Threshold], *, log: bool = True) -> go.Figure:
    """Return one spectrum with the threshold of every rule as a labelled line; labels never overlap.

    Parameters
    ----------
    s : (p,) array
        Singular values, descending.
    thresholds : mapping of title to Threshold
        What each rule found; drawn in this order.
    log : bool
        Logarithmic axis of singular values.

    Returns
    -------
    go.Figure
        Labels stand in the right margin in order of tau, joined to their lines by a thin leader.
    """
    values = np.asarray(s, dtype=np.float64)
    titles, taus = list(thresholds), [float(t.tau) for t in thresholds.values()]
    widest = max([math.ceil(6.6 * len(_label(t, thresholds[t]))) for t in titles], default=0)
    margin = {"l": 64, "r": widest + 44, "t": 20, "b": 52}
    low, high = value_range(values, max(taus, default=0.0), None, log)
    if log:
        low = min([low] + [t / 1.25 for t in taus if t > low * 1e-3])
    drawn = thin_ranks(values.size, max((t.rank for t in thresholds.values()), default=0))
    figure = base_figure(
        _HEIGHT,
        line(values, drawn, MUTED, "dropped"),
        margin=margin,
        xaxis=rank_axis(values.size, True),
        yaxis=value_axis(low, high, log),
    )
    figure.data[0].hovertemplate = "rank %{x}: s = %{y:.5g}<extra></extra>"
    inner = _HEIGHT - margin["t"] - margin["b"]
    at = [_pixel(max(t, low), low, high, inner, log) for t in taus]
    for number, (title, label_at) in enumerate(zip(titles, spread(at, LABEL_HEIGHT, 0, inner), strict=True)):
        colour, tau, line_at = series_colour(number), taus[number], at[number]
        text, y = _label(title, thresholds[title]), max(tau, low)
        if tau < low:
            text += " ↓"
        else:
            level_line(figure, tau, colour, "dash")
        figure.add_annotation(
            xref="paper", x=1, y=math.log10(y) if log else y, text=text, xanchor="left", align="left",
            ax=30, ay=line_at - label_at, arrowhead=0, arrowwidth=1, arrowcolor=colour, standoff=0,
            font={"color": colour, "size": 13},
        )  # fmt: skip
    return figure


def _label(title: str, threshold: Threshold) -> str:
    """Return what stands beside a rule's line."""
    return f"{title}: τ {written(threshold.tau)}, rank {threshold.rank}"


def _pixel(value: float, low: float, high: float, inner: float, log: bool) -> float:
    """Return the height in pixels above the x axis."""
    share = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
    return share * inner


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions at least `gap` apart, in the order wanted and as near to it as the gap allows."""
    from scipy.optimize import isotonic_regression

    if not wanted:
        return []
    order, offsets = np.argsort(wanted, kind="stable"), gap * np.arange(len(wanted))
    # Less its offset no label may lie below the one before it; the sum of squared moves is then least.
    levels = isotonic_regression(np.asarray(wanted)[order] - offsets).x
    placed = np.empty(len(wanted))
    placed[order] = np.clip(levels, low, max(low, high - offsets[-1])) + offsets
    return placed.tolist()
