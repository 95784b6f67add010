"""Curves over the depth of a model: one line per module, one point per layer."""

from collections.abc import Callable
from typing import Protocol

import plotly.graph_objects as go

from dgviz.figures.style import RULE_COLOURS, base_layout

_DASHES = ("solid", "dash", "dot", "dashdot")


class _Cell(Protocol):
    """What a curve needs to know of a cell."""

    row: int
    column: int
    value: float | None


class _Grid(Protocol):
    """What the curves need to know of a tower."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[_Cell, ...]


def depth_curves(
    grid: _Grid, *, title: str, unit: str, hover: Callable[[_Cell], str], from_zero: bool = True, height: int = 420
) -> go.Figure:
    """Return one line per column of a grid over its rows; a layer without a value leaves a gap.

    Parameters
    ----------
    grid : Grid
        Layers by modules (`dgviz.analysis.model_map.Grid`).
    title, unit : str
        Of the vertical axis.
    hover : callable
        What to say of a cell's value.
    from_zero : bool
        Whether the vertical axis begins at zero.
    height : int
        Height in pixels.
    """
    figure = go.Figure()
    values: dict[int, dict[int, _Cell]] = {}
    for cell in grid.cells:
        if cell.value is not None:
            values.setdefault(cell.column, {})[cell.row] = cell
    for number, column in enumerate(sorted(values)):
        own = [values[column].get(row) for row in range(len(grid.rows))]
        colour = RULE_COLOURS[number % len(RULE_COLOURS)]
        dash = _DASHES[number // len(RULE_COLOURS) % len(_DASHES)]
        figure.add_scatter(
            x=list(range(len(grid.rows))),
            y=[None if cell is None else cell.value for cell in own],
            text=["" if cell is None else hover(cell) for cell in own],
            name=grid.columns[column],
            mode="lines+markers" if len(grid.rows) <= 48 else "lines",
            line={"color": colour, "width": 1.6, "dash": dash},
            marker={"size": 5},
            hovertemplate="layer %{customdata}: %{text}<extra>%{fullData.name}</extra>",
            customdata=list(grid.rows),
        )
    step = max(1, round(len(grid.rows) / 40))
    ticks = list(range(0, len(grid.rows), step))
    figure.update_layout(
        base_layout(
            height,
            showlegend=True,
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            xaxis={
                "title": {"text": "layer"},
                "tickvals": ticks,
                "ticktext": [grid.rows[row] for row in ticks],
                "range": [-0.5, len(grid.rows) - 0.5],
            },
            yaxis={
                "title": {"text": f"{title} ({unit})" if unit else title},
                "rangemode": "tozero" if from_zero else "normal",
            },
        )
    )
    return figure
