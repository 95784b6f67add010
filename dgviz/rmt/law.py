"""Marchenko-Pastur law and Gavish-Donoho constants of an m x n matrix, in closed form.

Throughout, ``p = min(m, n)``, ``N = max(m, n)``, ``beta = p / N`` in (0, 1], ``sigma`` is the standard deviation of
one entry of the noise, and ``y = s / (sigma sqrt(N))`` is a singular value in the law's own unit. The literature's
names collide (one letter means different constants in different papers), so the constants carry descriptive names:

=================  =======================================  ==============  ==================
here               meaning                                  DG-Hard paper   Gavish & Donoho
=================  =======================================  ==============  ==================
``lambda_star``    optimal threshold, known noise           omega           lambda*
``mp_median_eig``  median of the eigenvalue law             -               mu
``mp_median_sv``   median of the singular-value law         mu              -
``svht_coef``      optimal threshold / median(s)            -               omega
=================  =======================================  ==============  ==================

References
----------
Gavish & Donoho 2014, "The optimal hard threshold for singular values is 4/sqrt(3)", arXiv 1305.5870.
"Spectral Unforgetting" (DG-Hard), arXiv 2605.20296.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Array = NDArray[Any]
_BISECTIONS = 64  # halvings of an interval of length <= 2: ends below one unit in the last place


def _checked(values: ArrayLike, fits: Callable[[_Array], _Array], wanted: str) -> _Array:
    """Return values as float64, or say what is wanted and which value is not."""
    array = np.asarray(values, dtype=np.float64)
    bad = ~fits(array)
    if bad.any():
        raise ValueError(f"{wanted}; got {array[bad].flat[0]!r}")
    return array


def _checked_beta(beta: ArrayLike) -> _Array:
    """Return ``beta`` as float64, or say which value is no aspect ratio."""
    return _checked(beta, lambda b: (b > 0) & (b <= 1), "beta must lie in (0, 1] (beta = min(m, n) / max(m, n))")


def _scalar_or_array(values: _Array) -> Any:
    """Return a Python float for 0-d input, the array otherwise."""
    return float(values) if values.ndim == 0 else values


def lambda_star(beta: ArrayLike) -> Any:
    """Return the optimal hard threshold in units of ``sigma sqrt(N)`` (Gavish & Donoho 2014, eq. 11).

    Parameters
    ----------
    beta : float or array
        Aspect ratio ``p / N`` in (0, 1].

    Returns
    -------
    float or array
        ``sqrt(2 (b + 1) + 8 b / ((b + 1) + sqrt(b^2 + 14 b + 1)))``; 4 / sqrt(3) for square matrices.

    Raises
    ------
    ValueError
        If a beta lies outside (0, 1].

    Examples
    --------
    >>> round(lambda_star(1.0), 6)
    2.309401
    """
    b = _checked_beta(beta)
    return _scalar_or_array(np.sqrt(2 * (b + 1) + 8 * b / ((b + 1) + np.sqrt(b * b + 14 * b + 1))))


def mp_sv_support(beta: ArrayLike) -> tuple[Any, Any]:
    """Return the ends of the singular-value law, ``(1 - b) / (1 + sqrt b)`` and ``1 + sqrt b``.

    Parameters
    ----------
    beta : float or array
        Aspect ratio in (0, 1].
    """
    b = _checked_beta(beta)
    root = np.sqrt(b)
    # 1 - sqrt(b) written without cancellation near b = 1.
    return _scalar_or_array((1 - b) / (1 + root)), _scalar_or_array(1 + root)


def mp_sv_pdf(y: ArrayLike, beta: ArrayLike) -> Any:
    """Return the Marchenko-Pastur density of singular values at ``y = s / (sigma sqrt(N))``.

    Parameters
    ----------
    y : float or array
        Singular values in units of ``sigma sqrt(N)``, non-negative; broadcast against `beta`.
    beta : float or array
        Aspect ratio in (0, 1].

    Returns
    -------
    float or array
        ``sqrt((y^2 - lo^2)(hi^2 - y^2)) / (pi b y)`` inside the support, 0 outside; for ``beta = 1`` and
        ``y = 0`` its limit, 2 / pi.

    Raises
    ------
    ValueError
        If a beta lies outside (0, 1] or a y is negative or not a number.
    """
    b, values, lo, hi = _on_support(y, beta)
    inside = (values >= lo) & (values <= hi)
    v = np.where(inside, values, hi)
    upper = np.sqrt((hi - v) * (hi + v))
    # For b = 1, lo = 0 and sqrt(v^2 - lo^2) / v is 1, also in the limit v -> 0.
    lower = np.where(lo > 0, np.sqrt((v - lo) * (v + lo)) / np.where(v > 0, v, 1.0), 1.0)
    return _scalar_or_array(np.where(inside, lower * upper / (np.pi * b), 0.0))


def _on_support(y: ArrayLike, beta: ArrayLike) -> tuple[_Array, _Array, Any, Any]:
    """Return beta and y, checked and broadcast against each other, and both ends of the law's support."""
    b = _checked_beta(beta)
    b, values = np.broadcast_arrays(b, _checked(y, lambda v: v >= 0, "singular values must be numbers >= 0"))
    return b, values, *mp_sv_support(b)


