"""What fine-tuning did to every held-out benchmark: damaged, improved or unchanged, within a stated tolerance."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from dgviz.errors import ScoresError
from dgviz.scores import ChosenScores, Score
from dgviz.scores.recovery.study import Cell, Study

PARTS = ("damaged", "improved", "unchanged")
CHANGES = {"damaged": ("tuned", "base"), "improved": ("base", "tuned")}
"""Of the parts that fine-tuning changed, the scores at which a repair has 0 % and 100 %."""
_ROUNDING = 1e-9  # of the larger score: two decimals that differ by less are the same number


@dataclass(frozen=True)
class Tolerance:
    """How far tuned may be from base and still count as unchanged; the paper does not state its own.

    Attributes
    ----------
    value : float
        In units of the score.
    of : mapping of benchmark to float
        Other tolerances, where benchmarks have other units.
    z : float
        The tolerance is at least this many standard errors of the difference, where both scores have one.
    """

    value: float = 0.01
    of: Mapping[str, float] = field(default_factory=dict)
    z: float = 1.96

    def __post_init__(self) -> None:
        for name, number in (("tolerance", self.value), ("z", self.z), *self.of.items()):
            if not (math.isfinite(number) and number >= 0):
                raise ScoresError(f"the tolerance {name} is {number}: give a number from 0 on")

    def limit(self, benchmark: str, base: Score, tuned: Score) -> float:
        """Return the largest difference that counts as none.

        Parameters
        ----------
        benchmark : str
            Whose scores they are.
        base, tuned : Score
            The two that are compared. Their errors are taken as independent; of models scored on the same examples
            they are not, and the true error of the difference is smaller.
        """
        stated = self.of.get(benchmark, self.value)
        if base.stderr is None or tuned.stderr is None:
            return stated
        return max(stated, self.z * math.hypot(base.stderr, tuned.stderr))

    def scaled(self, factor: float, z: float) -> "Tolerance":
        """Return every stated tolerance multiplied, with another number of standard errors.

        Parameters
        ----------
        factor, z : float
            Not negative.
        """
        return Tolerance(self.value * factor, {name: value * factor for name, value in self.of.items()}, z)


@dataclass(frozen=True)
class Comparison:
    """One benchmark in one cell.

    Attributes
    ----------
    cell, benchmark, metric : str
        What was scored.
    on_task : bool
        Whether fine-tuning was for it; it belongs to no part then.
    higher_is_better : bool
        Otherwise differences change their sign and ratios are turned over.
    base, tuned : Score
        Before and after fine-tuning.
    repaired : mapping of label to Score
        Only of repairs that were scored on it.
    limit : float
        The tolerance that applied.
    """

    cell: str
    benchmark: str
    metric: str
    on_task: bool
    higher_is_better: bool
    base: Score
    tuned: Score
    repaired: Mapping[str, Score]
    limit: float

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1."""
        return 1 if self.higher_is_better else -1

    @property
    def gain(self) -> float:
        """What fine-tuning gained, positive for better, in units of the score."""
        return self.sign * (self.tuned.value - self.base.value)

    @cached_property
    def part(self) -> str:
        """``damaged``, ``improved`` or ``unchanged``; ``on_task`` of the on-task benchmark."""
        if self.on_task:
            return "on_task"
        found = part_scores(self.base.value, self.tuned.value, self.sign, self.limit)
        return next(part for part, member in found.items() if member)

    def percent(self, label: str) -> float | None:
        """Return % healed or % preserved by a repair; None where the benchmark is neither damaged nor improved.

        Parameters
        ----------
        label : str
            One of `repaired`.
        """
        if self.part not in CHANGES:
            return None
        start, end = (getattr(self, role).value for role in CHANGES[self.part])
        return 100 * (self.repaired[label].value - start) / (end - start)


def part_scores(base: ArrayLike, tuned: ArrayLike, sign: ArrayLike, limit: ArrayLike) -> dict[str, np.ndarray]:
    """Return which benchmarks belong to each of `PARTS`, as masks of the shape of the scores."""
    gain = sign * (tuned - base)
    beyond = np.abs(gain) > limit + _ROUNDING * np.maximum(np.abs(base), np.abs(tuned))
    return {"damaged": beyond & (gain < 0), "improved": beyond & (gain > 0), "unchanged": ~beyond}


