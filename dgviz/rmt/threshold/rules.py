"""The registry of threshold rules."""

import math

import numpy as np
from numpy.typing import NDArray

from dgviz.errors import ThresholdError
from dgviz.registry import Registry
from dgviz.rmt.law import aspect_ratio, optimal_threshold
from dgviz.rmt.threshold.flips import flip_tau, unsettled
from dgviz.rmt.threshold.rule import SCALE, Noise, Parameter, Rule
from dgviz.rmt.threshold.screenot import screenot_tau

_GAVISH_DONOHO = "Gavish & Donoho 2014, arXiv 1305.5870"
_DG_HARD = "Spectral Unforgetting (DG-Hard), arXiv 2605.20296"
_TRACY_WIDOM = (0.95, 0.9793), (0.99, 2.0234)  # level and quantile, order 1


def _fixed_rank_tau(s: NDArray[np.float64], rank: int) -> float:
    """Return a tau that keeps `rank` values: half-way between the last kept and the first dropped.

    Half-way, so that the rank survives the rounding of a recomputed spectrum. Values tied with the last kept one are
    kept too, zeros never.
    """
    if rank == 0:
        return float(s[0])
    last = s[min(rank, s.size) - 1]
    kept = int(np.count_nonzero(s >= last)) if last > 0 else int(np.count_nonzero(s))
    if kept == 0:
        return 0.0
    return 0.5 * float(s[kept - 1] + (s[kept] if kept < s.size else 0.0))


def _energy_rank(s: NDArray[np.float64], fraction: float) -> int:
    """Return the smallest rank that holds `fraction` of the sum of squares."""
    if s[0] == 0 or fraction == 0:
        return 0
    if fraction == 1:
        return int(np.count_nonzero(s))  # small values vanish in a sum that holds large ones
    cumulative = np.cumsum((s / s[0]) ** 2)  # scaled by s_1: no overflow at 1e200
    return int(np.searchsorted(cumulative, fraction * cumulative[-1]) + 1)


def _flips_caution(s: NDArray[np.float64], rank: int) -> str:
    """Return why the level of the sign flips means nothing, empty where it does."""
    if not unsettled(rank, s.size):
        return ""
    return (
        f"sign flips did not settle: {rank} of {s.size} singular values lie above their level, more than a quarter, "
        "as where entries move together; this threshold is undefined and what it keeps means nothing: choose another "
        "rule"
    )


def _tracy_widom_edge(noise: Noise, level: float) -> float:
    """Return the level that the first singular value of iid noise exceeds with probability ``1 - level``.

    ``sigma sqrt(mu + q d)`` with ``mu = (sqrt(N - 1/2) + sqrt(p - 1/2))^2``,
    ``d = sqrt(mu) (1 / sqrt(N - 1/2) + 1 / sqrt(p - 1/2))^(1/3)`` and q the quantile of Tracy and Widom's law of
    order 1 (Johnstone 2001; Ma 2012, arXiv 1104.4155). Between the two tabled levels q is interpolated in
    log(1 - level).
    """
    (low, q_low), (high, q_high) = _TRACY_WIDOM
    q = q_low + (q_high - q_low) * math.log((1 - low) / (1 - level)) / math.log((1 - low) / (1 - high))
    long, short = (math.sqrt(length - 0.5) for length in (max(noise.shape), min(noise.shape)))
    centre = (long + short) ** 2
    width = (long + short) * (1 / long + 1 / short) ** (1 / 3)
    return noise.sigma * math.sqrt(max(0.0, centre + q * width))


def _quartile_range_edge(noise: Noise, _: object) -> float:
    """Return laserRMT's threshold: the spread of the singular values taken for the noise of one entry."""
    upper, lower = np.percentile(noise.s, [75, 25])
    return float(upper - lower) / 1.349 * (1 + math.sqrt(aspect_ratio(noise.shape)))


