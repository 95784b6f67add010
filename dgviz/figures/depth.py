"""Curves over the depth of a model: one line per module, one point per layer."""

from collections.abc import Callable

import plotly.graph_objects as go

from dgviz.analysis.model_map import Cell, TowerMap
from dgviz.figures.style import RULE_COLOURS, draw_over_layers, layer_figure, series_colour

_DASHES = ("solid", "dash", "dot", "dashdot")


def depth_curves(
    tower: TowerMap, *, title: str, unit: str, hover: Callable[[Cell], str], from_zero: bool = True
) -> go.Figure:
    """Return one line per column of a tower over its rows; a layer without a value leaves a gap.

    Parameters
    ----------
    tower : TowerMap
        Layers by modules (`dgviz.analysis.model_map.TowerMap`).
    title, unit : str
        Of the vertical axis.
    hover : callable
        What to say of a cell's value.
    from_zero : bool
        Whether the vertical axis begins at zero.
    """
    figure = layer_figure(
        tower.rows,
        420,
        title={"text": f"{title} ({unit})" if unit else title},
        rangemode="tozero" if from_zero else "normal",
    )
    values: dict[int, dict[int, Cell]] = {}
    for cell in tower.cells:
        if cell.value is not None:
            values.setdefault(cell.column, {})[cell.row] = cell
    for number, column in enumerate(sorted(values)):
        own = [values[column].get(row) for row in range(len(tower.rows))]
        draw_over_layers(
            figure,
            tower.rows,
            [None if cell is None else cell.value for cell in own],
            series_colour(number),
            _DASHES[number // len(RULE_COLOURS) % len(_DASHES)],
            text=["" if cell is None else hover(cell) for cell in own],
            name=tower.columns[column],
            hovertemplate="layer %{customdata}: %{text}<extra>%{fullData.name}</extra>",
        )
    return figure
