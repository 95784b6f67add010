"""Threshold rules: from the singular values of a delta to the number of directions kept.

A rule is an object in `RULES`; pages, command line and documentation read the registry. Every rule keeps the singular
values *strictly above* tau, and every result carries sigma and the bulk edge as estimated from the median singular
value, so that rules can be compared on one spectrum.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dgviz.errors import DgvizError, ThresholdError
from dgviz.theory import bulk_edge, optimal_threshold, sigma_from_median

# A median at or below 64 float32 roundings of s_1 is arithmetic, not noise (LAPACK's own errors are of this size).
DEGENERATE_MEDIAN = 64 * float(np.finfo(np.float32).eps)

_GAVISH_DONOHO = "Gavish & Donoho 2014, arXiv 1305.5870"
_DG_HARD = "Spectral Unforgetting (DG-Hard), arXiv 2605.20296"


@dataclass(frozen=True)
class Threshold:
    """What a rule found for one spectrum.

    Attributes
    ----------
    rule : str
        Name of the rule in `RULES`.
    params : Mapping[str, float]
        Every parameter of the rule, defaults included.
    tau : float
        Threshold on the singular values; kept are those strictly above it.
    sigma : float
        Per-entry noise standard deviation implied by the median singular value.
    edge : float
        Upper end of the Marchenko-Pastur bulk of that noise.
    rank : int
        Number of singular values kept.
    warnings : tuple of str
        Sentences for the user: why this threshold may mean nothing.
    degenerate : bool
        True when the median singular value is zero or at rounding level: sigma, edge and any tau made from them say
        nothing about noise.
    """

    rule: str
    params: Mapping[str, float]
    tau: float
    sigma: float
    edge: float
    rank: int
    warnings: tuple[str, ...] = ()
    degenerate: bool = False


@dataclass(frozen=True)
class Parameter:
    """One number a rule takes, with its range; both ends belong to it."""

    name: str
    default: float | None
    minimum: float
    maximum: float
    integer: bool
    description: str


@dataclass(frozen=True)
class _Noise:
    """The Marchenko-Pastur reading of a spectrum."""

    s: NDArray[np.float64]
    shape: tuple[int, int]
    sigma: float
    edge: float


@dataclass(frozen=True)
class Rule:
    """A way to choose tau.

    Attributes
    ----------
    name, title : str
        The registry's key and what a page shows.
    formula : str
        The threshold in plain notation.
    citation : str
        Where it comes from.
    parameters : tuple of Parameter
        What can be set.
    noise_based : bool
        True when tau is made from the noise estimate, so that a degenerate median leaves it without meaning.
    """

    name: str
    title: str
    formula: str
    citation: str
    parameters: tuple[Parameter, ...]
    noise_based: bool
    _tau: Callable[[_Noise, Mapping[str, float]], float]
    _median: Callable[[NDArray[np.float64]], float] = lambda s: float(np.median(s))

    def apply(self, s: ArrayLike, shape: Sequence[int], delta: Any = None, **params: float) -> Threshold:
        """Return the threshold this rule sets on a spectrum.

        Parameters
        ----------
        s : (p,) array
            All ``p = min(m, n)`` singular values of the delta, zeros included; any order.
        shape : (int, int)
            Rows and columns ``(m, n)`` of the delta.
        delta : matrix, optional
            The delta itself, for rules that need more than its spectrum; the rules here do not.
        **params : float
            The rule's parameters; those not given take their defaults.

        Returns
        -------
        Threshold
            tau, sigma, edge and the number of values strictly above tau.

        Raises
        ------
        ThresholdError
            If the spectrum does not belong to the shape, or a parameter is unknown, missing or out of range.

        Examples
        --------
        >>> RULES["dg_hard"].apply([10.0, 5.0, 2.1, 1.2, 1.1, 1.0, 0.9, 0.8], (8, 8)).rank
        2
        """
        values, matrix_shape = _checked_spectrum(s, shape)
        settings = self.checked(params)
        median = self._median(values)
        sigma = sigma_from_median(median, matrix_shape)
        noise = _Noise(values, matrix_shape, sigma, bulk_edge(sigma, matrix_shape))
        tau = self._tau(noise, settings) * settings.get("scale", 1.0)
        floor = DEGENERATE_MEDIAN * float(values[0])
        degenerate = median <= floor
        # A rank above the rounding floor would count arithmetic, not directions.
        cut = max(tau, floor) if degenerate and self.noise_based else tau
        rank = int(np.count_nonzero(values > cut))
        warnings = _warnings(self, values, median, degenerate)
        asked = min(int(settings.get("rank", rank)), int(np.count_nonzero(values)))
        if rank != asked:
            warnings += (f"{rank} values are kept where {asked} were asked for: those at the cut are equal",)
        return Threshold(self.name, settings, tau, sigma, noise.edge, rank, warnings, degenerate)

    def changed(self, params: Mapping[str, float]) -> dict[str, float]:
        """Return the parameters that are not at their defaults: what a link or a command has to say.

        Parameters
        ----------
        params : mapping
            From `checked`.
        """
        defaults = {parameter.name: parameter.default for parameter in self.parameters}
        return {name: value for name, value in params.items() if value != defaults.get(name)}

    def checked(self, params: Mapping[str, float]) -> dict[str, float]:
        """Return all parameters with defaults filled in.

        Parameters
        ----------
        params : mapping
            Parameter values by name.

        Raises
        ------
        ThresholdError
            If one is unknown, missing, not a number or out of range.
        """
        return checked_parameters(f"rule {self.name!r}", self.parameters, params)


def checked_parameters(
    owner: str,
    parameters: Sequence[Parameter],
    given: Mapping[str, Any],
    error: type[DgvizError] = ThresholdError,
) -> dict[str, float]:
    """Return the value of every parameter, defaults filled in.

    Parameters
    ----------
    owner : str
        Whose they are, in words for a sentence.
    parameters : sequence of Parameter
        All there are.
    given : mapping
        Values by name; numbers, or text that is one.
    error : type
        What to raise.

    Raises
    ------
    DgvizError
        Of the type given, if one is unknown, missing, not a number or out of range.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name in given:
        if name not in known:
            raise error(f"{owner} has no parameter {name!r}; it takes {', '.join(known) or 'no parameters'}")
    return {name: _checked_value(owner, parameter, given.get(name), error) for name, parameter in known.items()}


