"""What DG-Hard would do to a pair, foretold from one figure: the share of the update's energy that it drops."""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dgviz.forecast.fit import INTERVAL, LeftOut, MonotoneFit, fit_monotone, leave_one_out
from dgviz.forecast.table import CalibratedPair, read_pairs

LITTLE, MUCH = 5.0, 80.0
"""Percent of the energy dropped below which almost nothing changes, and above which much of what was learned goes."""
COVERED = 0.7
"""Share of the pairs of every left-out family that the intervals must cover, or no number is given."""
_MOSTLY = 0.9  # of the update's energy that has to be DG-Hard's at its own threshold
_LARGER = 10.0  # times the largest model measured from which on a model is far larger
_FEWEST_PAIRS, _FEWEST_FAMILIES = 30, 4
_KINDS = {
    "ForImageClassification": "image classifiers",
    "ForCausalLM": "language models",
    "LMHeadModel": "language models",
    "ForMaskedLM": "encoders",
}
OUTCOMES = {"healed": "healing", "target_kept": "target kept"}


@dataclass(frozen=True)
class Range:
    """A forecast in percent, with the ends of its 80 % interval.

    Attributes
    ----------
    value : float
        The forecast.
    low, high : float
        Ends of the interval.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.0f} % ({self.low:.0f} to {self.high:.0f})"


@dataclass(frozen=True)
class Forecast:
    """What DG-Hard would do.

    Attributes
    ----------
    dropped : float or None
        Share of the update's energy that the plan drops, in percent; None of an update that is zero.
    healed, target_kept : Range or None
        Of the damage to what base knew, and of the gain on the target; None where `reason` says why.
    reason : str or None
        Why a number is missing.
    sentence : str
        All of it for a person.
    pairs, families : int
        What it is made from.
    """

    dropped: float | None
    healed: Range | None
    target_kept: Range | None
    reason: str | None
    sentence: str
    pairs: int
    families: int

    def to_json(self) -> dict[str, Any]:
        """Return the forecast as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """One outcome over the share dropped: the fit, and what it is worth on families left out."""

    fit: MonotoneFit
    left_out: tuple[LeftOut, ...]
    correlation: float

    @property
    def worst(self) -> LeftOut:
        """The family whose pairs the intervals cover least."""
        return min(self.left_out, key=lambda left: left.covered)

    @property
    def error(self) -> float:
        """Mean absolute error over all pairs, each foretold without its family."""
        return sum(left.pairs * left.error for left in self.left_out) / sum(left.pairs for left in self.left_out)

    @property
    def covered(self) -> float:
        """Share of all pairs within intervals made without their family."""
        return sum(left.pairs * left.covered for left in self.left_out) / sum(left.pairs for left in self.left_out)

    def range_at(self, dropped: float) -> Range:
        """Return the forecast at a share dropped, in percent."""
        low, high = self.fit.interval(dropped)
        return Range(*(round(value, 2) for value in (float(self.fit.predict(dropped)), low, high)))


@dataclass(frozen=True)
class Calibration:
    """Pairs, and what can be foretold from them.

    Attributes
    ----------
    pairs : tuple of CalibratedPair
        All that were measured; only counted ones are fitted.
    """

    pairs: tuple[CalibratedPair, ...]

    @cached_property
    def counted(self) -> list[CalibratedPair]:
        """Pairs whose damage and gain are certain."""
        return [pair for pair in self.pairs if pair.counted]

    @cached_property
    def families(self) -> list[str]:
        """Families of the counted pairs."""
        return list(dict.fromkeys(pair.family for pair in self.counted))

    @cached_property
    def outcomes(self) -> dict[str, Outcome]:
        """The fit of every one of `OUTCOMES`."""
        return {name: self._outcome(name) for name in OUTCOMES}

    def _outcome(self, name: str) -> Outcome:
        values = [getattr(pair.dg_hard, name) for pair in self.counted]
        dropped = [pair.dropped for pair in self.counted]
        y, stderr = [value.value for value in values], [value.stderr for value in values]
        given = dropped, y, stderr, [pair.family for pair in self.counted], name == "healed"
        return Outcome(fit_monotone(*given), leave_one_out(*given), rank_correlation(dropped, y))

    def refusal(self, name: str) -> str:
        """Return why there is no number for an outcome whatever the model; empty where there is one."""
        if len(self.counted) < _FEWEST_PAIRS or len(self.families) < _FEWEST_FAMILIES:
            return (
                f"{len(self.counted)} pairs of {len(self.families)} families were measured, and a number takes "
                f"{_FEWEST_PAIRS} of {_FEWEST_FAMILIES}"
            )
        worst = self.outcomes[name].worst
        if worst.covered >= COVERED:
            return ""
        return (
            f"the {100 * INTERVAL:.0f} % range of {OUTCOMES[name]} held only {100 * worst.covered:.0f} % of the "
            f"{worst.pairs} {worst.family} when these were left out"
        )