def mp_sv_cdf(y: ArrayLike, beta: ArrayLike) -> Any:
    """Return the Marchenko-Pastur distribution function of singular values, in closed form.

    With ``P = sqrt(y^2 - lo^2)`` and ``Q = sqrt(hi^2 - y^2)``,
    ``G = 1/2 + [P Q + (1 + b)(2 atan2(P, Q) - pi/2) - (1 - b)(2 atan2(hi P, lo Q) - pi/2)] / (2 pi b)``.
    The arctangent form keeps full accuracy at both edges, where the textbook arcsine form loses up to 1e-4.

    Parameters
    ----------
    y : float or array
        Singular values in units of ``sigma sqrt(N)``, non-negative; broadcast against `beta`.
    beta : float or array
        Aspect ratio in (0, 1].

    Returns
    -------
    float or array
        ``P(Y <= y)``, with 0 below and 1 above the support.

    Raises
    ------
    ValueError
        If a beta lies outside (0, 1] or a y is negative or not a number.

    Examples
    --------
    >>> round(mp_sv_cdf(mp_median_sv(0.375), 0.375), 12)
    0.5
    """
    b, values, lo, hi = _on_support(y, beta)
    v = np.clip(values, lo, hi)
    p = np.sqrt((v - lo) * (v + lo))
    q = np.sqrt((hi - v) * (hi + v))
    body = (
        p * q + (1 + b) * (2 * np.arctan2(p, q) - np.pi / 2) - (1 - b) * (2 * np.arctan2(hi * p, lo * q) - np.pi / 2)
    )
    inner = np.clip(0.5 + body / (2 * np.pi * b), 0.0, 1.0)
    return _scalar_or_array(np.where(values <= lo, 0.0, np.where(values >= hi, 1.0, inner)))


def mp_sv_quantile(u: ArrayLike, beta: ArrayLike) -> Any:
    """Return the ``u``-quantile of the singular-value law, by bisection on the closed-form distribution.

    Parameters
    ----------
    u : float or array
        Probabilities in [0, 1]; broadcast against `beta`.
    beta : float or array
        Aspect ratio in (0, 1].

    Returns
    -------
    float or array
        ``y`` with ``mp_sv_cdf(y, beta) = u``, in units of ``sigma sqrt(N)``.

    Raises
    ------
    ValueError
        If a beta lies outside (0, 1] or a u outside [0, 1].
    """
    probability = _checked(u, lambda v: (v >= 0) & (v <= 1), "u must lie in [0, 1]")
    b, probability = np.broadcast_arrays(_checked_beta(beta), probability)
    low, high = ends = mp_sv_support(b)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        below = mp_sv_cdf(middle, b) < probability
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return _scalar_or_array(np.select([probability == 0, probability == 1], ends, 0.5 * (low + high)))


def mp_median_sv(beta: ArrayLike) -> Any:
    """Return the median of the singular-value law, in units of ``sigma sqrt(N)`` (the paper's mu).

    Parameters
    ----------
    beta : float or array
        Aspect ratio in (0, 1].

    Examples
    --------
    >>> round(mp_median_sv(1.0), 3)
    0.808
    """
    return _median_sv(float(beta)) if np.ndim(beta) == 0 else mp_sv_quantile(0.5, beta)


@functools.lru_cache(maxsize=4096)
def _median_sv(beta: float) -> float:
    """Return `mp_median_sv` of one beta: bisection takes milliseconds, and a model has few shapes."""
    return mp_sv_quantile(0.5, beta)


def mp_median_eig(beta: ArrayLike) -> Any:
    """Return the median of the eigenvalue law (the mu of Gavish & Donoho), the square of `mp_median_sv`.

    Parameters
    ----------
    beta : float or array
        Aspect ratio in (0, 1].
    """
    return mp_median_sv(beta) ** 2


