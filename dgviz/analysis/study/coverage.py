"""Which scores a study has and which it lacks, model by model."""

from collections.abc import Iterable
from dataclasses import dataclass

from dgviz.scores import ChosenScores
from dgviz.scores.recovery import Cell, Study
from dgviz.scores.recovery.partition import planned_benchmarks, score_of


@dataclass(frozen=True)
class Coverage:
    """What was scored of one model of a cell.

    Attributes
    ----------
    cell : str
        Where it stands.
    role : str
        What it is there: ``base``, ``tuned`` or the label of a repair.
    model : str
        Its name.
    there : tuple of str
        Benchmarks and safety axes with a score.
    missing : tuple of str
        Those without.
    """

    cell: str
    role: str
    model: str
    there: tuple[str, ...]
    missing: tuple[str, ...]


def find_coverage(study: Study, chosen: ChosenScores) -> list[Coverage]:
    """Return what was scored of every model of every cell.

    Parameters
    ----------
    study : Study
        What belongs together; one that names its benchmarks says what is missing.
    chosen : ChosenScores
        What there is.
    """
    return [
        _covered(cell, role, model, [*planned_benchmarks(cell, study, chosen), *study.design.axes], chosen)
        for cell in study.cells
        for role, model in {"base": cell.base, "tuned": cell.tuned, **cell.repaired}.items()
    ]


def _covered(cell: Cell, role: str, model: str, wanted: Iterable[str], chosen: ChosenScores) -> Coverage:
    """Return what of some benchmarks was scored of one model."""
    parts: dict[bool, list[str]] = {True: [], False: []}
    for benchmark in wanted:
        parts[score_of(chosen, cell, model, benchmark) is not None].append(benchmark)
    return Coverage(cell.name, role, model, tuple(parts[True]), tuple(parts[False]))
