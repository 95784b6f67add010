"""Shrinkers: from the singular values of a noisy matrix to those of its estimate, at a noise level.

A singular value of signal plus noise is larger than the signal's own, so keeping it as it is keeps noise along the
kept directions too. An optimal shrinker gives each value the size that makes the expected loss smallest, for a signal
of low rank in noise of independent entries as the matrix grows. A shrinker is an object in `SHRINKERS`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dgviz.errors import ThresholdError
from dgviz.registry import Registry
from dgviz.rmt.law import aspect_ratio, lambda_star

_Values = NDArray[np.float64]
_CITATION = "Gavish & Donoho 2017, arXiv 1405.7511"


@dataclass(frozen=True)
class Shrinker:
    """A map from singular values to new ones, none larger than before.

    Attributes
    ----------
    name, title : str
        The registry's key and what a page shows.
    formula : str
        In plain notation, with ``y = s / (sigma sqrt(N))`` and ``b = beta``.
    citation : str
        Where it comes from.
    """

    name: str
    title: str
    formula: str
    citation: str
    _map: Callable[[_Values, float], _Values]
    _edge: Callable[[float], float] = lambda beta: 1 + math.sqrt(beta)

    def apply(self, s: ArrayLike, shape: Sequence[int], sigma: float) -> _Values:
        """Return the new singular values.

        Parameters
        ----------
        s : (k,) array
            Singular values, any of them and in any order.
        shape : (int, int)
            Rows and columns of the matrix.
        sigma : float
            Standard deviation of one entry of the noise; at 0 nothing is noise and nothing is shrunk.

        Returns
        -------
        (k,) float64 array
            In the same order and unit; 0 at and below the edge of the noise.

        Raises
        ------
        ThresholdError
            If sigma is negative or not finite, or a value is.

        Examples
        --------
        >>> SHRINKERS["frobenius"].apply([8.0, 5.0], (4, 4), 1.0).tolist()
        [6.928203230275509, 3.0]
        """
        values = np.asarray(s, dtype=np.float64)
        if not (math.isfinite(sigma) and sigma >= 0):
            raise ThresholdError(f"a shrinker needs a finite noise level sigma >= 0; got {sigma!r}")
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise ThresholdError("singular values must be finite and >= 0 to be shrunk")
        unit = sigma * math.sqrt(max(shape))
        if unit == 0:
            return values.copy()
        y, beta = values / unit, aspect_ratio(shape)
        above = y > self._edge(beta)
        y[~above] = 0.0
        y[above] = self._map(y[above], beta)
        return unit * y


def _root(y: _Values, beta: float) -> _Values:
    """Return sqrt((y^2 - b - 1)^2 - 4 b), as a product over both edges: nothing cancels just above the upper one."""
    low, high = 1 - math.sqrt(beta), 1 + math.sqrt(beta)
    return np.sqrt((y - high) * (y + high)) * np.sqrt((y - low) * (y + low))


def _operator(y: _Values, beta: float) -> _Values:
    """Return the signal's own values, which is least in operator norm."""
    return np.sqrt((y * y - beta - 1 + _root(y, beta)) / 2)


def _nuclear(y: _Values, beta: float) -> _Values:
    """Return the values of least error in nuclear norm."""
    x = _operator(y, beta)
    return np.maximum(0.0, (x**4 - beta - math.sqrt(beta) * x * y) / (x * x * y))


SHRINKERS = Registry(
    "shrinker",
    ThresholdError,
    Shrinker(
        "hard",
        "None: kept values stay as they are",
        "s where y > lambda*(b), else 0",
        "Gavish & Donoho 2014, arXiv 1305.5870",
        lambda y, _: y,
        lambda_star,
    ),
    Shrinker(
        "frobenius",
        "Optimal in Frobenius norm",
        "sigma sqrt(N) sqrt((y^2 - b - 1)^2 - 4 b) / y where y > 1 + sqrt(b), else 0",
        _CITATION,
        lambda y, beta: _root(y, beta) / y,
    ),
    Shrinker(
        "operator",
        "Optimal in operator norm",
        "sigma sqrt(N) x, x^2 = (y^2 - b - 1 + sqrt((y^2 - b - 1)^2 - 4 b)) / 2 where y > 1 + sqrt(b), else 0",
        _CITATION,
        _operator,
    ),
    Shrinker(
        "nuclear",
        "Optimal in nuclear norm",
        "sigma sqrt(N) max(0, (x^4 - b - sqrt(b) x y) / (x^2 y)) with the operator norm's x, where y > 1 + sqrt(b)",
        _CITATION,
        _nuclear,
    ),
)
"""Every shrinker, by name."""

find_shrinker = SHRINKERS.find
