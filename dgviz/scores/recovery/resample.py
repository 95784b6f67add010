"""Point estimates and bootstrap intervals of the metrics of one repair over a set of comparisons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgviz.scores import Score
from dgviz.scores.recovery.metrics import METRICS, Population, combined_by_place, compute_metrics, parts, ratio
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
    undefined : float
        Share of the replicates in which the metric was undefined; the interval is over the others.
    """

    value: float | None
    n: int
    interval: tuple[float, float] | None
    undefined: float = 0.0


class Resampler:
    """Draws cells, benchmarks and scores once, so that all repairs and cohorts meet the same replicates."""

    def __init__(self, comparisons: Sequence[Comparison], replicates: int, seed: int) -> None:
        self.replicates, self.seed = replicates, seed
        draws = np.random.default_rng([seed, 0])
        self._noise: dict[Score, NDArray[np.float64]] = {}
        for item in comparisons:
            for score in (item.base, item.tuned, *item.repaired.values()):
                if score.stderr and score not in self._noise:
                    self._noise[score] = score.stderr * draws.standard_normal(replicates)

    def metrics(
        self, comparisons: Sequence[Comparison], label: str, average: str, combination: str
    ) -> dict[str, MetricValue]:
        """Return every metric of one repair over some of the comparisons."""
        point, resampled = self._populations(comparisons, label)
        values = {name: float(found[0]) for name, found in compute_metrics(point, average, combination).items()}
        spread = compute_metrics(resampled, average, combination) if resampled is not None else {}
        counts = _counts(point)
        several = self._varies(comparisons, label)
        result = {}
        for name in METRICS:
            value, n = values[name], counts[name]
            interval, undefined = None, 0.0
            if np.isfinite(value) and name in spread and (several or n > 1):
                known = spread[name][np.isfinite(spread[name])]
                undefined = 1 - known.size / self.replicates
                low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if known.size else (np.nan,) * 2
                interval = (float(low), float(high)) if known.size else None
            result[name] = MetricValue(value if np.isfinite(value) else None, n, interval, undefined)
        return result

    def by_cell(self, comparisons: Sequence[Comparison], label: str) -> dict[str, float | None]:
        """Return `combined_cell` of every cell by itself."""
        point, _ = self._populations(comparisons, label, resample=False)
        values = combined_by_place(point)[0]
        names = _cells(comparisons, label)
        return {name: float(v) if np.isfinite(v) else None for name, v in zip(names, values, strict=True)}

    def _varies(self, comparisons: Sequence[Comparison], label: str) -> bool:
        """Return whether any score that enters has a standard error."""
        there = [item for item in comparisons if label in item.repaired]
        return any(score in self._noise for item in there for score in (item.base, item.tuned, item.repaired[label]))

    def _drawn(self, score: Score) -> NDArray[np.float64]:
        """Return a score in every replicate."""
        return score.value + self._noise.get(score, np.zeros(self.replicates))

    def _populations(
        self, comparisons: Sequence[Comparison], label: str, resample: bool = True
    ) -> tuple[Population, Population | None]:
        """Return the scores as they are, and resampled."""
        there = [item for item in comparisons if label in item.repaired]
        cells = _cells(comparisons, label)
        held_out = [item for item in there if not item.on_task]
        of_cell = np.array([cells.index(item.cell) for item in held_out], dtype=np.int64)
        tasks = {item.cell: item for item in there if item.on_task}
        sign = np.array([1.0 if item.higher_is_better else -1.0 for item in held_out])
        limit = np.array([item.limit for item in held_out])
        task_sign = np.array([-1.0 if c in tasks and not tasks[c].higher_is_better else 1.0 for c in cells])

        def population(
            value: Callable[[Score], NDArray[np.float64]], weight: NDArray[np.float32], drawn: NDArray[np.float64]
        ) -> Population:
            rows = len(drawn)
            nothing = np.full(rows, np.nan)
            task = [tasks.get(cell) for cell in cells]
            return Population(
                base=_columns([value(item.base) for item in held_out], rows),
                tuned=_columns([value(item.tuned) for item in held_out], rows),
                repaired=_columns([value(item.repaired[label]) for item in held_out], rows),
                sign=sign,
                limit=limit,
                weight=weight,
                task_tuned=_columns([value(item.tuned) if item else nothing for item in task], rows),
                task_repaired=_columns([value(item.repaired[label]) if item else nothing for item in task], rows),
                task_sign=task_sign,
                drawn=drawn,
            )

        own = (of_cell[None, :] == np.arange(len(cells))[:, None]).astype(np.float32)
        point = population(lambda score: np.array([score.value]), own[None], np.ones((1, len(cells))))
        if not (resample and self.replicates):
            return point, None
        weight, drawn = self._draw(own)
        return point, population(self._drawn, weight, drawn)

    def _draw(self, own: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return how often each benchmark was drawn in each place, (R, C, E), and each cell, (R, C)."""
        cells = len(own)
        draws = np.random.default_rng([self.seed, 1])
        places = (
            draws.integers(cells, size=(self.replicates, cells)) if cells else np.zeros((self.replicates, 0), int)
        )
        weight = np.zeros((self.replicates, *own.shape), dtype=np.float32)
        for cell in range(cells):
            members = np.flatnonzero(own[cell])
            if not members.size:
                continue
            # A lone cell is not drawn but always there: integers(1) is 0.
            rows, slots = np.nonzero(places == cell)
            picked = draws.multinomial(members.size, np.full(members.size, 1 / members.size), size=rows.size)
            weight[rows[:, None], slots[:, None], members] = picked
        drawn = (places[:, :, None] == np.arange(cells)).sum(axis=1).astype(np.float64)
        return weight, drawn


def _columns(values: list[NDArray[np.float64]], rows: int) -> NDArray[np.float64]:
    return np.stack(values, axis=1) if values else np.zeros((rows, 0))


def _cells(comparisons: Sequence[Comparison], label: str) -> list[str]:
    """Return the cells a repair was scored in."""
    return list(dict.fromkeys(item.cell for item in comparisons if label in item.repaired))


def _counts(point: Population) -> dict[str, int]:
    """Return how many scores enter each metric."""
    masks = {name: mask[0] for name, mask in parts(point).items()}
    usable = np.isfinite(ratio(point.repaired, point.base, point.sign)[0][0])
    damaged, improved = int(masks["damaged"].sum()), int(masks["improved"].sum())
    unchanged = int((masks["unchanged"] & usable).sum())
    tasks = int(np.isfinite(ratio(point.task_repaired, point.task_tuned, point.task_sign)[0]).sum())
    return {
        "healed": damaged,
        "preserved": improved,
        "non_damage": unchanged,
        "on_task_retention": tasks,
        "clean_up": damaged + unchanged,
        "retention": improved + tasks,
        "combined_population": damaged + unchanged + improved + tasks,
        "combined_cell": int((point.weight.sum(axis=2) > 0).sum()),
        "balance": int(usable.sum()) + tasks,
    }
