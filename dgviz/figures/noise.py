"""Noise per group of weights as bars: the noise table of one model, or one figure of several models."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from dgviz.analysis.noise_table import NoiseRow
from dgviz.figures.style import ACCENT, LAW, LEGEND_ABOVE, MUTED, as_text, base_figure, series_colour

_HEIGHT = 20  # pixels of a bar in a comparison of models

_BARS = (("mean noise", "mean_noise", MUTED), ("norm share", "norm_share", LAW), ("product", "product", ACCENT))


def noise_bars(rows: Sequence[NoiseRow]) -> go.Figure:
    """Return three bars per group, in percent, the first group on top.

    Parameters
    ----------
    rows : sequence of NoiseRow
        Classes of weights, or thirds of the depth (`dgviz.analysis.noise_table.NoiseRow`).
    """
    bars = {title: (colour, {row.group: getattr(row, name) for row in rows}) for title, name, colour in _BARS}
    hover = "%{y}, %{fullData.name}: %{x:.2f} %<extra></extra>"
    return _share_bars([row.group for row in rows], bars, "%", hover, 96 + 62 * len(rows))


def _share_bars(
    groups: Sequence[str], bars: Mapping[str, tuple[str, Mapping[str, float]]], title: str, hover: str, height: int
) -> go.Figure:
    """Return the bars of every group, the first one on top, in percent; `bars`: a colour and shares by group each."""
    figure = base_figure(
        height,
        barmode="group",
        bargap=0.25,
        legend=LEGEND_ABOVE | {"traceorder": "normal"},
        xaxis={"title": {"text": title}, "range": [0, 112]},
        yaxis={"autorange": "reversed", "showgrid": False},
    )
    for name, (colour, shares) in bars.items():
        figure.add_bar(
            x=[100 * shares[group] if group in shares else None for group in groups],
            y=list(map(as_text, groups)),
            name=as_text(name),
            orientation="h",
            marker={"color": colour},
            text=[f"{100 * shares[group]:.1f}" if group in shares else "" for group in groups],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=hover,
        )
    return figure


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
    return _share_bars(groups, bars, f"{title}, %", hover, 110 + (_HEIGHT * len(shares) + 14) * len(groups))
