"""ScreeNOT: the optimal hard threshold in noise of unknown, correlated structure, from the spectrum alone."""

import numpy as np
from numpy.typing import NDArray
from screenot.ScreeNOT import F, computeOptThreshold, createPseudoNoise

from dgviz.rmt.law import sorted_median
from dgviz.rmt.threshold.rule import DEGENERATE_MEDIAN


def rank_bound(count: int, share: float) -> int:
    """Return the largest signal rank k that ScreeNOT allows for, with ``2 k + 1 < p``."""
    return max(0, min(int(share * count), (count - 2) // 2))


def screenot_tau(s: NDArray[np.float64], beta: float, share: float) -> float:
    """Return ScreeNOT's threshold (Donoho, Gavish & Romanov 2023, arXiv 2009.12297).

    The k largest values, where signal may be, are replaced by an extrapolation of the noise below them; the threshold
    is where the functional Psi of that noise takes the value -4.

    Parameters
    ----------
    s : (p,) array
        Singular values, descending.
    beta : float
        Aspect ratio ``min(m, n) / max(m, n)``.
    share : float
        Upper bound of the signal's rank, as a share of p.

    Returns
    -------
    float
        tau; 0 where the median is at rounding level, since then there is no noise to extrapolate.

    Notes
    -----
    The package stops its bisection at an absolute 1e-5, so the spectrum is brought to a median of 1 first.
    """
    median = sorted_median(s)
    if median <= DEGENERATE_MEDIAN * float(np.max(s)):
        return 0.0  # brought to 1, such a median makes the largest value so large that the bisection has no end
    noise = _noise(s / median, share)
    if _constant(noise):
        return float(s[0])  # the functional has no root above them that means anything
    return median * float(computeOptThreshold(noise, beta))


def screenot_exceeds(s: NDArray[np.float64], beta: float, share: float, level: float) -> bool:
    """Return whether ScreeNOT's threshold lies above a positive level: one look at its functional, which rises.

    Within 1e-5 of the median of the level, where the search for the threshold ends, either may be returned.
    """
    noise = _noise(s / level, share)
    return bool(_constant(noise) or noise[-1] >= 1 or F(1.0, noise, beta) < -4)


def _noise(s: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return singular values, ascending, with an extrapolation of the noise where signal may be."""
    return createPseudoNoise(s, rank_bound(s.size, share), strategy="i")


def _constant(noise: NDArray[np.float64]) -> bool:
    return bool(noise[-1] - noise[0] <= 1e-12 * noise[-1])
