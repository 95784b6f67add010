"""The noise table as bars: mean noise, norm share and their product per group."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import plotly.graph_objects as go

from dgviz.figures.style import ACCENT, LAW, LEGEND_ABOVE, MUTED, base_figure


class _Row(Protocol):
    """What the bars need to know of a group."""

    group: str
    mean_noise: float
    norm_share: float
    product: float


_BARS = (("mean noise", "mean_noise", MUTED), ("norm share", "norm_share", LAW), ("product", "product", ACCENT))


def noise_bars(rows: Sequence[_Row]) -> go.Figure:
    """Return three bars per group, in percent, the first group on top.

    Parameters
    ----------
    rows : sequence of NoiseRow
        Classes of weights, or thirds of the depth (`dgviz.analysis.noise_table.NoiseRow`).
    """
    bars = {title: (colour, {row.group: getattr(row, name) for row in rows}) for title, name, colour in _BARS}
    hover = "%{y}, %{fullData.name}: %{x:.2f} %<extra></extra>"
    return share_bars([row.group for row in rows], bars, "%", hover, 96 + 62 * len(rows))


def share_bars(
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
            y=groups,
            name=name,
            orientation="h",
            marker={"color": colour},
            text=[f"{100 * shares[group]:.1f}" if group in shares else "" for group in groups],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=hover,
        )
    return figure
