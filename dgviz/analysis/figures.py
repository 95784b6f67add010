"""The figures of a matrix under a rule, and of a group of matrices: one table behind maps, tables, curves and CSV."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dgviz.analysis.model_spectra import Assessment
from dgviz.errors import ThresholdError
from dgviz.registry import Registry
from dgviz.rmt.diagnosis import VERDICTS

_Rows = Sequence[Assessment]


@dataclass(frozen=True)
class Figure:
    """A figure of one matrix, and how it is pooled over several.

    Attributes
    ----------
    name, title : str
        Key in `FIGURES`, and what a page shows.
    unit : str
        ``"%"``, or empty for a plain number. Percentages are shares times 100.
    column : str
        How a table of numbers prints it, in the words of `printf` or Streamlit.
    help : str
        What it is, in a sentence.
    value : callable
        The figure of one matrix; None where it has none.
    pooled : str
        How it is pooled, in a sentence; empty where it is not.
    over : callable or None
        The figure of a group that is not empty; None where no weight of it has one.
    from_zero : bool
        Whether its scale begins at zero; otherwise at the smallest value.
    beside : str
        The figure that it is to be read beside, wherever it stands alone.
    words : tuple of str
        What the values 0, 1, 2 ... mean where they are no amounts; of several, a cell shows the largest.
    """

    name: str
    title: str
    unit: str
    column: str
    help: str
    value: Callable[[Assessment], float | None]
    pooled: str = ""
    over: Callable[[_Rows], float | None] | None = None
    from_zero: bool = True
    beside: str = ""
    words: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """The title as the heading of a column."""
        return self.title if self.title.startswith("MP") else self.title[0].lower() + self.title[1:]

    def pool(self, rows: _Rows) -> float | None:
        """Return the figure of a group, None where no weight of it has one."""
        return self.over(rows) if rows and self.over else None

    def told(self, value: float | None, rows: _Rows) -> str:
        """Return the value of a group as people read it, with the figure that belongs beside it."""
        if value is None or not self.beside:
            return self.text(value)
        other = FIGURES[self.beside]
        return f"{self.text(value)} ({other.heading}: {other.text(other.pool(rows))})"

    def text(self, value: float | None) -> str:
        """Return a value as people read it."""
        if value is None:
            return "none"
        if self.words:
            return self.words[round(value)]
        return f"{value:.3g} %" if self.unit == "%" else f"{value:.4g}"


def _percent(share: float | None) -> float | None:
    return None if share is None else 100.0 * share


def _relative_size(row: Assessment) -> float | None:
    """Return ``|D| / |W_base|``; None where the base is zero or nobody looked."""
    return row.spectrum.summary.get("relative_size")


def _zero_share(row: Assessment) -> float | None:
    """Return the share of entries that did not change; None where nobody looked."""
    return row.spectrum.summary.get("zero_share")


def _energy_kept(rows: _Rows) -> float | None:
    whole = math.fsum(row.spectrum.energy for row in rows)
    return 100 * (1 - math.fsum(row.dropped_energy for row in rows) / whole) if whole > 0 else None


def _pooled_size(rows: _Rows) -> float | None:
    # The norm of a base weight is that of its update over the relative size; an update of zero does not tell it.
    known = [row for row in rows if _relative_size(row) and row.spectrum.energy > 0]
    squares = math.fsum(row.spectrum.energy / _relative_size(row) ** 2 for row in known)
    return 100 * math.sqrt(math.fsum(row.spectrum.energy for row in known) / squares) if squares > 0 else None


def _mean(
    share: Callable[[Assessment], float | None], weight: Callable[[Assessment], float]
) -> Callable[[_Rows], float | None]:
    """Return the weighted mean, in percent, over the weights that have a figure."""

    def pool(rows: _Rows) -> float | None:
        known = [(value, weight(row)) for row in rows if (value := share(row)) is not None]
        whole = math.fsum(size for _, size in known)
        return 100 * math.fsum(value * size for value, size in known) / whole if whole > 0 else None

    return pool


def _median(read: Callable[[Assessment], float | None]) -> Callable[[_Rows], float | None]:
    """Return the median over the weights that have a figure."""

    def pool(rows: _Rows) -> float | None:
        values = [value for row in rows if (value := read(row)) is not None]
        return float(np.median(values)) if values else None

    return pool


FIGURES = Registry(
    "figure",
    ThresholdError,
    Figure(
        "rank", "Kept rank", "", "localized",
        "Singular directions that the rule keeps.", lambda row: float(row.rank),
        "Directions kept, summed.", lambda rows: float(sum(row.rank for row in rows)),
    ),
    Figure(
        "rank_share", "Kept share of rank", "%", "%.2f %%",
        "Kept directions over all directions of the matrix.", lambda row: _percent(row.rank_share),
        "Directions kept over all directions, both summed over the weights that changed.",
        _mean(lambda row: row.rank_share, lambda row: 0 if row.frozen else row.spectrum.s.size),
    ),
    Figure(
        "energy_kept", "Energy kept", "%", "%.2f %%",
        "Share of the update's squared norm that the rule keeps.", lambda row: _percent(row.energy_kept),
        "|D*|² over |D|², both summed over the weights.",
        _energy_kept,
    ),
    Figure(
        "noise_share", "Noise share", "%", "%.2f %%",
        "Share of the update's squared norm that the rule drops, 1 - |D*|²/|D|².",
        lambda row: _percent(row.noise_share),
        "Mean of 1 - |D*|²/|D|² over the weights that changed.",
        _mean(lambda row: row.noise_share, lambda row: row.spectrum.energy > 0),
    ),
    Figure(
        "relative_size", "Relative update size", "%", "%.3f %%",
        "Norm of the update over the norm of the base weight.", lambda row: _percent(_relative_size(row)),
        "Norm of the update over the norm of the base weights, over the weights that changed.", _pooled_size,
    ),
    Figure(
        "mp_fit", "MP-fit", "%", "%.1f",
        "How well all singular values follow the noise law, in percent; to be read beside that of noise of the same "
        "shape.",
        lambda row: row.mp_fit,
        "Median over the weights that have one.", _median(lambda row: row.mp_fit),
        from_zero=False, beside="noise_fit",
    ),
    Figure(
        "noise_fit", "MP-fit of noise", "%", "%.1f",
        "What noise of independent entries of the weight's shape scores, the median of many matrices.",
        lambda row: row.noise_fit,
        "Median over the weights that have one.", _median(lambda row: row.noise_fit),
        from_zero=False,
    ),
    Figure(
        "residual_fit", "MP-fit of what is dropped, with zeros", "%", "%.1f",
        "How well the dropped singular values follow the noise law, zeros in the place of those kept; low where the "
        "rule drops more than noise, or keeps many.",
        lambda row: row.residual_fit,
        from_zero=False, beside="noise_fit",
    ),
    Figure(
        "residual_own_fit", "MP-fit of what is dropped, without zeros", "%", "%.1f",
        "How well the dropped singular values alone follow the noise law.", lambda row: row.residual_own_fit,
        from_zero=False, beside="noise_fit",
    ),
    Figure(
        "stable_rank", "Stable rank", "", "%.1f",
        "Squared norm of the update over its largest squared singular value.", lambda row: row.spectrum.stable_rank,
        "Median of |D|² over the largest squared singular value, over the weights that changed.",
        _median(lambda row: row.spectrum.stable_rank),
    ),
    Figure(
        "zero_share", "Exact-zero share", "%", "%.2f %%",
        "Share of entries that training did not change at all, as stored.", lambda row: _percent(_zero_share(row)),
        "Entries that did not change at all, over all.",
        _mean(_zero_share, lambda row: row.weight.parameters),
    ),
    Figure(
        "verdict", "Verdict", "", "",
        "Whether the threshold may be trusted: what eleven checks of spectrum and entries add up to.",
        lambda row: float(list(VERDICTS).index(row.diagnosis.verdict)),
        words=tuple(VERDICTS.values()),
    ),
    Figure(
        "flags", "Warnings", "", "localized",
        "How many of the checks of spectrum and entries warn.",
        lambda row: float(sum(flag.severity != "info" for flag in row.diagnosis.flags)),
    ),
)  # fmt: skip
"""Every figure of a matrix under a rule, by name."""

POOLED = {name: figure for name, figure in FIGURES.items() if figure.over}
"""Those that a group of weights has."""