def _smallest_quarter_tau(noise: Noise, _: object) -> float:
    """Return the threshold of the reference code's other noise level: the mean of the smallest quarter over 0.6745.

    0.6745 is the median of the absolute value of a Gaussian number; singular values of noise are none.
    """
    smallest = noise.s[-max(1, noise.s.size // 4) :]
    level = float(smallest.mean()) / 0.6745  # this stands for sigma sqrt(N)
    return optimal_threshold(level / math.sqrt(max(noise.shape)), noise.shape)


RULES = Registry(
    "threshold rule",
    ThresholdError,
    Rule(
        "dg_hard",
        "DG-Hard",
        "tau = lambda*(beta) sigma sqrt(N), sigma = median(s) / (median_MP(beta) sqrt(N))",
        f"{_DG_HARD}; {_GAVISH_DONOHO}",
        lambda noise, _: optimal_threshold(noise.sigma, noise.shape),
    ),
    Rule(
        "reference",
        "DG-Hard, reference code's median",
        "as dg_hard, with the lower of the two middle singular values as the median",
        f"{_DG_HARD}, released code",
        lambda noise, _: optimal_threshold(noise.sigma, noise.shape),
        _median=lambda s: float(s[s.size // 2]),
    ),
    Rule(
        "mp_edge",
        "Marchenko-Pastur edge",
        "tau = sigma sqrt(N) (1 + sqrt(beta))",
        "Marchenko & Pastur 1967, doi 10.1070/SM1967v001n04ABEH001994",
        lambda noise, _: noise.edge,
    ),
    Rule(
        "mp_edge_tw",
        "Marchenko-Pastur edge, Tracy-Widom",
        "tau = what the first singular value of iid noise exceeds with probability 1 - level",
        "Johnstone 2001, doi 10.1214/aos/1009210544; Ma 2012, arXiv 1104.4155",
        lambda noise, params: _tracy_widom_edge(noise, params["level"]),
        (Parameter("level", 0.95, 0.95, 0.99, False, "probability that iid noise stays below"), SCALE),
        note="0.1 to 0.2 % above the bulk edge at 8192 x 3072, 1 to 2 % at 256 x 256.",
    ),
    Rule(
        "known_sigma",
        "Known noise level",
        "tau = lambda*(beta) sigma sqrt(N) with sigma as given",
        _GAVISH_DONOHO,
        lambda noise, params: optimal_threshold(params["sigma"], noise.shape),
        (Parameter("sigma", None, 0.0, math.inf, False, "noise standard deviation of one entry"), SCALE),
        noise_based=False,
        note="One sigma for every weight; right only where the noise of all of them is of one size.",
    ),
    Rule(
        "screenot",
        "ScreeNOT",
        "tau = root of Psi(tau) = -4 for the noise that is left when the k largest values are replaced",
        "Donoho, Gavish & Romanov 2023, arXiv 2009.12297; package screenot 0.0.2",
        lambda noise, params: screenot_tau(noise.s, aspect_ratio(noise.shape), params["rank_share"]),
        (
            Parameter("rank_share", 0.1, 0.0, 0.49, False, "most directions that may be signal, as a share of p"),
            SCALE,
        ),
        note="Assumes no variance profile and no independence; keeps less of uneven noise than DG-Hard, not nothing.",
    ),
    Rule(
        "flip_pa",
        "Sign flips",
        "tau = largest first singular value of the delta under random signs, strong directions taken out first",
        "Hong, Sheng & Dobriban 2020, arXiv 2012.02985",
        lambda noise, params: flip_tau(noise.delta, noise.s, params["trials"], params["seed"]),
        (
            Parameter("trials", 10, 1, 100, True, "sign patterns per round"),
            Parameter("seed", 0, 0, 2**31, True, "seed of the signs"),
            SCALE,
        ),
        noise_based=False,
        needs_delta=True,
        _caution=_flips_caution,
        note="Holds for any variance profile of independent entries, not for entries that move together.",
    ),
    Rule(
        "iqr",
        "Quartile range (laserRMT)",
        "tau = (Q75 - Q25) / 1.349 (1 + sqrt(beta))",
        "laserRMT, github.com/cognitivecomputations/laserRMT; for comparison only",
        _quartile_range_edge,
        note="Takes the spread of the singular values for the noise of one entry; keeps much of pure noise.",
    ),
    Rule(
        "q25_mad",
        "Smallest quarter (reference code)",
        "tau = lambda*(beta) mean(smallest quarter of s) / 0.6745",
        f'{_DG_HARD}, released code\'s --sigma ours ("Q25-MAD"); for comparison only',
        _smallest_quarter_tau,
        note="Made for Gaussian numbers, not for singular values: keeps 58 % of pure noise at beta 1, 2 % at .375.",
    ),
    Rule(
        "energy",
        "Energy fraction",
        "smallest rank whose values hold the given share of sum(s^2)",
        "common practice in truncated SVD; no noise model",
        lambda noise, params: _fixed_rank_tau(noise.s, _energy_rank(noise.s, params["fraction"])),
        (Parameter("fraction", 0.9, 0.0, 1.0, False, "share of the energy to keep"),),
        noise_based=False,
    ),
    Rule(
        "fixed_rank",
        "Fixed rank",
        "keep the first r values",
        "Eckart & Young 1936, doi 10.1007/BF02288367; no noise model",
        lambda noise, params: _fixed_rank_tau(noise.s, int(params["rank"])),
        (Parameter("rank", 16, 0, 2**31, True, "number of singular values to keep"),),
        noise_based=False,
    ),
    Rule(
        "manual",
        "Manual tau",
        "tau as given",
        "your choice; no noise model",
        lambda _, params: params["tau"],
        (Parameter("tau", None, 0.0, math.inf, False, "threshold on the singular values"),),
        noise_based=False,
    ),
)
"""Every threshold rule, by name."""

find_rule = RULES.find
