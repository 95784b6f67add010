"""Several models side by side: noise per group, and the overlap of their kept directions, over all and over depth."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from numpy.typing import ArrayLike

from dgviz.figures.pair_map import pair_map
from dgviz.figures.style import LEGEND_ABOVE, RULE_COLOURS, base_layout, layer_axis

_CELL, _BAR = 62, 20  # pixels of a row of the map, and of a bar


def noise_by_model(shares: Mapping[str, Mapping[str, float]], title: str, *, height: int | None = None) -> go.Figure:
    """Return one bar per model in every group, the first group on top.

    Parameters
    ----------
    shares : mapping of model to mapping of group to float
        Shares from 0 to 1; a group that a model lacks has no bar.
    title : str
        What the bars are.
    height : int, optional
        Height in pixels; by default so that every bar has room.
    """
    groups = list(dict.fromkeys(group for own in shares.values() for group in own))
    figure = go.Figure()
    for number, (model, own) in enumerate(shares.items()):
        values = [100 * own[group] if group in own else None for group in groups]
        figure.add_bar(
            x=values,
            y=groups,
            name=model,
            orientation="h",
            marker={"color": RULE_COLOURS[number % len(RULE_COLOURS)]},
            text=["" if value is None else f"{value:.1f}" for value in values],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"%{{y}}, %{{fullData.name}}<br>{title}: %{{x:.2f}} %<extra></extra>",
        )
    layout = base_layout(
        height or 110 + (_BAR * len(shares) + 14) * len(groups),
        barmode="group",
        showlegend=True,
        legend=LEGEND_ABOVE | {"traceorder": "normal"},
        xaxis={"title": {"text": f"{title}, %"}, "range": [0, 112]},
        yaxis={"autorange": "reversed", "showgrid": False},
    )
    figure.update_layout(layout, bargap=0.25)
    return figure


def overlap_map(
    names: Sequence[str],
    left: ArrayLike,
    right: ArrayLike,
    hover: Sequence[Sequence[str]],
    *,
    dark: bool = False,
    height: int | None = None,
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
    height : int, optional
        Height in pixels; by default what the number of models needs.
    """
    tall = height or _CELL * len(names) + 70
    return pair_map(
        names, left, right, hover, lambda share: f"{100 * share:.1f} %", dark=dark, height=tall, bottom=24
    )


def overlap_curves(
    layers: Sequence[str],
    pairs: Mapping[str, Sequence[tuple[float, float] | None]],
    *,
    chance: bool = True,
    height: int = 380,
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
    height : int
        Height in pixels.
    """
    figure = go.Figure()
    positions = list(range(len(layers)))
    for number, (title, values) in enumerate(pairs.items()):
        colour = RULE_COLOURS[number % len(RULE_COLOURS)]
        for at, dash in ((0, "solid"), (1, "dot"))[: 2 if chance else 1]:
            figure.add_scatter(
                x=positions,
                y=[None if value is None else 100 * value[at] for value in values],
                name=title,
                legendgroup=title,
                showlegend=at == 0,
                mode="lines+markers" if at == 0 and len(layers) <= 48 else "lines",
                line={"color": colour, "width": 1.6 if at == 0 else 1.2, "dash": dash},
                marker={"size": 5},
                customdata=list(layers),
                hovertemplate=f"layer %{{customdata}}, {('overlap', 'by chance')[at]}: %{{y:.2f}} %"
                "<extra>%{fullData.name}</extra>",
            )
    figure.update_layout(
        base_layout(
            height,
            showlegend=True,
            legend=LEGEND_ABOVE,
            xaxis=layer_axis(layers),
            yaxis={"title": {"text": "overlap, %" if chance else "overlap beyond chance, %"}, "rangemode": "tozero"},
        )
    )
    return figure
