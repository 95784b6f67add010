"""What every two things of several have in common: a square of shares, one kind below the diagonal, one above."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from dgviz.figures.style import DEEP, PALE, base_figure


def pair_map(
    names: Sequence[str],
    below: ArrayLike,
    above: ArrayLike,
    hover: Sequence[Sequence[str]],
    write: Callable[[float], str],
    *,
    dark: bool,
    height: int,
    bottom: int,
) -> go.Figure:
    """Return shares from 0 to 1 of every two, as colours and written by `write`; nan and the diagonal stay empty."""
    values = np.where(np.tri(len(names), k=-1, dtype=bool), np.asarray(below, float), np.asarray(above, float))
    np.fill_diagonal(values, np.nan)
    numbers = [str(position + 1) for position in range(len(names))]
    plain = {"ticks": "", "showgrid": False, "showline": False}
    heat = go.Heatmap(
        x=numbers,
        y=[f"{name}  {number}" for number, name in zip(numbers, names, strict=True)],
        z=values,
        text=[["" if math.isnan(value) else write(value) for value in row] for row in values],
        texttemplate="%{text}",
        customdata=hover,
        hovertemplate="%{customdata}<extra></extra>",
        zmin=0,
        zmax=1,
        colorscale=DEEP if dark else PALE,
        showscale=False,
        xgap=2,
        ygap=2,
        hoverongaps=False,
    )
    return base_figure(
        height,
        heat,
        margin={"l": 8, "r": 8, "t": 30, "b": bottom},
        xaxis=plain | {"side": "top", "type": "category"},
        yaxis=plain | {"autorange": "reversed"},
    )
