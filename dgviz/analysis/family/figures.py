"""The same figures of several tuned checkpoints, pooled over all weights, a class of them or a part of the depth."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dgviz.analysis.model_spectra import Assessment, verdict_of
from dgviz.analysis.noise_table import THIRDS, NoiseTable, noise_csv, noise_table, thirds_of
from dgviz.checkpoint.module_path import CLASSES, layer_order

WHOLE = "all"
"""Name of the group that holds every weight."""


@dataclass(frozen=True)
class Figure:
    """A figure of a group of weights, pooled over them.

    Attributes
    ----------
    name, title : str
        Key in `FIGURES`, and what a page shows.
    unit : str
        ``"%"``, or empty for a plain number. Percentages are shares times 100.
    about : str
        How it is pooled, in a sentence.
    """

    name: str
    title: str
    unit: str
    about: str
    _pool: Callable[[Sequence[Assessment]], float | None]

    def value(self, rows: Sequence[Assessment]) -> float | None:
        """Return the figure of a group, None where no weight of it has one.

        Parameters
        ----------
        rows : sequence of Assessment
            The group.
        """
        return self._pool(rows) if rows else None

    def text(self, value: float | None) -> str:
        """Return a value as people read it.

        Parameters
        ----------
        value : float or None
            From `value`.
        """
        if value is None:
            return "none"
        return f"{value:.3g} %" if self.unit == "%" else f"{value:.4g}"


def _rank_share(rows: Sequence[Assessment]) -> float:
    return 100 * sum(row.rank for row in rows) / sum(row.spectrum.s.size for row in rows)


def _energy_kept(rows: Sequence[Assessment]) -> float | None:
    whole = math.fsum(row.spectrum.energy for row in rows)
    return 100 * (1 - math.fsum(row.dropped_energy for row in rows) / whole) if whole > 0 else None


def _noise_share(rows: Sequence[Assessment]) -> float | None:
    changed = [row.noise_share for row in rows if row.spectrum.energy > 0]
    return 100 * math.fsum(changed) / len(changed) if changed else None


def _relative_size(rows: Sequence[Assessment]) -> float | None:
    # The norm of a base weight is that of its update over the relative size; an update of zero does not tell it.
    known = [row for row in rows if row.relative_size and row.spectrum.energy > 0]
    squares = math.fsum(row.spectrum.energy / row.relative_size**2 for row in known)
    return 100 * math.sqrt(math.fsum(row.spectrum.energy for row in known) / squares) if squares > 0 else None


def _zero_share(rows: Sequence[Assessment]) -> float | None:
    known = [row for row in rows if row.zero_share is not None]
    entries = sum(row.weight.parameters for row in known)
    return 100 * math.fsum(row.zero_share * row.weight.parameters for row in known) / entries if entries else None


def _median(read: Callable[[Assessment], float | None]) -> Callable[[Sequence[Assessment]], float | None]:
    """Return the median over the weights that have a figure."""

    def pool(rows: Sequence[Assessment]) -> float | None:
        values = [value for row in rows if (value := read(row)) is not None]
        return float(np.median(values)) if values else None

    return pool


_FIGURES = (
    Figure("rank", "Kept rank", "", "Directions kept, summed.", lambda rows: float(sum(row.rank for row in rows))),
    Figure("rank_share", "Kept share of rank", "%", "Directions kept over all directions, both summed.", _rank_share),
    Figure("energy_kept", "Energy kept", "%", "|D*|² over |D|², both summed over the weights.", _energy_kept),
    Figure("noise_share", "Mean noise", "%", "Mean of 1 - |D*|²/|D|² over the weights that changed.", _noise_share),
    Figure(
        "relative_size",
        "Relative update size",
        "%",
        "Norm of the update over the norm of the base weights, over the weights that changed.",
        _relative_size,
    ),
    Figure("mp_fit", "MP-fit", "%", "Median over the weights that have one.", _median(lambda row: row.mp_fit)),
    Figure(
        "stable_rank",
        "Stable rank",
        "",
        "Median of |D|² over the largest squared singular value, over the weights that changed.",
        _median(lambda row: row.stable_rank),
    ),
    Figure("zero_share", "Exact-zero share", "%", "Entries that did not change at all, over all.", _zero_share),
)

FIGURES: dict[str, Figure] = {figure.name: figure for figure in _FIGURES}


def figures_of(rows: Sequence[Assessment]) -> dict[str, float | None]:
    """Return every figure of a group of weights.

    Parameters
    ----------
    rows : sequence of Assessment
        The group.
    """
    return {name: figure.value(rows) for name, figure in FIGURES.items()}


def groups_of(rows: Sequence[Assessment]) -> dict[str, list[Assessment]]:
    """Return all weights, those of every class, and those of every third of the depth, by name; empty ones left out.

    Parameters
    ----------
    rows : sequence of Assessment
        Every matrix of a model once.
    """
    thirds = thirds_of([row.weight.module_path for row in rows])
    found = {WHOLE: list(rows)}
    found |= {kind: [row for row in rows if row.weight.module_path.kind == kind] for kind in CLASSES}
    found |= {name: [row for row, own in zip(rows, thirds, strict=True) if own == name] for name in THIRDS}
    return {name: own for name, own in found.items() if own or name == WHOLE}


def layers_of(rows: Iterable[Assessment], tower: str) -> dict[tuple[int, ...], list[Assessment]]:
    """Return the weights of every layer of a tower, in order of depth.

    Parameters
    ----------
    rows : iterable of Assessment
        Matrices of a model.
    tower : str
        `ModulePath.tower`.
    """
    found: dict[tuple[int, ...], list[Assessment]] = {}
    for row in rows:
        if row.weight.module_path.tower == tower and row.weight.module_path.layer:
            found.setdefault(row.weight.module_path.layer, []).append(row)
    return {layer: found[layer] for layer in sorted(found, key=layer_order)}


@dataclass(frozen=True)
class DepthPoint:
    """The value of one model in one layer, by their positions; None where the layer has none."""

    row: int
    column: int
    value: float | None


@dataclass(frozen=True)
class DepthGrid:
    """A figure over the layers of a tower: a row per layer, a column per model."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[DepthPoint, ...]