def count_parts(comparisons: Iterable[Comparison]) -> dict[str, int]:
    """Return how many held-out benchmarks belong to each of `PARTS`."""
    counts = Counter(item.part for item in comparisons)
    return {part: counts[part] for part in PARTS}


def compare_scores(
    study: Study, chosen: ChosenScores, tolerance: Tolerance
) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    """Return every benchmark of every cell with its part, and the scores that are missing, in words.

    Parameters
    ----------
    study : Study
        What belongs together.
    chosen : ChosenScores
        One score per model and benchmark; of a cell, those of the cell, else those that name no cell.
    tolerance : Tolerance
        What counts as unchanged.

    Raises
    ------
    ScoresError
        If no held-out benchmark has been scored for both base and tuned, or a tolerance names an unknown benchmark.
    """
    unknown = [name for name in tolerance.of if name not in chosen.metrics]
    if unknown:
        raise ScoresError(f"no benchmark {unknown[0]!r} to give a tolerance; there are {', '.join(chosen.metrics)}")
    found, missing = [], list(chosen.missing)
    for cell in study.cells:
        found += _compare_cell(cell, planned_benchmarks(cell, study, chosen), study, chosen, tolerance, missing)
    if all(item.on_task for item in found):
        raise ScoresError(
            "no benchmark beside the on-task one has a score of both base and tuned; "
            + (f"missing: {'; '.join(missing[:5])}" if missing else "score the models on held-out benchmarks too")
        )
    return tuple(found), tuple(dict.fromkeys(missing))


def compare_axes(
    study: Study, chosen: ChosenScores, tolerance: Tolerance
) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    """Return every safety axis of every cell, as `compare_scores` returns benchmarks, and what is missing."""
    found, missing = [], []
    for cell in study.cells:
        found += _compare_cell(cell, study.design.axes, study, chosen, tolerance, missing)
    return tuple(found), tuple(dict.fromkeys(missing))


def planned_benchmarks(cell: Cell, study: Study, chosen: ChosenScores) -> list[str]:
    """Return the held-out benchmarks of a cell and its on-task one: those planned, else all that were scored."""
    if study.design.benchmarks:
        return list(dict.fromkeys([*study.design.benchmarks, *filter(None, [cell.on_task])]))
    return [name for name in chosen.metrics if name not in study.design.axes]


def score_of(chosen: ChosenScores, cell: Cell, model: str, benchmark: str) -> Score | None:
    """Return a model's score in a cell, else the one that names no cell."""
    return chosen.scores.get((cell.name, model, benchmark)) or chosen.scores.get(("", model, benchmark))


def _compare_cell(
    cell: Cell,
    benchmarks: Iterable[str],
    study: Study,
    chosen: ChosenScores,
    tolerance: Tolerance,
    missing: list[str],
) -> Iterator[Comparison]:
    """Yield the benchmarks of a cell; what lacks a score is added to `missing`."""
    for benchmark in benchmarks:
        models = cell.base, cell.tuned, *cell.repaired.values()
        scores = [score_of(chosen, cell, model, benchmark) for model in models]
        if not (any(scores) or study.design.benchmarks):
            continue
        where = f" in cell {cell.name}" if len(study.cells) > 1 else ""
        missing += [
            f"{model} on {benchmark}{where}" for model, score in zip(models, scores, strict=True) if not score
        ]
        base, tuned, *repaired = scores
        if base and tuned:
            yield Comparison(
                cell=cell.name,
                benchmark=benchmark,
                metric=chosen.metrics[benchmark],
                on_task=benchmark == cell.on_task,
                higher_is_better=is_higher_better(benchmark, scores, study),
                base=base,
                tuned=tuned,
                repaired={label: score for label, score in zip(cell.repaired, repaired, strict=True) if score},
                limit=tolerance.limit(benchmark, base, tuned),
            )


def is_higher_better(benchmark: str, scores: Iterable[Score | None], study: Study) -> bool:
    """Return whether higher is better; what was declared goes before what files say."""
    if benchmark in study.lower_is_better:
        return False
    said = {score.higher_is_better for score in scores if score} - {None}
    if len(said) > 1:
        raise ScoresError(f"files disagree on whether higher is better of {benchmark}: declare that lower is better")
    return said.pop() if said else True
