"""How much of an update's bulk is rounding of the stored weights, and how much of it a written repair takes back.

A number x stored with step ``d`` becomes ``d round(x / d)``. Fine-tuning that starts from stored numbers (base is *on
the grid*) and ends in stored numbers leaves of what it learned, u, an update ``D`` in whole steps: ``D = Q(u)``. The
best multiple of u in it is ``g u`` with the gain ``g = E u Q / E u^2``; the rest, ``D - g u``, is uncorrelated with u
(Bussgang 1952) and is rounding as a spectrum shows it, of variance ``E Q^2 - g^2 E u^2``. The entries of u are taken
for Gaussian ones of one standard deviation, which the size of D tells; those with a step d then add

====================  ============================================================  ======================
in units of d         formula, with r the standard deviation of u in steps          r -> 0, r -> infinity
====================  ============================================================  ======================
``E Q^2``             ``2 sum_j (2 j - 1) Pr(x > (j - 1/2) / r)``                   0, r^2 + 1 / 12
``E u Q``             ``2 r sum_j phi((j - 1/2) / r)``                              0, r^2
``E (Q - u)^2``       ``E Q^2 - 2 E u Q + r^2``                                     r^2, 1 / 12
====================  ============================================================  ======================

Updates of less than about 0.3 steps hardly move an entry, and almost all that is stored of them is rounding. Where
base is not on the grid every entry is rounded at random, and the variance is ``d^2 / 12`` whatever u is.
docs/development/diagnosis.md says how far this holds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dgviz.rmt.law import aspect_ratio, mp_sv_quantile
from dgviz.rmt.spectrum import Spectrum

_SMALL, _LARGE = 1e-2, 4.0  # steps: below the one nothing moves, from the other on the limit holds to 1e-15
_UNIFORM = 1 / 12  # variance of a rounding error that may lie anywhere within its step


@dataclass(frozen=True)
class RoundingNoise:
    """The rounding in one update.

    Attributes
    ----------
    format : str
        ``"bfloat16"`` or ``"float16"``.
    side : str
        Which side was rounded: ``"tuned"``, or ``"base"``, whose rounding is part of the update only where
        fine-tuning did not start from the stored numbers.
    sigma : float
        Standard deviation of the rounding of one entry; 0 where only base is stored coarsely, since fine-tuning may
        have started from it.
    sigma_most : float
        The same if base was rounded too, after fine-tuning had started from it in a finer format.
    gain : float
        Share of what was learned that the stored update holds, ``g``; 1 where the update is large beside the steps.
    uneven_rows, uneven_columns : float
        Coefficients of variation of the rounding's variance over rows and over columns: where they are large, the
        rounding's own spectrum is wider than that of even noise of this sigma.
    """

    format: str
    side: str
    sigma: float
    sigma_most: float
    gain: float
    uneven_rows: float
    uneven_columns: float

    def shares(self, sigma: float) -> tuple[float, float]:
        """Return which share of the variance of noise is rounding, 1 at most, and which if base was rounded too."""
        if not sigma > 0:
            return 0.0, 0.0
        return min(1.0, (self.sigma / sigma) ** 2), min(1.0, (self.sigma_most / sigma) ** 2)


def rounding_noise(spectrum: Spectrum) -> RoundingNoise | None:
    """Return the rounding in an update; None where both sides are stored finely, nothing changed, or unknown."""
    steps = spectrum.summary.get("steps")
    square = spectrum.energy / math.prod(spectrum.nonzero_shape)
    if not steps or not steps["classes"] or square == 0:
        return None
    step, share = _step_sizes(spectrum)
    random = _UNIFORM * float(share @ step**2)
    least, most, gain = random, random, 1.0
    if steps["side"] == "base":
        least = 0.0
    elif steps["on_grid"]:
        least, gain = _from_grid(step, share, square)
        most = max(least, _both_rounded(step, share, square))
    uneven = steps["row_variance_cv"], steps["column_variance_cv"]
    return RoundingNoise(steps["format"], steps["side"], math.sqrt(least), math.sqrt(most), gain, *uneven)


def rounding_spectrum(rounding: RoundingNoise, shape: Sequence[int]) -> NDArray[np.float64] | None:
    """Return the singular values that rounding alone would have, where it is as large in every row and column.

    Quantiles of the Marchenko-Pastur law of noise of that sigma.
    """
    if rounding.sigma == 0:
        return None
    p = min(shape)
    law = mp_sv_quantile((p - np.arange(p) - 0.5) / p, aspect_ratio(shape))
    return rounding.sigma * math.sqrt(max(shape)) * np.asarray(law)


def rounding_returned(spectrum: Spectrum, rank: int) -> float | None:
    """Return how much of the noise that a repair removes comes back where the result is rounded to tuned's own dtype.

    Predicted from the steps and the size of the repaired update D*, whose entries are taken for Gaussian ones of one
    variance; a real export measures it.
    """
    steps = spectrum.summary.get("steps")
    if not steps or steps["side"] != "tuned" or steps["stored"] != steps["format"] or not steps["classes"]:
        return None
    count = math.prod(spectrum.nonzero_shape)
    kept, removed = (float(np.sum(part**2)) / count for part in (spectrum.s[:rank], spectrum.s[rank:]))
    if removed == 0 or (kept == 0 and steps["on_grid"]):
        return None
    step, share = _step_sizes(spectrum)
    if not steps["on_grid"]:
        return math.sqrt(_UNIFORM * float(share @ step**2) / removed)
    r = math.sqrt(kept) / step
    error = float(share * step**2 @ (_excess(r, 0) - 2 * _excess(r, 1)))
    # Tuned is on the grid too, and no farther from the repair than what is removed: the nearest number is nearer yet.
    return min(1.0, math.sqrt(max(0.0, error) / removed))


def _step_sizes(spectrum: Spectrum) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the steps and the share of the entries that have each."""
    power, count = np.array(spectrum.summary["steps"]["classes"], dtype=np.float64).T
    return np.exp2(power), count / math.prod(spectrum.nonzero_shape)


