"""The map of a model: layers by module kinds, one quantity per cell, experts folded into one cell or laid out.

A cell may hold several matrices (the experts of a layer); it then shows their mean, smallest or largest value.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dgviz.analysis.model_spectra import Assessment
from dgviz.checkpoint.module_path import layer_order, module_order, module_path, tower_labels
from dgviz.rmt.diagnosis import VERDICTS
from dgviz.spectra.weight import Weight

STATISTICS = {"mean": "mean", "low": "smallest", "high": "largest"}
"""How the experts of one cell become one value."""


@dataclass(frozen=True)
class Quantity:
    """A figure of one matrix that a map can show.

    Attributes
    ----------
    name, title : str
        Key in `QUANTITIES`, and what a page shows.
    unit : str
        ``"%"``, or empty for a plain number. Percentages are shares times 100.
    from_zero : bool
        Whether the colour scale begins at zero; otherwise at the smallest value.
    about : str
        One sentence for the user.
    words : tuple of str
        What the values 0, 1, 2 ... mean where they are no amounts; of several, a cell shows the largest.
    """

    name: str
    title: str
    unit: str
    from_zero: bool
    about: str
    _value: Callable[[Assessment], float | None]
    words: tuple[str, ...] = ()

    def value(self, row: Assessment) -> float | None:
        """Return the figure of one matrix, or None where it has none."""
        return self._value(row)

    def text(self, value: float | None) -> str:
        """Return a value as people read it."""
        if value is None:
            return "none"
        if self.words:
            return self.words[round(value)]
        return f"{value:.3g} %" if self.unit == "%" else f"{value:.4g}"


def _percent(share: float | None) -> float | None:
    """Return a share in percent."""
    return None if share is None else 100.0 * share


_QUANTITIES = (
    Quantity("rank", "Kept rank", "", True, "Singular directions that the rule keeps.", lambda row: float(row.rank)),
    Quantity(
        "rank_share",
        "Kept share of rank",
        "%",
        True,
        "Kept directions over all directions of the matrix.",
        lambda row: _percent(row.rank_share),
    ),
    Quantity(
        "energy_kept",
        "Energy kept",
        "%",
        True,
        "Share of the update's squared norm that the rule keeps.",
        lambda row: _percent(row.energy_kept),
    ),
    Quantity(
        "noise_share",
        "Noise share",
        "%",
        True,
        "Share of the update's squared norm that the rule drops, 1 - |D*|²/|D|².",
        lambda row: _percent(row.noise_share),
    ),
    Quantity(
        "relative_size",
        "Relative update size",
        "%",
        True,
        "Norm of the update over the norm of the base weight.",
        lambda row: _percent(row.relative_size),
    ),
    Quantity(
        "mp_fit",
        "MP-fit of the update",
        "%",
        False,
        "How well all singular values follow the noise law; iid noise scores 99.6 to 99.9.",
        lambda row: row.mp_fit,
    ),
    Quantity(
        "residual_fit",
        "MP-fit of what is dropped",
        "%",
        False,
        "How well the dropped singular values follow the noise law; low where the rule drops more than noise.",
        lambda row: row.residual_fit,
    ),
    Quantity(
        "stable_rank",
        "Stable rank",
        "",
        True,
        "Squared norm of the update over its largest squared singular value.",
        lambda row: row.stable_rank,
    ),
    Quantity(
        "zero_share",
        "Exact-zero share",
        "%",
        True,
        "Share of entries that training did not change at all, as stored.",
        lambda row: _percent(row.zero_share),
    ),
    Quantity(
        "verdict",
        "Verdict",
        "",
        True,
        "Whether the threshold may be trusted: what eleven checks of spectrum and entries add up to.",
        lambda row: float(list(VERDICTS).index(row.diagnosis.verdict)),
        words=tuple(VERDICTS.values()),
    ),
    Quantity(
        "flags",
        "Warnings",
        "",
        True,
        "How many of the checks of spectrum and entries warn.",
        lambda row: float(sum(flag.severity != "info" for flag in row.diagnosis.flags)),
    ),
)

QUANTITIES: dict[str, Quantity] = {quantity.name: quantity for quantity in _QUANTITIES}


@dataclass(frozen=True)
class Cell:
    """One cell of a map.

    Attributes
    ----------
    row, column : int
        Where it lies in its grid.
    rows : tuple of Assessment
        The matrices in it that are known.
    missing : tuple of Weight
        Name and index of those that are not.
    value, low, high : float or None
        What it shows, and the range over its matrices; None where nothing is known.
    extreme : Assessment or None
        The matrix with the largest value (the smallest, where the cell shows that).
    """

    row: int
    column: int
    rows: tuple[Assessment, ...]
    missing: tuple[Weight, ...]
    value: float | None
    low: float | None
    high: float | None
    extreme: Assessment | None

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors it stands for."""
        return tuple(
            dict.fromkeys(weight.tensor.name for weight in (*(row.weight for row in self.rows), *self.missing))
        )


