"""The noise table as bars: mean noise, norm share and their product per group."""

from collections.abc import Sequence
from typing import Protocol

import plotly.graph_objects as go

from dgviz.figures.style import ACCENT, LAW, LEGEND_ABOVE, MUTED, base_layout


class _Row(Protocol):
    """What the bars need to know of a group."""

    group: str
    mean_noise: float
    norm_share: float
    product: float


_BARS = (("mean noise", "mean_noise", MUTED), ("norm share", "norm_share", LAW), ("product", "product", ACCENT))


def noise_bars(rows: Sequence[_Row], *, height: int | None = None) -> go.Figure:
    """Return three bars per group, in percent, the first group on top.

    Parameters
    ----------
    rows : sequence of NoiseRow
        Classes of weights, or thirds of the depth (`dgviz.analysis.noise_table.NoiseRow`).
    height : int, optional
        Height in pixels; by default so that every group has room.
    """
    figure = go.Figure()
    for title, name, colour in _BARS:
        values = [100 * getattr(row, name) for row in rows]
        figure.add_bar(
            x=values,
            y=[row.group for row in rows],
            name=title,
            orientation="h",
            marker={"color": colour},
            text=[f"{value:.1f}" for value in values],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"%{{y}}, {title}: %{{x:.2f}} %<extra></extra>",
        )
    layout = base_layout(
        height or 96 + 62 * len(rows),
        barmode="group",
        showlegend=True,
        legend=LEGEND_ABOVE | {"traceorder": "normal"},
        xaxis={"title": {"text": "%"}, "range": [0, 108]},
        yaxis={"autorange": "reversed", "showgrid": False},
    )
    figure.update_layout(layout, bargap=0.28)
    return figure
