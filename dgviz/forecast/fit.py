"""A monotone fit with an interval, and what it is worth on families of models that it has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

INTERVAL = 0.8
_FEWEST = 8  # residuals that an interval is made from at least, where there are so many

Values = NDArray[np.float64]


@dataclass(frozen=True)
class MonotoneFit:
    """An isotonic regression, linear between its points and level beyond, with intervals from left-out families.

    Attributes
    ----------
    x, y : (n,) arrays
        Distinct places, ascending, and the fit there.
    places, residuals : (m,) arrays
        For every point that was fitted, its place and how far it lies above the fit of the other families.
    families : int
        How many there are.
    """

    x: Values
    y: Values
    places: Values
    residuals: Values
    families: int

    def predict(self, x: ArrayLike) -> Values:
        """Return the fit at some places."""
        return np.interp(x, self.x, self.y)

    def interval(self, x: float) -> tuple[float, float]:
        """Return the ends of the 80 % interval: the fit plus quantiles of the nearest third of residuals.

        What a new family has in common with the others is being one of the families, and not one of their points: of
        F families and a new one a tenth are left out at either end, which are the outermost residuals while F < 9.
        """
        count = min(self.places.size, max(_FEWEST, self.places.size // 3))
        near = np.argsort(np.abs(self.places - x), kind="stable")[:count]
        own = np.sort(self.residuals[near])
        rank = max(1, int((self.families + 1) * (1 - INTERVAL) / 2 + 1e-9))
        value = float(self.predict(x))
        return value + float(own[rank - 1]), value + float(own[-rank])


def fit_monotone(
    x: ArrayLike, y: ArrayLike, stderr: ArrayLike, families: Sequence[str], increasing: bool
) -> MonotoneFit:
    """Return the monotone fit of y over x.

    Points weigh the less the larger their standard error is beside the spread between pairs.

    Parameters
    ----------
    x, y, stderr : (n,) array_like
        Places, values and their standard errors.
    families : sequence of str
        What belongs together: an interval is made from how far the others' fit is off on each of them.
    increasing : bool
        Or decreasing.
    """
    x, y, stderr = (np.asarray(values, dtype=np.float64) for values in (x, y, stderr))
    known = np.asarray(families)
    residuals = np.zeros_like(y)
    for family in dict.fromkeys(families):
        own = known == family
        rest = ~own if not own.all() else own
        places, values = _isotonic(x[rest], y[rest], stderr[rest], increasing)
        residuals[own] = y[own] - np.interp(x[own], places, values)
    return MonotoneFit(*_isotonic(x, y, stderr, increasing), x, residuals, len(set(families)))


def _isotonic(x: Values, y: Values, stderr: Values, increasing: bool) -> tuple[Values, Values]:
    """Return the distinct places and the fit there; weights are the inverse of both variances together."""
    from scipy.optimize import isotonic_regression  # half a second: only when a fit is made

    places, group = np.unique(x, return_inverse=True)

    def fit(weights: Values) -> Values:
        total = np.bincount(group, weights)
        means = np.bincount(group, weights * y) / total
        return isotonic_regression(means, weights=total, increasing=increasing).x

    values = fit(np.ones_like(y))
    between = float(np.mean((y - values[group]) ** 2 - stderr**2))
    floor = max(between, float(np.median(stderr)) ** 2, 1e-6)
    return places, fit(1 / (floor + stderr**2))


@dataclass(frozen=True)
class LeftOut:
    """A family foretold by a fit of the others.

    Attributes
    ----------
    family : str
        Which.
    pairs : int
        How many it has.
    error : float
        Mean absolute error of the fit, in the unit of y.
    covered : float
        Share of its pairs within the interval.
    """

    family: str
    pairs: int
    error: float
    covered: float


def leave_one_out(
    x: ArrayLike, y: ArrayLike, stderr: ArrayLike, families: Sequence[str], increasing: bool
) -> tuple[LeftOut, ...]:
    """Return how well every family is foretold by the others; takes what `fit_monotone` takes."""
    x, y, stderr = (np.asarray(values, dtype=np.float64) for values in (x, y, stderr))
    known, found = np.asarray(families), []
    for family in dict.fromkeys(families):
        own = known == family
        if own.all():
            break
        fit = fit_monotone(x[~own], y[~own], stderr[~own], list(known[~own]), increasing)
        errors = np.abs(y[own] - fit.predict(x[own]))
        ends = [fit.interval(place) for place in x[own]]
        inside = [low <= value <= high for value, (low, high) in zip(y[own], ends, strict=True)]
        found.append(LeftOut(family, int(own.sum()), float(errors.mean()), float(np.mean(inside))))
    return tuple(found)
