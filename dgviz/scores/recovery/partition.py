"""What fine-tuning did to every held-out benchmark: damaged, improved or unchanged, within a stated tolerance."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dgviz.errors import ScoresError
from dgviz.scores import ChosenScores, Score
from dgviz.scores.recovery.study import Cell, Study

PARTS = ("damaged", "improved", "unchanged")
ROUNDING = 1e-9  # of the larger score: two decimals that differ by less are the same number


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
    part : str
        ``damaged``, ``improved`` or ``unchanged``; ``on_task`` of the on-task benchmark.
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
    part: str

    @property
    def gain(self) -> float:
        """What fine-tuning gained, positive for better, in units of the score."""
        return (self.tuned.value - self.base.value) * (1 if self.higher_is_better else -1)


def part_of(gain: float, limit: float, size: float) -> str:
    """Return the part a benchmark belongs to."""
    if abs(gain) <= limit + ROUNDING * size:
        return "unchanged"
    return "improved" if gain > 0 else "damaged"


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
        found += _compare_cell(cell, study, chosen, tolerance, missing)
    if not any(not item.on_task for item in found):
        raise ScoresError(
            "no benchmark beside the on-task one has a score of both base and tuned; "
            + (f"missing: {'; '.join(missing[:5])}" if missing else "score the models on held-out benchmarks too")
        )
    return tuple(found), tuple(dict.fromkeys(missing))


def _compare_cell(
    cell: Cell, study: Study, chosen: ChosenScores, tolerance: Tolerance, missing: list[str]
) -> Iterator[Comparison]:
    """Yield the benchmarks of a cell; what lacks a score is added to `missing`."""
    for benchmark, metric in chosen.metrics.items():
        models = {"base": cell.base, "tuned": cell.tuned, **{f"repaired {k}": v for k, v in cell.repaired.items()}}
        scores = {role: _score(chosen, cell.name, model, benchmark) for role, model in models.items()}
        if not any(scores.values()):
            continue
        missing += [
            f"{models[role]} on {benchmark}" + (f" in cell {cell.name}" if len(study.cells) > 1 else "")
            for role, score in scores.items()
            if score is None
        ]
        base, tuned = scores.pop("base"), scores.pop("tuned")
        if base is None or tuned is None:
            continue
        higher = _direction(benchmark, [base, tuned, *scores.values()], study)
        limit = tolerance.limit(benchmark, base, tuned)
        gain = (tuned.value - base.value) * (1 if higher else -1)
        on_task = benchmark == cell.on_task
        yield Comparison(
            cell=cell.name,
            benchmark=benchmark,
            metric=metric,
            on_task=on_task,
            higher_is_better=higher,
            base=base,
            tuned=tuned,
            repaired={role.removeprefix("repaired "): score for role, score in scores.items() if score is not None},
            limit=limit,
            part="on_task" if on_task else part_of(gain, limit, max(abs(base.value), abs(tuned.value))),
        )


def _score(chosen: ChosenScores, cell: str, model: str, benchmark: str) -> Score | None:
    return chosen.scores.get((cell, model, benchmark)) or chosen.scores.get(("", model, benchmark))


def _direction(benchmark: str, scores: list[Score | None], study: Study) -> bool:
    """Return whether higher is better; what was declared goes before what files say."""
    if benchmark in study.lower_is_better:
        return False
    said = {score.higher_is_better for score in scores if score is not None and score.higher_is_better is not None}
    if len(said) > 1:
        raise ScoresError(f"files disagree on whether higher is better of {benchmark}: declare that lower is better")
    return said.pop() if said else True
