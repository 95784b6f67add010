"""What every two things of several have in common: a square of shares, one kind below the diagonal, one above."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from dgviz.figures.style import DEEP, PALE, as_text, base_figure

_MODEL, _RULE = 62, 46  # pixels of a row


def _pair_map(
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
        y=[f"{as_text(name)}  {number}" for number, name in zip(numbers, names, strict=True)],
        z=values,
        text=[["" if math.isnan(value) else write(value) for value in row] for row in values],
        texttemplate="%{text}",
        customdata=[list(map(as_text, row)) for row in hover],
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
    tall = _MODEL * len(names) + 70
    return _pair_map(
        names, left, right, hover, lambda share: f"{100 * share:.1f} %", dark=dark, height=tall, bottom=24
    )


def agreement_map(
    titles: Sequence[str], directions: ArrayLike, same_rank: ArrayLike, *, dark: bool = False
) -> go.Figure:
    """Return how often every two rules decide alike.

    Parameters
    ----------
    titles : sequence of str
        Of the rules.
    directions : (k, k) array
        Share of the model's directions on which two decide alike; below the diagonal.
    same_rank : (k, k) array
        Share of weights in which two keep the same number; above the diagonal.
    dark : bool
        Whether the page is dark.
    """
    alike, same = np.asarray(directions, dtype=np.float64), np.asarray(same_rank, dtype=np.float64)
    hover = [
        [
            f"<b>{one} and {other}</b><br>both keep or both drop {100 * alike[i, j]:.2f} % of all directions"
            f"<br>same rank in {100 * same[i, j]:.1f} % of the weights"
            for j, other in enumerate(titles)
        ]
        for i, one in enumerate(titles)
    ]
    return _pair_map(titles, alike, same, hover, _percent, dark=dark, height=_RULE * len(titles) + 60, bottom=8)


def _percent(share: float) -> str:
    """Return a share in percent, never rounded to a full 100 that it is not."""
    return "100 %" if share == 1 else f"{min(100 * share, 99.99):.4g} %"
