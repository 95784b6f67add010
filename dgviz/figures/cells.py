"""The model's map as plain values, for the browser to draw: layers by modules, a share of the scale for each cell."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from dgviz.analysis.figures import Figure
from dgviz.analysis.model_map import Cell, TowerMap
from dgviz.analysis.model_spectra import Assessment

_SCALE_FROM = 0.0
MOST_LISTED = 100
_EVERY = "every tower"


def model_cells(
    parts: Sequence[TowerMap],
    figure: Figure,
    open_name: str,
    overridden: Collection[str],
    note: str = "",
    order: str = "layers",
    before: Sequence[TowerMap] = (),
) -> dict[str, Any]:
    """Return the map of some towers and of what lies outside layers.

    Parameters
    ----------
    parts : sequence of TowerMap
        In the order in which they are drawn; the first layer stands lowest.
    figure : Figure
        What the cells show.
    open_name : str
        The tensor that is open.
    overridden : collection of str
        Tensors that the plan treats apart.
    note : str
        What is said below.
    order : str
        ``"layers"``, or ``"fit"`` for a list of cells, the smallest value first, or ``"between"`` for what the cells
        have more than those of `before`.
    before : sequence of TowerMap
        The same towers under what is compared with; where they are given `order` may be ``"between"``.
    """
    about = {"open": open_name, "note": note, "order": order, "diverging": order == "between"}
    about["orders"] = ["layers", "fit", *(["between"] if before else [])]
    title = f"{figure.title}{', %' if figure.unit == '%' else ''}"
    if order == "between":
        parts, most = _differences(parts, before)
        cells = [_part(part, figure, 0.0, most, overridden, differs=True) for part in parts if part.cells]
        return {"title": f"B − A: {title}", "low": f"−{most:.3g}", "high": f"+{most:.3g}", "parts": cells, **about}
    strip = []
    if order == "fit":
        parts = [_listed(parts)]
    low, high = value_span(figure, (cell for part in parts for cell in part.cells))
    if order == "layers":
        shared = (cell for part in parts for cell in part.cells if open_name in cell.names and len(cell.rows) > 1)
        strip = [_expert(row, figure, low, high) for cell in shared for row in cell.rows]
    return {
        "title": title,
        "low": figure.words[0] if figure.words else f"{low:.3g}",
        "high": figure.words[-1] if figure.words else f"{high:.3g}",
        "parts": [_part(part, figure, low, high, overridden) for part in parts if part.cells],
        "strip": strip,
        **about,
    }


def _differences(parts: Sequence[TowerMap], before: Sequence[TowerMap]) -> tuple[list[TowerMap], float]:
    """Return maps of what the cells have more than those of other maps, and the largest difference in size."""
    known = {(part.tower, cell.row, cell.column): cell.value for part in before for cell in part.cells}
    changed = []
    for part in parts:
        pairs = [(cell, known.get((part.tower, cell.row, cell.column))) for cell in part.cells]
        cells = tuple(
            replace(cell, value=None if None in (cell.value, other) else cell.value - other, low=None, high=None)
            for cell, other in pairs
        )
        changed.append(replace(part, cells=cells))
    most = max((abs(cell.value) for part in changed for cell in part.cells if cell.value is not None), default=0.0)
    return changed, most or 1.0


def _listed(parts: Sequence[TowerMap]) -> TowerMap:
    """Return the cells of all maps in one column, the smallest value first, as many as can be looked at."""
    named = [
        (
            cell,
            f"{part.rows[cell.row]} {_short(part.columns[cell.column])}"
            if part.tower
            else _short(part.columns[cell.column]),
        )
        for part in parts
        for cell in part.cells
        if cell.low is not None
    ]
    named = sorted(named, key=lambda item: item[0].low)[:MOST_LISTED]
    cells = tuple(
        replace(cell, row=len(named) - 1 - place, column=0, value=cell.low) for place, (cell, _) in enumerate(named)
    )
    return TowerMap(_EVERY, "", tuple(name for _, name in reversed(named)), ("",), cells)


def value_span(figure: Figure, cells: Iterable[Cell]) -> tuple[float, float]:
    """Return the values at the ends of the colour scale."""
    if figure.words:
        return 0.0, max(1.0, len(figure.words) - 1.0)
    values = [cell.value for cell in cells if cell.value is not None]
    low = _SCALE_FROM if figure.from_zero or not values else min(values)
    high = max(values, default=1.0)
    return low, high if high > low else low + 1.0


def _part(
    part: TowerMap, figure: Figure, low: float, high: float, overridden: Collection[str], differs: bool = False
) -> dict[str, Any]:
    """Return one tower, its last layer first; outside layers a row for each tensor."""
    if not part.tower:
        ordered = sorted(part.cells, key=lambda cell: cell.column)
        cells = [
            _cell(cell, figure, low, high, overridden, differs) | {"row": row, "column": 0}
            for row, cell in enumerate(ordered)
        ]
        rows = [_short(part.columns[cell.column]) for cell in ordered]
        return {"rows": rows, "columns": [["", "outside layers"]], "cells": cells, "heads": False}
    last = len(part.rows) - 1
    cells = [
        _cell(cell, figure, low, high, overridden, differs) | {"row": last - cell.row, "column": cell.column}
        for cell in part.cells
    ]
    columns = [[_short(column), column] for column in part.columns]
    return {"rows": list(reversed(part.rows)), "columns": columns, "cells": cells, "heads": part.tower != _EVERY}


def _cell(
    cell: Cell, figure: Figure, low: float, high: float, overridden: Collection[str], differs: bool
) -> dict[str, Any]:
    weight = cell.extreme.weight if cell.extreme else (cell.missing or [row.weight for row in cell.rows])[0]
    apart = any(name in overridden for name in cell.names)
    lines = [weight.name if len(cell.names) == 1 else f"{cell.names[0]} and {len(cell.names) - 1} more"]
    value = (
        f"{cell.value:+.3g} more than A" if differs and cell.value is not None else figure.told(cell.value, cell.rows)
    )
    lines.append(f"{figure.title}: {value}" if cell.rows else "not scanned yet")
    if cell.low is not None and len(cell.rows) > 1:
        middle = f"median {figure.text(cell.median)}"
        lines.append(f"{figure.text(cell.low)} to {figure.text(cell.high)}, {middle}, over {len(cell.rows)} matrices")
    if apart:
        lines.append("has an override in the plan")
    return {
        "weight": weight.name,
        "names": list(cell.names),
        "share": None if cell.value is None else (cell.value - low) / (high - low),
        "text": "" if cell.value is None or figure.words else _number(cell.value, differs),
        "title": "\n".join(lines),
        "overridden": apart,
    }


def _expert(row: Assessment, figure: Figure, low: float, high: float) -> dict[str, Any]:
    """Return one matrix of a cell that has several."""
    value = figure.value(row)
    return {
        "weight": row.weight.name,
        "share": None if value is None else min(1.0, max(0.0, (value - low) / (high - low))),
        "title": f"{row.weight.name}\n{figure.title}: {figure.text(value)}",
    }


def _number(value: float, signed: bool) -> str:
    """Return a value in as few characters as a cell has room for."""
    if signed:
        return f"{value:+.0f}".replace("-", "−") if abs(value) >= 0.5 else "0"
    return f"{value:.0f}" if abs(value) >= 10 or value == round(value) else f"{value:.1f}"


def _short(module: str) -> str:
    """Return the part of a module's path that tells it from its neighbours."""
    *before, last = module.split(".")
    if last in ("weight", "dense", "projection") and before:
        last = f"{before[-1]}.{last}" if last != "weight" else before[-1]
    return last.removesuffix("_proj").removesuffix(".weight")
