"""Curves over the depth of a model, with a point per layer: a line per module, or per pair of models."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from dgviz.analysis.model_map import Cell, TowerMap
from dgviz.figures.style import LEGEND_ABOVE, RULE_COLOURS, as_text, base_figure, series_colour

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
    figure = _layer_figure(
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
        _draw_line(
            figure,
            tower.rows,
            [None if cell is None else cell.value for cell in own],
            series_colour(number),
            _DASHES[number // len(RULE_COLOURS) % len(_DASHES)],
            text=["" if cell is None else as_text(hover(cell)) for cell in own],
            name=as_text(tower.columns[column]),
            hovertemplate="layer %{customdata}: %{text}<extra>%{fullData.name}</extra>",
        )
    return figure


def overlap_curves(
    layers: Sequence[str], pairs: Mapping[str, Sequence[tuple[float, float] | None]], *, chance: bool = True
) -> go.Figure:
    """Return the overlap of every two models over the layers, with what chance would give as dotted lines.

    Parameters
    ----------
    layers : sequence of str
        Their labels, in order.
    pairs : mapping of title to sequence of (float, float) or None
        Overlap and chance per layer, from 0 to 1; None where a layer has none.
    chance : bool
        Whether to draw what chance would give.
    """
    title = "overlap, %" if chance else "overlap beyond chance, %"
    figure = _layer_figure(layers, 380, title={"text": title}, rangemode="tozero")
    faint = {"showlegend": False, "mode": "lines", "line": {"width": 1.2}}
    drawn = (("overlap", "solid", {"showlegend": True}), ("by chance", "dot", faint))[: 2 if chance else 1]
    for number, (pair, values) in enumerate(pairs.items()):
        for at, (what, dash, style) in enumerate(drawn):
            _draw_line(
                figure,
                layers,
                [None if value is None else 100 * value[at] for value in values],
                series_colour(number),
                dash,
                name=as_text(pair),
                legendgroup=pair,
                hovertemplate=f"layer %{{customdata}}, {what}: %{{y:.2f}} %<extra>%{{fullData.name}}</extra>",
                **style,
            )
    return figure


def _layer_figure(levels: Sequence[str], height: int, **yaxis: Any) -> go.Figure:
    """Return an empty figure over the layers of a tower, with as many of their numbers as fit."""
    ticks = range(0, len(levels), max(1, round(len(levels) / 40)))
    xaxis = {
        "title": {"text": "layer"},
        "tickvals": list(ticks),
        "ticktext": [levels[position] for position in ticks],
        "range": [-0.5, len(levels) - 0.5],
    }
    return base_figure(height, legend=LEGEND_ABOVE, xaxis=xaxis, yaxis=yaxis)


def _draw_line(
    figure: go.Figure, levels: Sequence[str], values: Sequence[float | None], colour: str, dash: str, **trace: Any
) -> None:
    """Add a line with a value per layer, with markers where there are few; a layer without one leaves a gap."""
    line = {"color": colour, "width": 1.6, "dash": dash} | trace.pop("line", {})
    mode = "lines+markers" if len(levels) <= 48 else "lines"
    trace = {"mode": mode, "marker": {"size": 5}, "customdata": list(levels)} | trace
    figure.add_scatter(x=list(range(len(levels))), y=values, line=line, **trace)
