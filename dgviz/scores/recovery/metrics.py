"""The metrics of recovery, each with its definition, over one population of scores or many resampled ones.

Sources: arXiv 2605.20296 (the tables named below). Where the paper is silent the choice is said in the definition.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgviz.scores.recovery.partition import CHANGES, part_scores

Array = NDArray[np.float64]
_may_be_undefined = np.errstate(invalid="ignore", divide="ignore")


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


COMBINATIONS: Mapping[str, Callable[[Array, Array], Array]] = {
    "harmonic": lambda a, b: 2 * a * b / (a + b),
    "geometric": lambda a, b: np.sqrt(a * b),
    "arithmetic": lambda a, b: (a + b) / 2,
}
"""How two sides become one figure; the paper says harmonic means. A side that is not positive gives 0 in all."""


@_may_be_undefined
def combine(a: Array, b: Array, combination: str = "harmonic") -> Array:
    """Return the mean of two sides: 0 where one is not positive, the other where one is undefined."""
    both = np.where((a > 0) & (b > 0), COMBINATIONS[combination](a, b), 0.0)
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, both))


@dataclass(frozen=True)
class Population:
    """Scores of E benchmarks, all held-out or all on-task, once or in R resampled versions.

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
    """

    base: Array
    tuned: Array
    repaired: Array
    sign: Array
    limit: Array
    weight: NDArray[np.float32]

    def parts(self) -> dict[str, NDArray[np.bool_]]:
        """Return which benchmarks are damaged, improved and unchanged, as (R, E) masks."""
        return part_scores(self.base, self.tuned, self.sign, self.limit)

    def change(self, part: str) -> tuple[Array, Array]:
        """Return numerator and denominator of % healed or % preserved of every benchmark, whatever its part."""
        start, end = (getattr(self, role) for role in CHANGES[part])
        return self.sign * (self.repaired - start), self.sign * (end - start)

    def ratio(self, reference: Array) -> tuple[Array, Array]:
        """Return numerator and denominator of 100 r / reference; turned over where lower is better."""
        r, higher = self.repaired, self.sign > 0
        sane = (r > 0) & (reference > 0) | (r == 0) & (reference > 0) & higher
        top, bottom = np.where(higher, r, reference), np.where(higher, reference, r)
        return np.where(sane, top, np.nan), np.where(sane, bottom, np.nan)


def _sides(held_out: Population, on_task: Population) -> dict[str, tuple[Array, Array, Array]]:
    """Return numerators, denominators and weights, (R, E), of what all metrics are made of."""
    parts, weight = held_out.parts(), held_out.weight.sum(axis=1)
    kept = held_out.ratio(held_out.base)
    return {
        "healed": (*held_out.change("damaged"), parts["damaged"] * weight),
        "preserved": (*held_out.change("improved"), parts["improved"] * weight),
        "non_damage": (*kept, parts["unchanged"] * weight),
        "of_base": (*kept, weight),
        "on_task_retention": (*on_task.ratio(on_task.tuned), on_task.weight.sum(axis=1)),
    }


def compute_metrics(held_out: Population, on_task: Population, average: str, combination: str) -> dict[str, Array]:
    """Return every metric of `METRICS`, NaN where it is undefined."""
    found = {name: _average(*side, average) for name, side in _sides(held_out, on_task).items()}
    found["clean_up"] = combine(found["healed"], found["non_damage"], combination)
    found["retention"] = combine(found["preserved"], found["on_task_retention"], combination)
    found["combined_population"] = combine(found["clean_up"], found["retention"], combination)
    found["combined_cell"] = _nan_mean(combined_by_place(held_out))
    found["balance"] = combine(found["of_base"], found["on_task_retention"])
    return found


def count_scores(held_out: Population, on_task: Population) -> dict[str, int]:
    """Return how many scores enter each metric; of `combined_cell`, how many cells."""
    sides = _sides(held_out, on_task)
    n = {name: int((np.isfinite(top) & (weight > 0)).sum()) for name, (top, _, weight) in sides.items()}
    n["clean_up"] = n["healed"] + n["non_damage"]
    n["retention"] = n["preserved"] + n["on_task_retention"]
    n["combined_population"] = n["clean_up"] + n["retention"]
    n["combined_cell"] = int((held_out.weight.sum(axis=2) > 0).sum())
    n["balance"] = n["of_base"] + n["on_task_retention"]
    return n


@_may_be_undefined
def combined_by_place(held_out: Population) -> Array:
    """Return the harmonic mean of clipped % healed and % preserved of every drawn cell, (R, S)."""
    parts, sides = held_out.parts(), []
    for part in CHANGES:
        top, bottom = held_out.change(part)
        total = _over_benchmarks(held_out.weight, np.where(parts[part], np.clip(100 * top / bottom, 0, 100), 0.0))
        count = _over_benchmarks(held_out.weight, parts[part])
        sides.append(np.where(count > 0, total / count, 100.0))
    return np.where(held_out.weight.sum(axis=2) > 0, combine(*sides), np.nan)


def _over_benchmarks(weight: NDArray[np.float32], values: Array) -> Array:
    """Return the weighted sums over benchmarks, (R, S)."""
    return np.matmul(weight, values[:, :, None].astype(np.float64))[:, :, 0]


@_may_be_undefined
def _average(top: Array, bottom: Array, weight: Array, average: str) -> Array:
    """Return 100 top / bottom averaged with weights over the last axis; NaN where nothing has weight."""
    weight = np.where(np.isnan(top) | np.isnan(bottom), 0.0, weight)
    if average == "pooled":
        return 100 * np.nansum(weight * top, axis=-1) / np.nansum(weight * bottom, axis=-1)
    return 100 * np.nansum(np.where(weight > 0, weight * top / bottom, 0.0), axis=-1) / weight.sum(axis=-1)


@_may_be_undefined
def _nan_mean(values: Array) -> Array:
    return np.nansum(values, axis=-1) / np.isfinite(values).sum(axis=-1)