def svht_coef(beta: ArrayLike) -> Any:
    """Return the optimal hard threshold in units of the median singular value (Gavish & Donoho's omega).

    Parameters
    ----------
    beta : float or array
        Aspect ratio in (0, 1].

    Examples
    --------
    >>> round(svht_coef(1.0), 9)
    2.858362424
    """
    return lambda_star(beta) / mp_median_sv(beta)


def aspect_ratio(shape: Sequence[int]) -> float:
    """Return ``beta = min(m, n) / max(m, n)`` of a matrix shape.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns, both positive.

    Raises
    ------
    ValueError
        If the shape is not that of a non-empty matrix.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"a non-empty matrix has two positive dimensions; got shape {tuple(shape)}")
    return min(shape) / max(shape)


def sorted_median(values: NDArray[np.float64]) -> float:
    """Return the median of values that are in order: numpy's own to the last bit, which takes forty times as long.

    Parameters
    ----------
    values : (p,) array
        Ascending or descending, p at least 1.
    """
    half = values.size // 2
    return float(values[half] if values.size % 2 else (values[half - 1] + values[half]) / 2)


def sigma_from_median(median: float, shape: Sequence[int]) -> float:
    """Return the per-entry noise std whose Marchenko-Pastur median is `median`.

    Parameters
    ----------
    median : float
        Median singular value.
    shape : (int, int)
        Rows and columns of the matrix.

    Returns
    -------
    float
        ``median / (mp_median_sv(beta) sqrt(N))``.
    """
    return float(median) / (mp_median_sv(aspect_ratio(shape)) * math.sqrt(max(shape)))


def bulk_edge(sigma: float, shape: Sequence[int]) -> float:
    """Return the upper end of the noise spectrum, ``sigma sqrt(N) (1 + sqrt(beta))``.

    Parameters
    ----------
    sigma : float
        Per-entry noise standard deviation.
    shape : (int, int)
        Rows and columns of the matrix.
    """
    return float(sigma) * math.sqrt(max(shape)) * (1 + math.sqrt(aspect_ratio(shape)))


def optimal_threshold(sigma: float, shape: Sequence[int]) -> float:
    """Return tau = ``lambda_star(beta) sigma sqrt(N)``; singular values strictly above it are kept.

    Parameters
    ----------
    sigma : float
        Per-entry noise standard deviation.
    shape : (int, int)
        Rows and columns of the matrix.
    """
    return _star(aspect_ratio(shape)) * float(sigma) * math.sqrt(max(shape))


_star = functools.lru_cache(lambda_star)  # a model has few shapes and many matrices


def mp_distance(s: ArrayLike, sigma: float, shape: Sequence[int]) -> float:
    """Return the Kolmogorov distance between a spectrum and the Marchenko-Pastur law of noise `sigma`.

    Parameters
    ----------
    s : array
        Singular values in any order: all of a matrix, zeros included, or a part of them.
    sigma : float
        Per-entry noise standard deviation, positive.
    shape : (int, int)
        Rows and columns of the matrix.

    Returns
    -------
    float
        ``sup_x |ECDF(x) - G(x / (sigma sqrt(N)))|`` in [0, 1].

    Raises
    ------
    ValueError
        If sigma is not positive: the law has no scale and the distance is undefined.
    """
    if not sigma > 0:
        raise ValueError(f"the Marchenko-Pastur law needs sigma > 0; got {sigma!r}")
    values = np.sort(np.asarray(s, dtype=np.float64))
    law = np.asarray(mp_sv_cdf(values / (sigma * math.sqrt(max(shape))), aspect_ratio(shape)))
    steps = np.arange(values.size + 1) / values.size
    return float(max(np.max(steps[1:] - law), np.max(law - steps[:-1])))


def mp_fit(s: ArrayLike, sigma: float, shape: Sequence[int]) -> float | None:
    """Return the MP-fit score, ``100 (1 - mp_distance)``; what noise of a shape scores is in `dgviz.rmt.null`.

    None where sigma is not a positive finite number.

    Parameters
    ----------
    s : array
        Singular values: all of a matrix, zeros included, or a part of them.
    sigma : float
        Noise estimate of the *tuned* delta, the same for tuned, repaired and discarded.
    shape : (int, int)
        Rows and columns of the matrix.

    Notes
    -----
    A rank-k spectrum whose k values lie above the bulk scores exactly ``100 k / p``. Ordinary Kolmogorov p-values do
    not apply: eigenvalues repel, so the distance of pure noise is about ``3 / p``, not ``1 / sqrt(p)``.
    """
    return 100.0 * (1.0 - mp_distance(s, sigma, shape)) if sigma > 0 and math.isfinite(sigma) else None
