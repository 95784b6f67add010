"""The noise table: how much of the update each class of weight carries, and how much of that a rule drops.

The paper's Table 16 (DG-Hard, arXiv 2605.20296, App. I.1) per class of layer, and the same per third of the depth.
Parameters of one dimension, such as norms and biases, have no spectrum and are not part of it.
"""

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

from dgviz.analysis.groups import THIRDS, WHOLE, groups_of
from dgviz.analysis.model_spectra import Assessment
from dgviz.checkpoint.module_path import CLASSES
from dgviz.files import csv_text

NOISE_TITLES = "by", "group", "matrices", "parameters", "mean_noise", "norm_share", "product", "dropped_share"
"""Columns of the table as CSV."""


@dataclass(frozen=True)
class NoiseRow:
    """One class of weight, or one third of the depth.

    Attributes
    ----------
    group : str
        Its name.
    matrices : int
        How many matrices are in it.
    parameters : int
        Their entries.
    mean_noise : float
        Mean over them of ``1 - |D*|^2 / |D|^2``, each matrix counted once.
    norm_share : float
        Their ``|D|^2`` over that of all matrices.
    product : float
        `mean_noise` times `norm_share`, as the paper has it.
    dropped_share : float
        Their ``|D|^2 - |D*|^2`` over ``|D|^2`` of all matrices: the share of the whole update that is dropped here.
        Equal to `product` where all matrices of the group are equally noisy.
    """

    group: str
    matrices: int
    parameters: int
    mean_noise: float
    norm_share: float
    product: float
    dropped_share: float


@dataclass(frozen=True)
class NoiseTable:
    """The noise of an update by class of weight and by third of the depth, and of all of it together."""

    classes: tuple[NoiseRow, ...]
    thirds: tuple[NoiseRow, ...]
    whole: NoiseRow

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, ...]]:
        """Return its rows as text under `NOISE_TITLES`, shares from 0 to 1."""
        parts = ("class", self.classes), ("depth", self.thirds), ("all", (self.whole,))
        return [
            (by, *(f"{value:.9g}" if isinstance(value, float) else str(value) for value in astuple(row)))
            for by, rows in parts
            for row in rows
        ]


def noise_table(rows: Sequence[Assessment]) -> NoiseTable:
    """Return the noise table of what a rule makes of a model."""
    energy = sum(row.spectrum.energy for row in rows)
    groups = {name: _row(name, own, energy) for name, own in groups_of(rows).items()}
    classes, thirds = (tuple(groups[name] for name in names if name in groups) for names in (CLASSES, THIRDS))
    return NoiseTable(classes, thirds, groups[WHOLE])


def _row(name: str, rows: Sequence[Assessment], whole: float) -> NoiseRow:
    """Return the figures of one group; `whole` is the squared norm of the update over all groups."""
    changed = [row for row in rows if not row.frozen]
    noise = sum(row.noise_share for row in changed) / len(changed) if changed else 0.0
    share, dropped = (
        sum(values) / whole if whole > 0 else 0.0
        for values in ([row.spectrum.energy for row in rows], [row.dropped_energy for row in rows])
    )
    parameters = sum(row.weight.parameters for row in rows)
    return NoiseRow(name, len(rows), parameters, noise, share, noise * share, dropped)


def noise_csv(table: NoiseTable) -> str:
    """Return the table as CSV, shares from 0 to 1."""
    return csv_text(NOISE_TITLES, table.lines())
