"""Several threshold rules over a whole model: kept ranks, and factors on tau."""

import math
from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from dgviz.figures.style import LEGEND_ABOVE, MUTED, as_text, base_figure, series_colour

_SHARES = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)  # ticks of an axis that is even in the square root
_BOX = 38  # pixels of a row


def rank_boxes(shares: Mapping[str, Mapping[str, float]], ends: Mapping[str, tuple[str, str]]) -> go.Figure:
    """Return the distribution over a model's weights of the kept share of rank, a box per rule.

    The axis is even in the square root of the share, so that one direction in a hundred can be told from none while
    a rule that keeps half is on the same axis.

    Parameters
    ----------
    shares : mapping of title to mapping
        ``low``, ``p5``, ``q1``, ``median``, ``q3``, ``p95`` and ``high`` per rule, in [0, 1].
    ends : mapping of title to (str, str)
        Names of the weights with the least and the largest share.

    Returns
    -------
    go.Figure
        Boxes from the first to the third quartile, whiskers from 5 to 95 %, and a marker at either end.
    """
    titles = list(shares)
    figure = base_figure(
        _BOX * len(titles) + 80,
        margin={"l": 8, "r": 24, "t": 8, "b": 52},
        xaxis={
            "title": "kept share of a weight's directions, %",
            "tickvals": [math.sqrt(share) for share in _SHARES],
            "ticktext": [f"{100 * share:g}" for share in _SHARES],
            "tickangle": 0,
            "range": [-0.02, 1.02],
        },
        yaxis={"autorange": "reversed", "ticks": "", "showgrid": False, "tickvals": titles},
    )
    for position, title in enumerate(titles):
        row, colour = shares[title], series_colour(position)
        at = {name: math.sqrt(value) for name, value in row.items()}
        figure.add_box(
            y=[title], q1=[at["q1"]], median=[at["median"]], q3=[at["q3"]], lowerfence=[at["p5"]],
            upperfence=[at["p95"]], orientation="h", name=title, line={"color": colour, "width": 1.6}, width=0.6,
            hoverinfo="skip",
        )  # fmt: skip
        figure.add_scatter(
            x=[at["low"], at["median"], at["high"]],
            y=[title] * 3,
            mode="markers",
            marker={"color": colour, "size": [7, 12, 7], "opacity": [1, 0, 1], "symbol": "circle-open"},
            text=[
                f"least: {100 * row['low']:.3g} %<br>{as_text(ends[title][0])}",
                f"half of the weights: {100 * row['q1']:.3g} to {100 * row['q3']:.3g} %, "
                f"median {100 * row['median']:.3g} %"
                f"<br>nine in ten: {100 * row['p5']:.3g} to {100 * row['p95']:.3g} %",
                f"most: {100 * row['high']:.3g} %<br>{as_text(ends[title][1])}",
            ],
            hovertemplate=f"<b>{title}</b><br>%{{text}}<extra></extra>",
            name=title,
        )
    return figure


def tau_curves(
    multipliers: ArrayLike,
    curves: Mapping[str, ArrayLike],
    colours: Mapping[str, str],
    at: float,
    *,
    title: str,
    log: bool = False,
) -> go.Figure:
    """Return a quantity of the whole model over a factor on tau, a line per rule, with the factor in view marked.

    Parameters
    ----------
    multipliers : (k,) array
        Factors on tau, ascending.
    curves : mapping of title to (k,) array
        Shares per rule, in [0, 1] or above.
    colours : mapping of title to str
        Colour of every line.
    at : float
        The factor in view.
    title : str
        Of the axis.
    log : bool
        Logarithmic axis; zeros are then not drawn.
    """
    factors = np.asarray(multipliers, dtype=np.float64)
    ticks = [0.25, 0.5, 1, 2, 4]
    figure = base_figure(
        340,
        margin={"l": 64, "r": 16, "t": 60, "b": 52},
        xaxis={
            "title": "factor on tau",
            "type": "log",
            "tickvals": ticks,
            "ticktext": [f"{tick:g}" for tick in ticks],
            "range": [math.log10(factors[0]), math.log10(factors[-1])],
        },
        yaxis={"title": title, "ticksuffix": " %"}
        | ({"type": "log", "dtick": 1} if log else {"type": "linear", "range": [0, 102]}),
        hovermode="x unified",
        legend=LEGEND_ABOVE,
    )
    for name, values in curves.items():
        shares = 100 * np.asarray(values, dtype=np.float64)
        figure.add_scatter(
            x=factors,
            y=np.where(shares > 0, shares, np.nan) if log else shares,
            mode="lines",
            line={"color": colours[name], "width": 2},
            name=name,
            hovertemplate="%{y:.4g} %",
        )
    figure.add_vline(x=at, line={"color": MUTED, "width": 2, "dash": "dash"})
    return figure
