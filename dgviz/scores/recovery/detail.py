"""A repair in detail: by size of change, under other tolerances, and beside the two repairs that do nothing."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dgviz.scores import ChosenScores
from dgviz.scores.recovery.partition import CHANGES, Comparison, Tolerance, compare_scores, count_parts
from dgviz.scores.recovery.resample import Resampler
from dgviz.scores.recovery.study import Study

SIZES = {
    "up to 5 %": (0, 5),
    "5 to 10 %": (5, 10),
    "10 to 25 %": (10, 25),
    "25 to 50 %": (25, 50),
    "over 50 %": (50, math.inf),
}
"""Bounds of the size of a change, in percent of the base's score, the upper one included."""
CONTROLS = {"revert to base": "base", "keep tuned": "tuned"}
"""Repairs that do nothing of use, scored as such: a metric that praises one of them says nothing."""
_FACTORS = (0.0, 0.5, 1.0, 2.0, 4.0)  # of the tolerance


@dataclass(frozen=True)
class SizeBin:
    """Damaged or improved benchmarks whose change lies within two bounds.

    Attributes
    ----------
    part : str
        ``damaged`` or ``improved``.
    percent_of_base : str
        Which size, one of `SIZES` or of a study's own.
    n : int
        How many benchmarks.
    mean_change : float
        Mean of t - b, in units of the score.
    percent : float
        Mean of % healed or % preserved.
    """

    part: str
    percent_of_base: str
    n: int
    mean_change: float
    percent: float


def with_controls(item: Comparison) -> Comparison:
    """Return a comparison with reverting and keeping among the repairs."""
    return replace(item, repaired={**item.repaired, **{k: getattr(item, role) for k, role in CONTROLS.items()}})


def compute_sizes(
    comparisons: Sequence[Comparison], label: str, bounds: Mapping[str, tuple[float, float]] = SIZES
) -> tuple[SizeBin, ...]:
    """Return % healed and % preserved by size of change, relative to base (the paper's Table 2)."""
    result = []
    for part in CHANGES:
        members = [item for item in comparisons if item.part == part]
        sizes = [100 * abs(i.gain) / abs(i.base.value) if i.base.value else math.inf for i in members]
        for words, (low, high) in bounds.items():
            inside = [item for item, size in zip(members, sizes, strict=True) if low < size <= high]
            if inside:
                change = np.mean([item.tuned.value - item.base.value for item in inside])
                percent = np.mean([item.percent(label) for item in inside])
                result.append(SizeBin(part, words, len(inside), float(change), float(percent)))
    return tuple(result)


def iter_variants(
    study: Study, chosen: ChosenScores, tolerance: Tolerance, comparisons: Sequence[Comparison]
) -> Iterator[tuple[Tolerance, list[Comparison]]]:
    """Yield the comparisons, controls among them, under other tolerances, with the standard errors and without."""
    unit = tolerance if tolerance.value or any(tolerance.of.values()) else Tolerance(z=tolerance.z)
    known = any(item.base.stderr is not None and item.tuned.stderr is not None for item in comparisons)
    for z in (tolerance.z, 0.0) if known and tolerance.z else (tolerance.z,):
        for factor in _FACTORS:
            scaled = unit.scaled(factor, z)
            yield scaled, list(map(with_controls, compare_scores(study, chosen, scaled)[0]))


def compute_sensitivity(
    tolerance: Tolerance, comparisons: Sequence[Comparison], label: str, average: str, combination: str
) -> dict[str, float | None]:
    """Return the point values of one repair under one tolerance."""
    items = [item for item in comparisons if label in item.repaired]
    metrics = Resampler(items, average, combination).metrics(items, label)
    values = {name: found.value for name, found in metrics.items()}
    return {"tolerance": tolerance.value, "z": tolerance.z, **count_parts(items), **values}
