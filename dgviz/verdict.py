"""What a rule makes of one spectrum, in figures: one function for every page, command and report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgviz.store import Spectrum
from dgviz.theory import mp_fit_triple
from dgviz.threshold import find_rule


def energy_kept(s: NDArray[np.float64], rank: int) -> float:
    """Return the share of the sum of squares in the first `rank` singular values; 1 for a zero delta.

    Parameters
    ----------
    s : (p,) array
        Singular values, descending.
    rank : int
        Number kept.
    """
    values = np.asarray(s, dtype=np.float64)
    if values.size == 0 or values[0] == 0:
        return 1.0
    squares = (values / values[0]) ** 2  # scaled: no overflow at 1e200
    return float(squares[:rank].sum() / squares.sum())


def spectrum_figures(
    s: NDArray[np.float64], shape: Sequence[int], rule: str, params: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a rule finds in a spectrum, as plain values.

    Parameters
    ----------
    s : (p,) array
        All singular values of the delta, descending.
    shape : (int, int)
        Rows and columns of the delta.
    rule : str
        Threshold rule.
    params : mapping
        Its parameters.

    Returns
    -------
    dict
        ``rank``, ``tau``, ``sigma``, ``edge``, ``energy_kept``, ``mp_fit`` (of ``tuned``, ``repaired`` and
        ``discarded``, in percent, None without noise) and ``warnings``.

    Raises
    ------
    ThresholdError
        If there is no such rule or a parameter does not fit it.
    """
    threshold = find_rule(rule).apply(s, shape, **params)
    return {
        "rank": threshold.rank,
        "tau": threshold.tau,
        "sigma": threshold.sigma,
        "edge": threshold.edge,
        "energy_kept": energy_kept(s, threshold.rank),
        "mp_fit": mp_fit_triple(s, threshold.rank, threshold.sigma, shape),
        "warnings": list(threshold.warnings),
    }


def matrix_row(spectrum: Spectrum, rule: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return all figures of one matrix as plain values: what a rule finds, and how the spectrum was obtained.

    Parameters
    ----------
    spectrum : Spectrum
        Its singular values.
    rule : str
        Threshold rule.
    params : mapping
        Its parameters.
    """
    figures = spectrum_figures(spectrum.s, spectrum.shape, rule, params)
    return figures | {
        "warnings": [*figures["warnings"], *spectrum.warnings],
        "summary": spectrum.summary,
        "route": spectrum.certificate["route"],
        "stored": spectrum.stored,
        "seconds": spectrum.seconds,
    }


def stack_rows(rows: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Return the rows of a stack's matrices as one: a list for every figure, the warnings without repetition.

    Parameters
    ----------
    rows : sequence of mapping or None
        From `matrix_row`, in order; None for a matrix that has no figures, and so for each of its items.
    """
    known = [row for row in rows if row is not None]
    if not known:
        return {}
    stacked: dict[str, Any] = {}
    for key, example in known[0].items():
        values = [None if row is None else row[key] for row in rows]
        if key == "warnings":
            stacked[key] = list(dict.fromkeys(warning for row in known for warning in row[key]))
        elif isinstance(example, Mapping):
            names = dict.fromkeys(name for value in values if value for name in value)
            stacked[key] = {name: [value and value.get(name) for value in values] for name in names}
        else:
            stacked[key] = values
    return stacked
