"""Curves over the depth of a model: one line per module, one point per layer."""

from collections.abc import Callable

import plotly.graph_objects as go

from dgviz.analysis.model_map import Cell, TowerMap
from dgviz.figures.style import LEGEND_ABOVE, RULE_COLOURS, base_layout, layer_axis

_DASHES = ("solid", "dash", "dot", "dashdot")


def depth_curves(
    tower: TowerMap, *, title: str, unit: str, hover: Callable[[Cell], str], from_zero: bool = True, height: int = 420
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
    height : int
        Height in pixels.
    """
    figure = go.Figure()
    values: dict[int, dict[int, Cell]] = {}
    for cell in tower.cells:
        if cell.value is not None:
            values.setdefault(cell.column, {})[cell.row] = cell
    for number, column in enumerate(sorted(values)):
        own = [values[column].get(row) for row in range(len(tower.rows))]
        colour = RULE_COLOURS[number % len(RULE_COLOURS)]
        dash = _DASHES[number // len(RULE_COLOURS) % len(_DASHES)]
        figure.add_scatter(
            x=list(range(len(tower.rows))),
            y=[None if cell is None else cell.value for cell in own],
            text=["" if cell is None else hover(cell) for cell in own],
            name=tower.columns[column],
            mode="lines+markers" if len(tower.rows) <= 48 else "lines",
            line={"color": colour, "width": 1.6, "dash": dash},
            marker={"size": 5},
            hovertemplate="layer %{customdata}: %{text}<extra>%{fullData.name}</extra>",
            customdata=list(tower.rows),
        )
    figure.update_layout(
        base_layout(
            height,
            showlegend=True,
            legend=LEGEND_ABOVE,
            xaxis=layer_axis(tower.rows),
            yaxis={
                "title": {"text": f"{title} ({unit})" if unit else title},
                "rangemode": "tozero" if from_zero else "normal",
            },
        )
    )
    return figure
