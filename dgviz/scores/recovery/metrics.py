"""The metrics of recovery, each with its definition, over one population of scores or many resampled ones.

Sources: arXiv 2605.20296 (the tables named below). Where the paper is silent the choice is said in the definition.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgviz.scores.recovery.partition import ROUNDING

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One figure of the table.

    Attributes
    ----------
    name, title : str
        Key in JSON, and heading.
    definition : str
        In words, with the formula; b, t, r are the scores of base, tuned and repaired.
    """

    name: str
    title: str
    definition: str


_ALL = (
    Metric("healed", "% healed", "100 (r - t) / (b - t), averaged over the damaged benchmarks; 100 is back at base"),
    Metric(
        "preserved", "% preserved", "100 (r - b) / (t - b), averaged over the improved benchmarks; 100 is at tuned"
    ),
    Metric("non_damage", "Non-damage", "100 r / b, averaged over the unchanged benchmarks"),
    Metric("on_task_retention", "On-task retention", "100 r / t on the on-task benchmark, averaged over cells"),
    Metric(
        "clean_up",
        "Clean-up",
        "{combination} mean of % healed and non-damage; a side with no benchmark is left out",
    ),
    Metric(
        "retention",
        "Retention",
        "{combination} mean of % preserved and on-task retention; a side with no benchmark is left out",
    ),
    Metric(
        "combined_population",
        "Combined (population)",
        "{combination} mean of Clean-up and Retention, nothing clipped, 0 where a side is not positive "
        "(Tables 1 and 11 to 13)",
    ),
    Metric(
        "combined_cell",
        "Combined (per cell)",
        "harmonic mean of % healed and % preserved of each cell, every benchmark's percentage clipped to 0 to 100 "
        "before averaging, a side with no benchmark counting 100; averaged over cells (Tables 14 and 15)",
    ),
    Metric(
        "balance",
        "Balance",
        "harmonic mean of 100 r / b, averaged over all held-out benchmarks, and on-task retention (Table 10)",
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}

AVERAGES = {
    "mean": "the mean of the benchmarks' percentages",
    "pooled": "100 times the sum of numerators over the sum of denominators: large changes weigh more, small "
    "denominators do not explode, and all benchmarks must share one unit",
}
"""How percentages of several benchmarks become one."""


def _harmonic(a: Array, b: Array) -> Array:
    return 2 * a * b / (a + b)


COMBINATIONS: Mapping[str, Callable[[Array, Array], Array]] = {
    "harmonic": _harmonic,
    "geometric": lambda a, b: np.sqrt(a * b),
    "arithmetic": lambda a, b: (a + b) / 2,
}
"""How two sides become one figure; the paper says harmonic means. A side that is not positive gives 0 in all."""


def combine(a: Array, b: Array, combination: str = "harmonic") -> Array:
    """Return the mean of two sides: 0 where one is not positive, the other where one is undefined."""
    with np.errstate(invalid="ignore", divide="ignore"):
        both = np.where((a > 0) & (b > 0), COMBINATIONS[combination](a, b), 0.0)
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, both))


@dataclass(frozen=True)
class Population:
    """Scores of E held-out benchmarks in C cells, once or in R resampled versions.

    Attributes
    ----------
    base, tuned, repaired : (R, E) arrays
        Scores.
    sign : (E,) array
        1 where higher is better, else -1.
    limit : (E,) array
        Tolerance.
    weight : (R, S, E) array
        How often every benchmark was drawn in each of S places for a cell.
    task_tuned, task_repaired : (R, C) arrays
        Scores on the cells' own on-task benchmarks; NaN where there is none.
    task_sign : (C,) array
        As `sign`.
    drawn : (R, C) array
        How often every cell was drawn.
    """

    base: Array
    tuned: Array
    repaired: Array
    sign: Array
    limit: Array
    weight: NDArray[np.float32]
    task_tuned: Array
    task_repaired: Array
    task_sign: Array
    drawn: Array


