"""The same figures of several tuned checkpoints, pooled over all weights, a class of them or a part of the depth."""

from collections.abc import Mapping, Sequence
from typing import Any

from dgviz.analysis.figures import POOLED, Figure
from dgviz.analysis.groups import groups_of, layers_of
from dgviz.analysis.model_map import Cell, TowerMap
from dgviz.analysis.model_spectra import Assessment, verdict_of
from dgviz.analysis.noise_table import NOISE_TITLES, NoiseTable, noise_table
from dgviz.checkpoint.module_path import layer_order
from dgviz.files import csv_text


def depth_map(members: Mapping[str, Sequence[Assessment]], tower: str, figure: Figure) -> TowerMap:
    """Return a figure over the layers of a tower: a row per layer, a column per model.

    Parameters
    ----------
    members : mapping of str to sequence of Assessment
        Matrices by the name of their model.
    tower : str
        `ModulePath.tower`.
    figure : Figure
        One of `dgviz.analysis.figures.POOLED`.
    """
    by_model = [layers_of(rows, tower) for rows in members.values()]
    layers = sorted({layer for own in by_model for layer in own}, key=layer_order)
    cells = [
        Cell(row, column, rows=tuple(rows), value=figure.pool(rows))
        for column, own in enumerate(by_model)
        for row, layer in enumerate(layers)
        for rows in [own.get(layer, [])]
    ]
    levels = tuple(".".join(map(str, layer)) for layer in layers)
    return TowerMap(tower, tower, levels, tuple(members), tuple(cells))


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
        ``weights``, ``verdict`` in one word, and the figures of `POOLED`), and ``noise`` (a `NoiseTable`).
    """
    groups = [
        {
            "group": name,
            "weights": len(own),
            "verdict": (found := verdict_of(own)) and found.verdict,
            **{key: figure.pool(own) for key, figure in POOLED.items()},
        }
        for name, own in groups_of(rows).items()
    ]
    whole = verdict_of(rows)
    return {"verdict": whole and whole.to_json(), "groups": groups, "noise": noise_table(rows).to_json()}


def family_csv(models: Sequence[Mapping[str, Any]]) -> str:
    """Return the figures of every tuned checkpoint as CSV, a line per checkpoint and group.

    Parameters
    ----------
    models : sequence of mapping
        ``name`` and the values of `member_report`.
    """
    rows = [
        (
            model["name"],
            *(group[name] for name in ("group", "weights", "verdict")),
            *(None if group[name] is None else f"{group[name]:.9g}" for name in POOLED),
        )
        for model in models
        for group in model["groups"]
    ]
    return csv_text(("model", "group", "weights", "verdict", *POOLED), rows)


def noise_tables_csv(tables: Mapping[str, NoiseTable]) -> str:
    """Return the noise tables of several models as CSV, one below the other, shares from 0 to 1.

    Parameters
    ----------
    tables : mapping of str to NoiseTable
        By the name of their model.
    """
    rows = [(name, *row) for name, table in tables.items() for row in table.lines()]
    return csv_text(("model", *NOISE_TITLES), rows)
