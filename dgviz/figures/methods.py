"""Repair methods side by side: one weight's spectrum before and after, and the model's figures as bars."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from dgviz.figures.spectrum import line, rank_axis, value_axis, value_range
from dgviz.figures.style import ACCENT, LAW, MUTED, NARROW, base_figure, base_layout, level_line, thin_ranks
from dgviz.words import number

_BAR = 26  # pixels a method
_NO_BAR = "not computed"


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
    quiet = figure.layout.xaxis.to_plotly_json()
    for at, name in enumerate(names, start=1):
        largest = max([row[name] for row in rows if row[name] is not None], default=0) or 1.0
        axis = {key: value for key, value in quiet.items() if key not in ("anchor", "domain", "matches")}
        figure.update_xaxes(**axis, range=[0, 1.45 * largest], nticks=3, row=1, col=at)
        title = f"<b>{columns[name]}</b>"
        figure.add_annotation(
            text=title, x=0, xref="x domain" if at == 1 else f"x{at} domain", xanchor="left", y=1, yref="paper",
            yanchor="bottom", showarrow=False, yshift=8,
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, linecolor=MUTED, showline=True)
    return figure
