"""Several models side by side: noise per group, and the overlap of their kept directions, over all and over depth."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from numpy.typing import ArrayLike

from dgviz.figures.noise import share_bars
from dgviz.figures.pair_map import pair_map
from dgviz.figures.style import draw_over_layers, layer_figure, series_colour

_CELL, _BAR = 62, 20  # pixels of a row of the map, and of a bar


def noise_by_model(shares: Mapping[str, Mapping[str, float]], title: str) -> go.Figure:
    """Return one bar per model in every group, the first group on top.

    Parameters
    ----------
    shares : mapping of model to mapping of group to float
        Shares from 0 to 1; a group that a model lacks has no bar.
    title : str
        What the bars are.
    """
    groups = list(dict.fromkeys(group for own in shares.values() for group in own))
    bars = {model: (series_colour(number), own) for number, (model, own) in enumerate(shares.items())}
    hover = f"%{{y}}, %{{fullData.name}}<br>{title}: %{{x:.2f}} %<extra></extra>"
    return share_bars(groups, bars, f"{title}, %", hover, 110 + (_BAR * len(shares) + 14) * len(groups))


def overlap_map(
    names: Sequence[str],
    left: ArrayLike,
    right: ArrayLike,
    hover: Sequence[Sequence[str]],
    *,
    dark: bool = False,
) -> go.Figure:
    """Return how much every two models have in common.

    Parameters
    ----------
    names : sequence of str
        Of the models.
    left : (k, k) array
        Shares of the left directions, below the diagonal; nan where there is none.
    right : (k, k) array
        Shares of the right directions, above it.
    hover : k sequences of k str
        What is said of a cell that is pointed at.
    dark : bool
        Whether the page is dark.
    """
    tall = _CELL * len(names) + 70
    return pair_map(
        names, left, right, hover, lambda share: f"{100 * share:.1f} %", dark=dark, height=tall, bottom=24
    )


def overlap_curves(
    layers: Sequence[str], pairs: Mapping[str, Sequence[tuple[float, float] | None]], *, chance: bool = True
) -> go.Figure:
    """Return the overlap of every two models over the layers, with what chance would give as dotted lines.

    Parameters
    ----------
    layers : sequence of str
        Their labels, in order.
    pairs : mapping of title to sequence of (float, float) or None
        Overlap and chance per layer, from 0 to 1; None where a layer has none.
    chance : bool
        Whether to draw what chance would give.
    """
    title = "overlap, %" if chance else "overlap beyond chance, %"
    figure = layer_figure(layers, 380, title={"text": title}, rangemode="tozero")
    faint = {"showlegend": False, "mode": "lines", "line": {"width": 1.2}}
    drawn = (("overlap", "solid", {"showlegend": True}), ("by chance", "dot", faint))[: 2 if chance else 1]
    for number, (pair, values) in enumerate(pairs.items()):
        for at, (what, dash, style) in enumerate(drawn):
            draw_over_layers(
                figure,
                layers,
                [None if value is None else 100 * value[at] for value in values],
                series_colour(number),
                dash,
                name=pair,
                legendgroup=pair,
                hovertemplate=f"layer %{{customdata}}, {what}: %{{y:.2f}} %<extra>%{{fullData.name}}</extra>",
                **style,
            )
    return figure
