"""A repair in detail: by size of change, under other tolerances, and beside the two repairs that do nothing."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dgviz.scores import ChosenScores
from dgviz.scores.recovery.partition import PARTS, Comparison, Tolerance, compare_scores
from dgviz.scores.recovery.resample import Resampler
from dgviz.scores.recovery.study import Study

SIZES = (0.0, 5.0, 10.0, 25.0, 50.0, float("inf"))
"""Bounds of the size of a change, in percent of the base's score."""
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
    low, high : float
        Bounds of the change in percent of base's score, the upper one included.
    n : int
        How many benchmarks.
    change : float
        Mean of t - b, in units of the score.
    percent : float
        Mean of % healed or % preserved.
    """

    part: str
    low: float
    high: float
    n: int
    change: float
    percent: float


def with_controls(item: Comparison) -> Comparison:
    """Return a comparison with reverting and keeping among the repairs."""
    return replace(item, repaired={**item.repaired, **{k: getattr(item, role) for k, role in CONTROLS.items()}})


def compute_sizes(comparisons: Sequence[Comparison], label: str) -> tuple[SizeBin, ...]:
    """Return % healed and % preserved by size of change, relative to base (the paper's Table 2)."""
    result = []
    for part, start, end in (("damaged", "tuned", "base"), ("improved", "base", "tuned")):
        members = [item for item in comparisons if item.part == part]
        sizes = [100 * abs(i.gain) / abs(i.base.value) if i.base.value else float("inf") for i in members]
        for low, high in itertools.pairwise(SIZES):
            inside = [item for item, size in zip(members, sizes, strict=True) if low < size <= high]
            percents = []
            for item in inside:
                first, last = getattr(item, start).value, getattr(item, end).value
                percents.append(100 * (item.repaired[label].value - first) / (last - first))
            if inside:
                change = float(np.mean([item.tuned.value - item.base.value for item in inside]))
                result.append(SizeBin(part, low, high, len(inside), change, float(np.mean(percents))))
    return tuple(result)


def iter_variants(
    study: Study, chosen: ChosenScores, tolerance: Tolerance, comparisons: Sequence[Comparison]
) -> Iterator[tuple[Tolerance, list[Comparison]]]:
    """Yield the comparisons under other tolerances, with the standard errors and without them."""
    unit = tolerance if tolerance.value or any(tolerance.of.values()) else Tolerance(z=tolerance.z)
    known = any(item.base.stderr is not None and item.tuned.stderr is not None for item in comparisons)
    for z in (tolerance.z, 0.0) if known and tolerance.z else (tolerance.z,):
        for factor in _FACTORS:
            scaled = unit.scaled(factor, z)
            yield scaled, list(compare_scores(study, chosen, scaled)[0])


def compute_sensitivity(
    tolerance: Tolerance, comparisons: Sequence[Comparison], label: str, average: str, combination: str
) -> dict[str, float | None]:
    """Return the point values of one repair under one tolerance."""
    items = [found for found in map(with_controls, comparisons) if label in found.repaired]
    metrics = Resampler(items, 0, 0).metrics(items, label, average, combination)
    counts = {part: sum(item.part == part for item in items) for part in PARTS}
    return {"tolerance": tolerance.value, "z": tolerance.z, **counts, **{k: v.value for k, v in metrics.items()}}