@functools.cache
def calibration() -> Calibration:
    """Return the calibration that comes with the package."""
    return Calibration(read_pairs())


@dataclass(frozen=True)
class UpdateShare:
    """What a plan does to the update of one matrix.

    Attributes
    ----------
    energy, dropped : float
        Square of its norm, and of that what the plan drops.
    calibrated : bool
        Whether the plan is DG-Hard with its own settings here.
    """

    energy: float
    dropped: float
    calibrated: bool


def foretell(
    updates: Iterable[UpdateShare],
    parameters: int,
    config: Mapping[str, Any],
    measured: Calibration | None = None,
) -> Forecast:
    """Return what a plan would heal and keep.

    Parameters
    ----------
    updates : iterable of UpdateShare
        All matrices that a repair may change.
    parameters : int
        Of the model.
    config : mapping
        Its ``config.json``.
    measured : Calibration, optional
        By default the one that comes with the package.
    """
    measured, known = measured or calibration(), list(updates)
    energy = math.fsum(update.energy for update in known)
    if energy <= 0:
        return _without(measured, None, "fine-tuning changed no matrix")
    dropped = 100 * math.fsum(update.dropped for update in known) / energy
    own = math.fsum(update.energy for update in known if update.calibrated) / energy
    if own < _MOSTLY:
        return _without(
            measured,
            dropped,
            f"the plan is DG-Hard at its own threshold for {100 * own:.0f} % of the update's energy only, and "
            "nothing else was calibrated",
        )
    larger = parameters / max((pair.parameters for pair in measured.pairs), default=1)
    if larger > _LARGER:
        return _without(measured, dropped, f"this is known from models {_times(larger)} times smaller")
    kind = next((kind for end, kind in _KINDS.items() for name in _names(config) if name.endswith(end)), None)
    if kind is None:
        found = ", ".join(_names(config)) or "a model whose config.json names no architecture"
        return _without(measured, dropped, f"{', '.join(measured.families)} were measured, and this is {found}")
    refusals = {name: measured.refusal(name) for name in OUTCOMES}
    ranges = {name: None if refusals[name] else measured.outcomes[name].range_at(dropped) for name in OUTCOMES}
    reason = "; ".join(dict.fromkeys(filter(None, refusals.values()))) or None
    return _forecast(measured, dropped, ranges, reason)


def _names(config: Mapping[str, Any]) -> Sequence[str]:
    """Return the architectures that a config names."""
    named = config.get("architectures")
    return [str(name) for name in named] if isinstance(named, list) else []


def _without(measured: Calibration, dropped: float | None, reason: str) -> Forecast:
    return _forecast(measured, dropped, dict.fromkeys(OUTCOMES), reason)


def _forecast(
    measured: Calibration, dropped: float | None, ranges: Mapping[str, Range | None], reason: str | None
) -> Forecast:
    """Return a forecast with its sentence."""
    basis = f"{len(measured.counted)} pairs, {len(measured.families)} families"
    parts = [] if dropped is None else [f"{dropped:.1f} % of the update's energy is dropped: {direction(dropped)}"]
    healed, kept = ranges["healed"], ranges["target_kept"]
    told = [f"about {healed} of what was forgotten comes back"] if healed else []
    told += [f"about {kept} of what was learned stays"] if kept else []
    if told:
        words = " and ".join(told)
        parts.append(f"{words[0].upper()}{words[1:]} ({100 * INTERVAL:.0f} % ranges; {basis})")
    if reason:
        missing = [OUTCOMES[name] for name in OUTCOMES if ranges[name] is None]
        parts.append(f"No number for {' and '.join(missing)}: {reason}" + ("" if told else f" ({basis})"))
    return Forecast(
        dropped and round(dropped, 3),
        healed,
        kept,
        reason,
        ". ".join(parts) + ".",
        len(measured.counted),
        len(measured.families),
    )


def direction(dropped: float) -> str:
    """Return in words what dropping so many percent of the update's energy does."""
    if dropped < LITTLE:
        return "almost nothing changes"
    if dropped > MUCH:
        return "much of what was learned goes"
    return "part of what was forgotten comes back, and part of what was learned goes"


def _times(factor: float) -> str:
    """Return a factor in two digits."""
    digits = max(0, math.floor(math.log10(factor)) - 1)
    return f"{round(factor, -digits):,.0f}"


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Spearman's correlation, ties at their mean rank."""
    if len(x) < 2:
        return math.nan
    ranks = [_ranks(np.asarray(values, dtype=np.float64)) for values in (x, y)]
    spread = [own - own.mean() for own in ranks]
    norm = math.sqrt(float((spread[0] ** 2).sum() * (spread[1] ** 2).sum()))
    return float(spread[0] @ spread[1]) / norm if norm > 0 else math.nan


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1, those of equal values at their mean."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group]