def ratio(repaired: Array, reference: Array, sign: Array) -> tuple[Array, Array]:
    """Return numerator and denominator of 100 r / reference; turned over where lower is better."""
    sane = (repaired > 0) & (reference > 0) | (repaired == 0) & (reference > 0) & (sign > 0)
    top, bottom = np.where(sign > 0, repaired, reference), np.where(sign > 0, reference, repaired)
    return np.where(sane, top, np.nan), np.where(sane, bottom, np.nan)


def parts(population: Population) -> dict[str, NDArray[np.bool_]]:
    """Return which benchmarks are damaged, improved and unchanged, as (R, E) masks."""
    gain = population.sign * (population.tuned - population.base)
    size = np.maximum(np.abs(population.base), np.abs(population.tuned))
    beyond = np.abs(gain) > population.limit + ROUNDING * size
    return {"damaged": beyond & (gain < 0), "improved": beyond & (gain > 0), "unchanged": ~beyond}


def compute_metrics(population: Population, average: str, combination: str) -> dict[str, Array]:
    """Return every metric of `METRICS`, NaN where it is undefined."""
    p, masks = population, parts(population)
    weight = p.weight.sum(axis=1)
    healed = p.sign * (p.repaired - p.tuned), p.sign * (p.base - p.tuned)
    preserved = p.sign * (p.repaired - p.base), p.sign * (p.tuned - p.base)
    kept = ratio(p.repaired, p.base, p.sign)
    on_task = ratio(p.task_repaired, p.task_tuned, p.task_sign)
    sides = {
        "healed": _average(*healed, masks["damaged"] * weight, average),
        "preserved": _average(*preserved, masks["improved"] * weight, average),
        "non_damage": _average(*kept, masks["unchanged"] * weight, average),
        "on_task_retention": _average(*on_task, p.drawn, average),
    }
    clean_up = combine(sides["healed"], sides["non_damage"], combination)
    retention = combine(sides["preserved"], sides["on_task_retention"], combination)
    return {
        **sides,
        "clean_up": clean_up,
        "retention": retention,
        "combined_population": combine(clean_up, retention, combination),
        "combined_cell": _nan_mean(combined_by_place(population)),
        "balance": combine(_average(*kept, weight, average), sides["on_task_retention"]),
    }


def combined_by_place(population: Population) -> Array:
    """Return the harmonic mean of clipped % healed and % preserved of every drawn cell, (R, S)."""
    p, masks = population, parts(population)
    sides = []
    for mask, reference, start in ((masks["damaged"], p.base, p.tuned), (masks["improved"], p.tuned, p.base)):
        with np.errstate(invalid="ignore", divide="ignore"):
            percent = np.clip(100 * (p.repaired - start) / (reference - start), 0, 100)
        total = _over_benchmarks(p.weight, np.where(mask, percent, 0.0))
        count = _over_benchmarks(p.weight, mask.astype(np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            sides.append(np.where(count > 0, total / count, 100.0))
    return np.where(p.weight.sum(axis=2) > 0, combine(*sides), np.nan)


def _over_benchmarks(weight: NDArray[np.float32], values: Array) -> Array:
    """Return the weighted sums over benchmarks, (R, S)."""
    return np.matmul(weight, values[:, :, None].astype(np.float64))[:, :, 0]


def _average(top: Array, bottom: Array, weight: Array, average: str) -> Array:
    """Return 100 top / bottom averaged with weights over the last axis; NaN where nothing has weight."""
    weight = np.where(np.isnan(top) | np.isnan(bottom), 0.0, weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        if average == "pooled":
            return 100 * _sum(weight * top) / _sum(weight * bottom)
        return 100 * _sum(np.where(weight > 0, weight * top / bottom, 0.0)) / weight.sum(axis=-1)


def _sum(values: Array) -> Array:
    return np.nansum(values, axis=-1)


def _nan_mean(values: Array) -> Array:
    count = np.isfinite(values).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _sum(values) / count
