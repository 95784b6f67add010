"""What a threshold rule is, and what it returns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dgviz.errors import DgvizError, ThresholdError
from dgviz.rmt.law import bulk_edge, sigma_from_median, sorted_median
from dgviz.words import near

# A median at or below 64 float32 roundings of s_1 is arithmetic, not noise (LAPACK's own errors are of this size).
DEGENERATE_MEDIAN = 64 * float(np.finfo(np.float32).eps)


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
    whole : bool
        True where the rule is made from that noise as well: it keeps all of the update, and `rank` is the numerical
        one.
    """

    rule: str
    params: Mapping[str, float]
    tau: float
    sigma: float
    edge: float
    rank: int
    warnings: tuple[str, ...] = ()
    degenerate: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Parameter:
    """One number a rule takes, with its range; both ends belong to it."""

    name: str
    default: float | None
    minimum: float
    maximum: float
    integer: bool
    description: str


SCALE = Parameter("scale", 1.0, 0.0, 1000.0, False, "multiplier on tau")
"""Of every rule whose tau comes from the noise: a user who trusts the noise estimate less, or more, says so here."""


@dataclass(frozen=True)
class Noise:
    """The Marchenko-Pastur reading of a spectrum.

    Attributes
    ----------
    s : (p,) float64 array
        Descending.
    shape : (int, int)
        Rows and columns.
    median, sigma, edge : float
        The median singular value, and what it says: as in `Threshold`.
    delta : matrix or None
        The delta, for rules that need it.
    """

    s: NDArray[np.float64]
    shape: tuple[int, int]
    median: float
    sigma: float
    edge: float
    delta: Any = None


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
        What can be set; by default the scale of tau.
    noise_based : bool
        True when tau is made from the noise estimate, so that a degenerate median leaves it without meaning.
    needs_delta : bool
        True when tau cannot be told from the singular values alone.
    note : str
        What to know before choosing it, such as how much of pure noise it keeps.
    """

    name: str
    title: str
    formula: str
    citation: str
    _tau: Callable[[Noise, Mapping[str, float]], float]
    parameters: tuple[Parameter, ...] = (SCALE,)
    noise_based: bool = True
    _median: Callable[[NDArray[np.float64]], float] = sorted_median
    needs_delta: bool = False
    note: str = ""
    _caution: Callable[[NDArray[np.float64], int], str] = lambda s, rank: ""

    def apply(self, s: ArrayLike, shape: Sequence[int], delta: Any = None, **params: float) -> Threshold:
        """Return the threshold this rule sets on a spectrum.

        Parameters
        ----------
        s : (p,) array
            All ``p = min(m, n)`` singular values of the delta, zeros included; any order.
        shape : (int, int)
            Rows and columns ``(m, n)`` of the delta, of which none is zero throughout: see
            `Spectrum.nonzero_shape`.
        delta : matrix, optional
            The delta itself, a numpy array or a tensor, for rules that need more than its spectrum.
        **params : float
            The rule's parameters; those not given take their defaults.

        Returns
        -------
        Threshold
            tau, sigma, edge and the number of values strictly above tau.

        Raises
        ------
        ThresholdError
            If the spectrum does not belong to the shape, a parameter is unknown, missing or out of range, or the
            rule needs the delta and it is not given.

        Examples
        --------
        >>> from dgviz.rmt.threshold import RULES
        >>> RULES["dg_hard"].apply([10.0, 5.0, 2.1, 1.2, 1.1, 1.0, 0.9, 0.8], (8, 8)).rank
        2
        """
        if self.needs_delta and delta is None:
            raise ThresholdError(
                f"rule {self.name!r} cannot be told from the singular values; it needs the weights of both sides"
            )
        settings = self.checked(params)
        noise = self._noise(s, shape, delta)
        return self._result(noise, settings, self._tau(noise, settings))

    def apply_at(self, tau: float, s: ArrayLike, shape: Sequence[int], **params: float) -> Threshold:
        """Return the threshold of this rule for a tau that it has found before, where the delta was at hand.

        Parameters
        ----------
        tau : float
            What `apply` found for the same delta and parameters, with a ``scale`` of 1.
        s, shape, **params
            As for `apply`.
        """
        return self._result(self._noise(s, shape), self.checked(params), tau)

    def _noise(self, s: ArrayLike, shape: Sequence[int], delta: Any = None) -> Noise:
        """Return the Marchenko-Pastur reading of a spectrum."""
        values, size = _checked_spectrum(s, shape)
        median = self._median(values)
        sigma = sigma_from_median(median, size)
        return Noise(values, size, median, sigma, bulk_edge(sigma, size), delta)

    def _result(self, noise: Noise, settings: dict[str, float], level: float) -> Threshold:
        """Return the threshold at a level times the scale asked for, with its rank and what a user must know."""
        tau = level * settings.get("scale", 1.0)
        floor = DEGENERATE_MEDIAN * float(noise.s[0])
        degenerate = noise.median <= floor
        whole = degenerate and self.noise_based
        # A rank above the rounding level would count arithmetic, not directions.
        rank = _count_above(noise.s, floor if whole else tau)
        asked = min(int(settings.get("rank", rank)), _count_above(noise.s, 0))
        said = (
            self._no_noise(noise) if degenerate else "",
            # At a scale of 1: whether the rule found a level does not depend on what is made of it.
            self._caution(noise.s, _count_above(noise.s, level)),
            f"{rank} values are kept where {asked} were asked for: those at the cut are equal"
            if rank != asked
            else "",
        )
        warnings = tuple(filter(None, said))
        return Threshold(self.name, settings, tau, noise.sigma, noise.edge, rank, warnings, degenerate, whole)

    def _no_noise(self, noise: Noise) -> str:
        """Return what a user must know of a spectrum whose median is no noise."""
        if noise.s[0] == 0:
            return "the delta is exactly zero: nothing was trained here, nothing to repair"
        numerical_rank = _count_above(noise.s, DEGENERATE_MEDIAN * noise.s[0])
        consequence = "this rule changes nothing here" if self.noise_based else "sigma and edge mean nothing here"
        return (
            f"low-rank delta: only {numerical_rank} of {noise.s.size} singular values are above rounding level, as "
            f"after a merged LoRA, so their median measures no noise; {consequence}"
        )

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
        from dgviz.rmt.threshold.rules import RULES

        return checked_parameters(f"rule {self.name!r}", self.parameters, params, others=RULES.values())


def checked_parameters(
    owner: str,
    parameters: Sequence[Parameter],
    given: Mapping[str, Any],
    error: type[DgvizError] = ThresholdError,
    others: Iterable[Any] = (),
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
    others : iterable
        Rules or methods that may have the parameter that this one lacks.

    Raises
    ------
    DgvizError
        Of the type given, if one is unknown, missing, not a number or out of range.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name in given:
        if name not in known:
            found = having(name, {other.name: other for other in others})
            elsewhere = f"; {name} is a parameter of {found}" if found else ""
            takes = ", ".join(known) or "no parameters"
            hint = elsewhere or near(name, known)
            raise error(f"{owner} has no parameter {name!r}; it takes {takes}{hint}")
    return {name: _checked_value(owner, parameter, given.get(name), error) for name, parameter in known.items()}


def having(name: str, registry: Mapping[str, Any]) -> str:
    """Return the names of the rules or methods that have a parameter.

    Parameters
    ----------
    name : str
        The parameter.
    registry : mapping
        `RULES`, or the methods.
    """
    return ", ".join(key for key, item in registry.items() if any(name == own.name for own in item.parameters))


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
    fits = np.isfinite(values) & (values >= 0)
    if not fits.all():
        bad = int(np.argmin(fits))
        raise ThresholdError(f"singular values must be finite and >= 0; value {bad} is {values[bad]}")
    return np.sort(values)[::-1], size


def _count_above(s: NDArray[np.float64], level: float) -> int:
    """Return how many singular values lie strictly above a level."""
    return int(np.count_nonzero(s > level))
