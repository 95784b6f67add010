"""Point estimates and bootstrap intervals of the metrics of one repair over a set of comparisons."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgviz.scores import Score
from dgviz.scores.recovery.metrics import METRICS, Population, combined_by_place, compute_metrics, count_scores
from dgviz.scores.recovery.partition import Comparison

LEVEL = 0.95
RESAMPLED = (
    "Each replicate draws the cells with replacement (where there are two or more), then within every drawn cell its "
    "held-out benchmarks with replacement; every score with a standard error is drawn anew from a normal "
    "distribution around it, base, tuned and repaired independently of each other; then benchmarks are parted anew "
    "by the same tolerance. Percentile interval, 95 %. Scores of one benchmark on the same examples are in truth "
    "correlated, which makes these intervals wide rather than narrow; benchmarks are taken as a sample of those "
    "that could have been chosen."
)


@dataclass(frozen=True)
class MetricValue:
    """A metric with what it rests on.

    Attributes
    ----------
    value : float or None
        Percent; None where it is undefined.
    n : int
        How many scores of repaired models enter it; of `combined_cell`, how many cells.
    interval : (float, float) or None
        Lower and upper end; None where nothing could be resampled.
    undefined_replicates : float
        Share of the replicates in which the metric was undefined; the interval is over the others.
    """

    value: float | None
    n: int
    interval: tuple[float, float] | None
    undefined_replicates: float = 0.0


class Resampler:
    """Draws cells, benchmarks and scores once, so that all repairs and cohorts meet the same replicates."""

    def __init__(
        self, comparisons: Sequence[Comparison], average: str, combination: str, replicates: int = 0, seed: int = 0
    ) -> None:
        self.average, self.combination, self.replicates, self.seed = average, combination, replicates, seed
        draws = np.random.default_rng([seed, 0])
        self._noise: dict[Score, NDArray[np.float64]] = {}
        for item in comparisons:
            for score in (item.base, item.tuned, *item.repaired.values()):
                if score.stderr and score not in self._noise:
                    self._noise[score] = score.stderr * draws.standard_normal(replicates)

    def metrics(self, comparisons: Sequence[Comparison], label: str) -> dict[str, MetricValue]:
        """Return every metric of one repair over some of the comparisons it was scored in."""
        point = self._populations(comparisons, label, resample=False)
        values, counts = compute_metrics(*point, self.average, self.combination), count_scores(*point)
        spread = {}
        if self.replicates:
            drawn = self._populations(comparisons, label, resample=True)
            spread = compute_metrics(*drawn, self.average, self.combination)
        scores = (score for item in comparisons for score in (item.base, item.tuned, item.repaired[label]))
        varies = any(score in self._noise for score in scores)
        result = {}
        for name in METRICS:
            value, n = float(values[name][0]), counts[name]
            interval, undefined = None, 0.0
            if np.isfinite(value) and name in spread and (varies or n > 1):
                known = spread[name][np.isfinite(spread[name])]
                undefined = 1 - known.size / self.replicates
                if known.size:
                    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
                    interval = float(low), float(high)
            result[name] = MetricValue(value if np.isfinite(value) else None, n, interval, undefined)
        return result

    def by_cell(self, comparisons: Sequence[Comparison], label: str) -> dict[str, float | None]:
        """Return `combined_cell` of every cell by itself."""
        held_out, _ = self._populations(comparisons, label, resample=False)
        values = combined_by_place(held_out)[0]
        return {
            cell: float(value) if np.isfinite(value) else None
            for cell, value in zip(_cells(comparisons), values, strict=True)
        }

    def _populations(
        self, comparisons: Sequence[Comparison], label: str, resample: bool
    ) -> tuple[Population, Population]:
        """Return the held-out and the on-task benchmarks, as they are or resampled."""
        cells = _cells(comparisons)
        held_out, on_task = ([item for item in comparisons if item.on_task is task] for task in (False, True))
        if resample:
            draws = np.random.default_rng([self.seed, 1])
            places = draws.integers(max(1, len(cells)), size=(self.replicates, len(cells)))
            weight = _draw(_members(held_out, cells), places, draws)
        else:
            places = np.arange(len(cells))[None]
            weight = _members(held_out, cells)[places]
        return (
            self._population(held_out, label, weight, resample),
            self._population(on_task, label, _members(on_task, cells)[places], resample),
        )

    def _population(
        self, items: Sequence[Comparison], label: str, weight: NDArray[np.float32], resample: bool
    ) -> Population:
        """Return the scores of benchmarks, each in every replicate."""
        replicates, noise = len(weight), self._noise if resample else {}

        def columns(scores: Iterable[Score]) -> NDArray[np.float64]:
            drawn = [score.value + noise.get(score, np.zeros(replicates)) for score in scores]
            return np.stack(drawn, axis=1) if drawn else np.zeros((replicates, 0))

        return Population(
            base=columns(item.base for item in items),
            tuned=columns(item.tuned for item in items),
            repaired=columns(item.repaired[label] for item in items),
            sign=np.array([item.sign for item in items]),
            limit=np.array([item.limit for item in items]),
            weight=weight,
        )


def _cells(comparisons: Sequence[Comparison]) -> list[str]:
    return list(dict.fromkeys(item.cell for item in comparisons))


def _members(items: Sequence[Comparison], cells: Sequence[str]) -> NDArray[np.float32]:
    """Return which benchmarks belong to which cell, (C, E)."""
    own = np.array([item.cell for item in items], dtype=object)
    return (np.array(cells, dtype=object)[:, None] == own).astype(np.float32)


def _draw(members: NDArray[np.float32], places: NDArray[np.int64], draws: np.random.Generator) -> NDArray[np.float32]:
    """Return how often each benchmark was drawn in each place, (R, S, E), of which (R, S) say the cell."""
    weight = np.zeros((*places.shape, members.shape[1]), dtype=np.float32)
    for cell, own in enumerate(members):
        chosen = np.flatnonzero(own)
        if chosen.size:
            rows, slots = np.nonzero(places == cell)
            picked = draws.multinomial(chosen.size, np.full(chosen.size, 1 / chosen.size), size=rows.size)
            weight[rows[:, None], slots[:, None], chosen] = picked
    return weight