def _checked_value(owner: str, parameter: Parameter, given: Any, error: type[DgvizError]) -> float:
    """Return the value of one parameter, or say what is wrong with it."""
    value = parameter.default if given is None else given
    if value is None:
        raise error(f"{owner} needs {parameter.name!r} ({parameter.description}); give {parameter.name}=…")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise error(f"{parameter.name!r} of {owner} must be a number; got {value!r}") from None
    if not parameter.minimum <= number <= parameter.maximum:
        span = f"[{parameter.minimum:g}, {parameter.maximum:g}]"
        raise error(f"{parameter.name!r} of {owner} must lie in {span}; got {value!r}")
    if parameter.integer and number != int(number):
        raise error(f"{parameter.name!r} of {owner} must be a whole number; got {value!r}")
    return int(number) if parameter.integer else number


def _checked_spectrum(s: ArrayLike, shape: Sequence[int]) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Return the spectrum in descending order and its shape, or say why they do not fit."""
    size = tuple(int(length) for length in shape)
    if len(size) != 2 or min(size) < 1:
        raise ThresholdError(f"a threshold needs the shape of one non-empty matrix (rows, columns); got {size}")
    values = np.asarray(s, dtype=np.float64)
    if values.ndim != 1 or values.size != min(size):
        raise ThresholdError(
            f"a {size[0]} x {size[1]} matrix has {min(size)} singular values, zeros too; got shape {values.shape}"
        )
    if not np.isfinite(values).all() or (values < 0).any():
        bad = int(np.argmax(~(np.isfinite(values) & (values >= 0))))
        raise ThresholdError(f"singular values must be finite and >= 0; value {bad} is {values[bad]}")
    return np.sort(values)[::-1], size


def _warnings(rule: Rule, s: NDArray[np.float64], median: float, degenerate: bool) -> tuple[str, ...]:
    """Return what a user must know before trusting the threshold."""
    if s[0] == 0:
        return ("the delta is exactly zero: nothing was trained here, nothing to repair",)
    if not degenerate:
        return ()
    numerical_rank = int(np.count_nonzero(s > DEGENERATE_MEDIAN * s[0]))
    consequence = "this rule changes nothing here" if rule.noise_based else "sigma and edge mean nothing here"
    return (
        f"low-rank delta: only {numerical_rank} of {s.size} singular values are above rounding level, as after a "
        f"merged LoRA, so the median ({median:.3g}) measures no noise; {consequence}",
    )


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


def _lower_median(s: NDArray[np.float64]) -> float:
    """Return the lower of the two middle values of a descending spectrum."""
    return float(s[s.size // 2])


_SCALE = Parameter("scale", 1.0, 0.0, 1000.0, False, "multiplier on tau")
"""Of every rule whose tau comes from the noise: a user who trusts the noise estimate less, or more, says so here."""

_RULES = (
    Rule(
        "dg_hard",
        "DG-Hard",
        "tau = lambda*(beta) sigma sqrt(N), sigma = median(s) / (median_MP(beta) sqrt(N))",
        f"{_DG_HARD}; {_GAVISH_DONOHO}",
        (_SCALE,),
        True,
        lambda noise, _: optimal_threshold(noise.sigma, noise.shape),
    ),
    Rule(
        "reference",
        "DG-Hard, reference code's median",
        "as dg_hard, with the lower of the two middle singular values as the median",
        f"{_DG_HARD}, released code",
        (_SCALE,),
        True,
        lambda noise, _: optimal_threshold(noise.sigma, noise.shape),
        _lower_median,
    ),
    Rule(
        "mp_edge",
        "Marchenko-Pastur edge",
        "tau = sigma sqrt(N) (1 + sqrt(beta))",
        "Marchenko & Pastur 1967, doi 10.1070/SM1967v001n04ABEH001994",
        (_SCALE,),
        True,
        lambda noise, _: noise.edge,
    ),
    Rule(
        "energy",
        "Energy fraction",
        "smallest rank whose values hold the given share of sum(s^2)",
        "common practice in truncated SVD; no noise model",
        (Parameter("fraction", 0.9, 0.0, 1.0, False, "share of the energy to keep"),),
        False,
        lambda noise, params: _fixed_rank_tau(noise.s, _energy_rank(noise.s, params["fraction"])),
    ),
    Rule(
        "fixed_rank",
        "Fixed rank",
        "keep the first r values",
        "Eckart & Young 1936, doi 10.1007/BF02288367; no noise model",
        (Parameter("rank", 16, 0, 2**31, True, "number of singular values to keep"),),
        False,
        lambda noise, params: _fixed_rank_tau(noise.s, int(params["rank"])),
    ),
    Rule(
        "manual",
        "Manual tau",
        "tau as given",
        "your choice; no noise model",
        (Parameter("tau", None, 0.0, math.inf, False, "threshold on the singular values"),),
        False,
        lambda _, params: params["tau"],
    ),
)

RULES: dict[str, Rule] = {rule.name: rule for rule in _RULES}


def find_rule(name: str) -> Rule:
    """Return the rule of that name.

    Parameters
    ----------
    name : str
        A key of `RULES`.

    Raises
    ------
    ThresholdError
        If there is none, naming those there are.
    """
    if name not in RULES:
        raise ThresholdError(f"no threshold rule {name!r}; there are {', '.join(RULES)}")
    return RULES[name]
