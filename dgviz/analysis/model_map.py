"""The map of a model: layers by module kinds, one figure per cell, experts folded into one cell or laid out.

A cell may hold several matrices (the experts of a layer); it then shows their mean, smallest or largest value.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dgviz.analysis.figures import Figure
from dgviz.analysis.model_spectra import Assessment
from dgviz.checkpoint.module_path import layer_order, module_order, module_path, tower_labels
from dgviz.spectra.weight import Weight

STATISTICS = {"mean": "mean", "low": "smallest", "high": "largest"}
"""How the experts of one cell become one value."""


@dataclass(frozen=True)
class Cell:
    """One cell of a map.

    Attributes
    ----------
    row, column : int
        Where it lies in its map.
    rows : tuple of Assessment
        The matrices in it that are known.
    missing : tuple of Weight
        Those that are not.
    value, low, high, median : float or None
        What it shows, and the range and the middle over its matrices; None where nothing is known.
    extreme : Assessment or None
        The matrix with the largest value (the smallest, where the cell shows that).
    """

    row: int
    column: int
    rows: tuple[Assessment, ...] = ()
    missing: tuple[Weight, ...] = ()
    value: float | None = None
    low: float | None = None
    high: float | None = None
    extreme: Assessment | None = None
    median: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors it stands for."""
        weights = (*(row.weight for row in self.rows), *self.missing)
        return tuple(dict.fromkeys(weight.tensor.name for weight in weights))


@dataclass(frozen=True)
class TowerMap:
    """The cells of one tower, or of what lies outside all layers.

    Attributes
    ----------
    tower, title : str
        `ModulePath.tower`, empty outside layers; and its short label.
    rows, columns : tuple of str
        Labels: layers, and module kinds or experts. Outside layers there is one row, and a column per tensor.
    cells : tuple of Cell
        Those that exist.
    """

    tower: str
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]


def towers(names: Iterable[str]) -> dict[str, str]:
    """Return the towers among tensors, the one with most weights first, with their labels."""
    counts = Counter(module_path(name).tower for name in names)
    labels = tower_labels(counts)
    return {tower: labels[tower] for tower, _ in counts.most_common() if tower in labels}


def expert_modules(weights: Iterable[Weight], tower: str) -> list[str]:
    """Return the modules of a tower whose cells hold several experts."""
    held = [weight.module_path for weight in weights if weight.expert is not None]
    return list(dict.fromkeys(path.module for path in held if path.tower == tower))


def map_tower(
    rows: Sequence[Assessment],
    missing: Sequence[Weight],
    figure: Figure,
    tower: str,
    statistic: str = "mean",
    unfold: str = "",
) -> TowerMap:
    """Return the map of one tower."""
    held: dict[tuple[tuple[int, ...], str], tuple[list[Assessment], list[Weight]]] = {}
    levels: dict[tuple[int, ...], str] = {}
    columns: dict[str, tuple] = {}
    for weight, row in [(row.weight, row) for row in rows] + [(weight, None) for weight in missing]:
        path = weight.module_path
        expert = weight.expert if unfold else None
        if path.tower != tower or (unfold and (path.module != unfold or expert is None)):
            continue
        column = str(expert) if unfold else path.module
        if column not in columns:
            columns[column] = (expert,) if unfold else module_order(path.module, path.kind)
        if path.layer not in levels:
            levels[path.layer] = path.level
        known, unknown = held.setdefault((path.layer, column), ([], []))
        if row is None:
            unknown.append(weight)
        else:
            known.append(row)
    layers = sorted(levels, key=layer_order)
    titles = sorted(columns, key=columns.get)
    cells = tuple(
        _cell(layers.index(layer), titles.index(column), known, unknown, figure, statistic)
        for (layer, column), (known, unknown) in held.items()
    )
    title = tower_labels([tower])[tower] if tower else "outside layers"
    return TowerMap(tower, title, tuple(levels[layer] for layer in layers), tuple(titles), cells)


def _cell(
    row: int, column: int, known: list[Assessment], unknown: list[Weight], figure: Figure, statistic: str
) -> Cell:
    """Return one cell from the matrices in it."""
    valued = [(value, item) for item in known if (value := figure.value(item)) is not None]
    where = row, column, tuple(known), tuple(unknown)
    if not valued:
        return Cell(*where, extreme=known[0] if known else None)
    values = [value for value, _ in valued]
    statistic = "high" if figure.words else statistic
    shown = {"mean": float(np.mean(values)), "low": min(values), "high": max(values)}[statistic]
    pick = min if statistic == "low" else max
    extreme = pick(valued, key=lambda pair: pair[0])[1]
    return Cell(*where, shown, min(values), max(values), extreme, float(np.median(values)))
