"""A model's figures as tables: the weights under a rule, their noise in groups, and what is done with tensors."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from dgviz.analysis.figures import FIGURES
from dgviz.analysis.model_spectra import Assessment
from dgviz.analysis.noise_table import noise_table
from dgviz.checkpoint import CheckpointPair
from dgviz.table import Table


def weight_table(rows: Iterable[Assessment]) -> Table:
    """Return every matrix with its threshold and figures; percentages are from 0 to 100."""
    return Table.of("weights", [_weight_cells(row) for row in rows])


def _weight_cells(row: Assessment) -> dict[str, Any]:
    path, threshold = row.weight.module_path, row.threshold
    cells = {
        "weight": row.weight.name,
        "class": path.kind,
        "layer": path.level,
        "rows": row.spectrum.shape[0],
        "columns": row.spectrum.shape[1],
        "tau": threshold.tau,
        "sigma": threshold.sigma,
        "edge": threshold.edge,
    }
    figures = {name: figure.value(row) for name, figure in FIGURES.items()}
    return cells | figures | {"rank": row.rank, "flags": int(figures["flags"]), "verdict": row.diagnosis.verdict}


def noise_groups(rows: Sequence[Assessment]) -> Table:
    """Return the noise per class of weight, per third of the depth and of all of it; shares from 0 to 1."""
    found = noise_table(rows)
    parts = (("class", found.classes), ("depth", found.thirds), ("all", (found.whole,)))
    return Table.of("noise", [{"by": by, **asdict(row)} for by, own in parts for row in own])


def tensor_table(pair: CheckpointPair) -> Table:
    """Return what is done with every tensor of a pair, and why."""
    return Table.of(
        "tensors",
        [
            {
                "tensor": paired.name,
                "action": paired.action,
                "shape": " x ".join(map(str, (paired.tuned or paired.base).shape)),
                "dtype": (paired.tuned or paired.base).dtype,
                "reason": paired.reason,
            }
            for paired in pair.tensors
        ],
    )
