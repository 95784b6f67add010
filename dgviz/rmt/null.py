"""How far the spectrum of pure noise lies from the noise law: what an MP-fit has to be compared with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dgviz.rmt.law import aspect_ratio, mp_distance, mp_fit, sigma_from_median

SIMULATED_UP_TO = 64
"""Singular values up to which `noise_distance` simulates: 100 draws then take about a tenth of a second."""
_DRAWS = 100


@dataclass(frozen=True)
class NoiseDistance:
    """The Kolmogorov distance between the spectrum of iid Gaussian noise and the law of its own median.

    Attributes
    ----------
    median : float
        Of many matrices of the shape.
    high : float
        What 95 of 100 stay below.
    """

    median: float
    high: float

    @property
    def fit(self) -> float:
        """The MP-fit that noise of this shape scores, in percent: the median of many matrices."""
        return 100.0 * (1.0 - self.median)


def noise_distance(shape: Sequence[int]) -> NoiseDistance:
    """Return how far noise of a shape lies from the law, simulated where fast, by `distance_law` elsewhere."""
    short, long = sorted(int(length) for length in shape)
    aspect_ratio((short, long))
    return _simulated(short, long) if short <= SIMULATED_UP_TO else distance_law(short)


def mp_fits(s: ArrayLike, values: ArrayLike, sigma: float, shape: Sequence[int]) -> dict[str, float | None]:
    """Return the MP-fit of a delta, of what a method makes of it along the same directions, and of the difference.

    Parameters
    ----------
    s : (p,) array
        All singular values of the tuned delta.
    values : (p,) array
        Those of the repaired delta, direction by direction.
    sigma : float
        Noise estimate of the tuned delta.
    shape : (int, int)
        Rows and columns of the matrix.

    Returns
    -------
    dict
        ``tuned``, ``repaired`` and ``discarded``, each over all p values, zeros included; ``discarded_own``, over the
        values of the discarded part that are not zero, None where there are none; ``noise``, what noise of this shape
        scores. All None when sigma is not a positive finite number.
    """
    gone = np.abs(np.subtract(s, values))
    known = sigma > 0 and math.isfinite(sigma)
    parts = {"tuned": s, "repaired": values, "discarded": gone}
    return {
        **{name: mp_fit(part, sigma, shape) for name, part in parts.items()},
        "discarded_own": mp_fit(gone[gone > 0], sigma, shape) if gone.any() else None,
        "noise": noise_distance(shape).fit if known else None,
    }


def distance_law(p: int) -> NoiseDistance:
    """Return the distance of noise by the law that simulation found: ``(a + b ln p) / p``, whatever the aspect ratio.

    Eigenvalues repel: the number below any point varies like ``sqrt(log p)``, and so the distance falls almost as
    ``1 / p``, not ``1 / sqrt(p)``. Measured p times distance, median and 95th percentile of 600, 300, 100 and 60
    matrices by `noise_spectrum`:

    ====  ===========  ===========  ===========  ===========
    beta  p = 256      512          1024         1500
    ====  ===========  ===========  ===========  ===========
    1     2.90, 4.13   3.17, 4.38   3.56, 4.89   3.63, 4.69
    0.75  2.86, 3.90   3.22, 4.31   3.51, 4.44   3.59, 4.82
    0.5   2.87, 3.75   3.19, 4.22   3.45, 4.31   3.70, 4.95
    0.25  2.85, 3.69   3.19, 4.11   3.55, 4.76   3.60, 4.76
    law   2.86, 3.88   3.16, 4.24   3.47, 4.60   3.64, 4.80
    ====  ===========  ===========  ===========  ===========
    """
    return NoiseDistance((0.42 + 0.44 * math.log(p)) / p, (1.0 + 0.52 * math.log(p)) / p)


def noise_spectrum(shape: Sequence[int], generator: np.random.Generator) -> NDArray[np.float64]:
    """Return the singular values of one matrix of independent standard Gaussian entries, without making the matrix.

    Householder reflections make of such a matrix a bidiagonal one whose entries are independent chi variables
    (Dumitriu & Edelman 2002, arXiv math-ph/0206043): p^2 operations instead of p^2 N.
    """
    from scipy.linalg import eigvalsh_tridiagonal

    p, long = sorted(int(length) for length in shape)
    diagonal = generator.chisquare(long - np.arange(p))
    beside = generator.chisquare(np.arange(p - 1, 0, -1))
    gram = diagonal.copy()
    gram[1:] += beside
    squares = eigvalsh_tridiagonal(gram, np.sqrt(diagonal[:-1] * beside), lapack_driver="sterf")
    return np.sqrt(np.maximum(squares, 0.0))[::-1]


@lru_cache(maxsize=4096)
def _simulated(p: int, long: int) -> NoiseDistance:
    """Return what `_DRAWS` matrices of a shape show; the same at every call."""
    generator = np.random.default_rng((p, long))
    distances = []
    for _ in range(_DRAWS):
        s = noise_spectrum((p, long), generator)
        distances.append(mp_distance(s, sigma_from_median(float(np.median(s)), (p, long)), (p, long)))
    return NoiseDistance(float(np.median(distances)), float(np.quantile(distances, 0.95)))
