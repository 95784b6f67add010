"""Repair methods side by side: the model's figures as bars."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dgviz.figures.style import ACCENT, LAW, MUTED, QUIET_AXIS, base_layout
from dgviz.words import number

_BAR = 26  # pixels a method
_NO_BAR = "not computed"


def comparison_bars(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], controls: Sequence[str] = ()
) -> go.Figure:
    """Return one small bar chart per figure, side by side, with one line per method.

    Parameters
    ----------
    rows : sequence of mapping
        ``label`` and a value, or None, under every name of `columns`.
    columns : mapping of name to title
        What is drawn, in this order.
    controls : sequence of str
        Labels drawn in another colour: controls are no repairs.
    """
    names = list(columns)
    labels = [row["label"] for row in rows]
    colours = [LAW if label in controls else ACCENT for label in labels]
    figure = make_subplots(rows=1, cols=len(names), shared_yaxes=True, horizontal_spacing=0.03)
    for at, name in enumerate(names, start=1):
        values = [row[name] for row in rows]
        figure.add_bar(
            x=[0 if value is None else value for value in values],
            y=labels,
            orientation="h",
            marker={"color": colours},
            text=[_NO_BAR if value is None else number(value) for value in values],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"<b>%{{y}}</b><br>{columns[name]}: %{{text}}<extra></extra>",
            row=1,
            col=at,
        )
    height = 70 + _BAR * max(1, len(rows))
    figure.update_layout(base_layout(height, margin={"l": 8, "r": 40, "t": 34, "b": 28}, bargap=0.25))
    figure.update_xaxes(**QUIET_AXIS, nticks=3)
    for at, name in enumerate(names, start=1):
        largest = max([row[name] for row in rows if row[name] is not None], default=0) or 1.0
        figure.update_xaxes(range=[0, 1.45 * largest], row=1, col=at)
        title = f"<b>{columns[name]}</b>"
        figure.add_annotation(
            text=title, x=0, xref="x domain" if at == 1 else f"x{at} domain", xanchor="left", y=1, yref="paper",
            yanchor="bottom", showarrow=False, yshift=8,
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, linecolor=MUTED, showline=True)
    return figure