@dataclass(frozen=True)
class Grid:
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
    counts: dict[str, int] = {}
    for name in names:
        tower = module_path(name).tower
        counts[tower] = counts.get(tower, 0) + 1
    labels = tower_labels(counts)
    return {tower: labels[tower] for tower in sorted(labels, key=lambda tower: -counts[tower])}


def expert_modules(rows: Sequence[Assessment], missing: Sequence[Weight], tower: str) -> list[str]:
    """Return the modules of a tower whose cells hold several experts."""
    held = [weight for weight in (*(row.weight for row in rows), *missing) if weight.expert is not None]
    return list(dict.fromkeys(path.module for weight in held if (path := weight.module_path).tower == tower))


def build_grid(
    rows: Sequence[Assessment],
    missing: Sequence[Weight],
    quantity: Quantity,
    tower: str,
    statistic: str = "mean",
    unfold: str = "",
) -> Grid:
    """Return the map of one tower."""
    statistic = "high" if quantity.words else statistic
    held: dict[tuple[str, str], tuple[list[Assessment], list[Weight]]] = {}
    layers: dict[str, tuple[int, ...]] = {}
    columns: dict[str, tuple] = {}
    for number, items in enumerate((rows, missing)):
        for item in items:
            weight = item.weight if number == 0 else item
            path, expert = weight.module_path, weight.expert
            if path.tower != tower or (unfold and (path.module != unfold or expert is None)):
                continue
            column = str(expert) if unfold else path.module
            layers[path.level] = path.layer
            columns[column] = (expert,) if unfold else module_order(path.module, path.kind)
            held.setdefault((path.level, column), ([], []))[number].append(item)
    row_labels = sorted(layers, key=lambda level: layer_order(layers[level]))
    column_labels = sorted(columns, key=columns.get)
    row_of = {label: i for i, label in enumerate(row_labels)}
    column_of = {label: i for i, label in enumerate(column_labels)}
    cells = tuple(
        _cell(row_of[level], column_of[column], known, unknown, quantity, statistic)
        for (level, column), (known, unknown) in held.items()
    )
    title = tower_labels([tower])[tower] if tower else "outside layers"
    return Grid(tower, title, tuple(row_labels), tuple(column_labels), cells)


def _cell(
    row: int,
    column: int,
    known: list[Assessment],
    unknown: list[Weight],
    quantity: Quantity,
    statistic: str,
) -> Cell:
    """Return one cell from the matrices in it."""
    valued = [(value, item) for item in known if (value := quantity.value(item)) is not None]
    where = row, column, tuple(known), tuple(unknown)
    if not valued:
        return Cell(*where, None, None, None, known[0] if known else None)
    values = [value for value, _ in valued]
    shown = {"mean": float(np.mean(values)), "low": min(values), "high": max(values)}[statistic]
    pick = min if statistic == "low" else max
    extreme = pick(valued, key=lambda pair: pair[0])[1]
    return Cell(*where, shown, min(values), max(values), extreme)