def _from_grid(step: NDArray[np.float64], share: NDArray[np.float64], square: float) -> tuple[float, float]:
    """Return the variance of rounding and the gain, in an update of a mean square that started on the grid."""
    sizes = _candidates(step, square)
    weight = share * step**2
    size = float(np.interp(square, sizes**2 + _excess(sizes[:, None] / step, 0) @ weight, sizes))
    # E Q^2 and E u Q less E u^2: of a large update nothing is left by the difference of large numbers.
    squares, products = (float(weight @ _excess(size / step, which)) for which in (0, 1))
    gain = 1 + products / size**2
    return max(0.0, squares - 2 * gain * products + ((1 - gain) * size) ** 2), gain


def _both_rounded(step: NDArray[np.float64], share: NDArray[np.float64], square: float) -> float:
    """Return the variance of rounding in an update of a mean square, both of whose sides were rounded at random.

    ``|u| = k + f`` steps then become k or k + 1, with the right mean and the variance ``f (1 - f)``.
    """
    sizes = _candidates(step, square)
    weight = share * step**2
    noise = _excess(sizes[:, None] / step, 2) @ weight
    return float(np.interp(square, sizes**2 + noise, noise))


def _candidates(step: NDArray[np.float64], square: float) -> NDArray[np.float64]:
    """Return standard deviations among which that of u must lie, from the mean square of D, ascending."""
    root = math.sqrt(square)
    return np.geomspace(1e-3 * min(root, float(step.min())), max(1.05 * root, 0.3 * float(step.max())), 400)


def _excess(r: NDArray[np.float64], which: int) -> NDArray[np.float64]:
    """Return ``E Q^2 - r^2``, ``E u Q - r^2`` or ``E f (1 - f)`` for Gaussian u of standard deviation r steps."""
    at, *tabled = _tables()
    inside = np.interp(r, at, tabled[which])
    below = r * math.sqrt(2 / math.pi) if which == 2 else -(r**2)
    return np.where(r > _LARGE, (_UNIFORM, 0.0, 2 * _UNIFORM)[which], np.where(r < _SMALL, below, inside))


@lru_cache(maxsize=1)
def _tables() -> tuple[NDArray[np.float64], ...]:
    """Return r and what `_excess` returns there."""
    from scipy.special import ndtr

    r = np.geomspace(_SMALL, _LARGE, 4000)
    j = np.arange(1, math.ceil(9 * _LARGE))
    z = (j - 0.5) / r[:, None]
    square = 2 * np.sum((2 * j - 1) * ndtr(-z), axis=1)
    product = 2 * r * np.sum(np.exp(-0.5 * z**2), axis=1) / math.sqrt(2 * math.pi)
    # E f (1 - f) from the Fourier series of f (1 - f), 1 / 6 - sum_k cos(2 pi k u) / (pi k)^2.
    k = np.arange(1, 400)[:, None]
    both = 2 * _UNIFORM - np.sum(np.exp(-2 * (np.pi * k * r) ** 2) / (np.pi * k) ** 2, axis=0)
    return r, square - r**2, product - r**2, both