def depth_grid(members: Mapping[str, Sequence[Assessment]], tower: str, figure: Figure) -> DepthGrid:
    """Return a figure of every model, layer by layer.

    Parameters
    ----------
    members : mapping of str to sequence of Assessment
        Matrices by the name of their model.
    tower : str
        `ModulePath.tower`.
    figure : Figure
        One of `FIGURES`.
    """
    by_model = [layers_of(rows, tower) for rows in members.values()]
    layers = sorted({layer for own in by_model for layer in own}, key=layer_order)
    cells = [
        DepthPoint(row, column, figure.value(own.get(layer, ())))
        for column, own in enumerate(by_model)
        for row, layer in enumerate(layers)
    ]
    return DepthGrid(tuple(".".join(map(str, layer)) for layer in layers), tuple(members), tuple(cells))


def member_report(rows: Sequence[Assessment]) -> dict[str, Any]:
    """Return the figures of one tuned checkpoint as plain values.

    Parameters
    ----------
    rows : sequence of Assessment
        What a rule makes of every matrix whose spectrum is stored.

    Returns
    -------
    dict
        ``verdict`` (a `dgviz.rmt.diagnosis.Diagnosis`, None without a weight), ``groups`` (per group: ``group``,
        ``weights``, ``verdict`` in one word, and the `FIGURES`), and ``noise`` (a `NoiseTable`).
    """
    whole = verdict_of(rows)
    groups = []
    for name, own in groups_of(rows).items():
        verdict = verdict_of(own)
        word = None if verdict is None else verdict.verdict
        groups.append({"group": name, "weights": len(own), "verdict": word, **figures_of(own)})
    verdict = None if whole is None else whole.to_json()
    return {"verdict": verdict, "groups": groups, "noise": noise_table(rows).to_json()}


def family_csv(models: Sequence[Mapping[str, Any]]) -> str:
    """Return the figures of every tuned checkpoint as CSV, a line per checkpoint and group.

    Parameters
    ----------
    models : sequence of mapping
        ``name`` and the values of `member_report`.
    """
    lines = [",".join(("model", "group", "weights", "verdict", *FIGURES))]
    for model in models:
        for group in model["groups"]:
            values = ("" if group[name] is None else f"{group[name]:.9g}" for name in FIGURES)
            about = _quoted(model["name"]), group["group"], str(group["weights"]), group["verdict"] or ""
            lines.append(",".join((*about, *values)))
    return "\n".join(lines) + "\n"


def noise_tables_csv(tables: Mapping[str, NoiseTable]) -> str:
    """Return the noise tables of several models as CSV, one below the other, shares from 0 to 1.

    Parameters
    ----------
    tables : mapping of str to NoiseTable
        By the name of their model.
    """
    lines: list[str] = []
    for name, table in tables.items():
        title, *rows = noise_csv(table).splitlines()
        lines += [*([] if lines else [f"model,{title}"]), *(f"{_quoted(name)},{row}" for row in rows)]
    return "\n".join(lines) + "\n"


def _quoted(name: str) -> str:
    """Return a name as CSV holds one that may contain commas."""
    return '"' + name.replace('"', '""') + '"'
