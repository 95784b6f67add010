"""Every repair of a study: its metrics, over everything, by cell and by cohort."""

from collections.abc import Mapping
from dataclasses import dataclass

from dgviz.errors import ScoresError
from dgviz.scores import ChosenScores
from dgviz.scores.recovery.detail import (
    CONTROLS,
    SizeBin,
    compute_sensitivity,
    compute_sizes,
    iter_variants,
    with_controls,
)
from dgviz.scores.recovery.metrics import AVERAGES, COMBINATIONS
from dgviz.scores.recovery.notes import repair_notes, study_notes, unplanned_notes
from dgviz.scores.recovery.partition import Comparison, Tolerance, compare_axes, compare_scores, count_parts
from dgviz.scores.recovery.resample import MetricValue, Resampler
from dgviz.scores.recovery.study import Study


@dataclass(frozen=True)
class Assessment:
    """What is known of one repair.

    Attributes
    ----------
    label : str
        What it is called in every cell.
    models : mapping of cell to model
        The repaired models.
    metrics : mapping of name to MetricValue
        Over everything.
    cells : mapping of cell to float or None
        `combined_cell` of every cell.
    cohorts : mapping of cohort to metrics
        Over the benchmarks or cells of a cohort.
    sizes : tuple of SizeBin
        By size of change; empty bins are left out.
    notes : tuple of str
        What to beware of.
    """

    label: str
    models: Mapping[str, str]
    metrics: Mapping[str, MetricValue]
    cells: Mapping[str, float | None]
    cohorts: Mapping[str, Mapping[str, MetricValue]]
    sizes: tuple[SizeBin, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Recovery:
    """A study, assessed.

    Attributes
    ----------
    study : Study
        What belongs together.
    comparisons : tuple of Comparison
        Every benchmark of every cell.
    tolerance : Tolerance
        What counted as unchanged.
    average, combination : str
        Keys of `AVERAGES` and `COMBINATIONS`.
    replicates, seed : int
        Of the bootstrap.
    repaired, controls : mapping of label to Assessment
        Every repair; and what reverting to base and keeping tuned would get.
    missing, notes : tuple of str
        Scores that are not there, and what to beware of.
    variants : tuple of (Tolerance, list of Comparison)
        Every benchmark under other tolerances.
    chosen : ChosenScores
        What it was assessed from.
    axes : tuple of Comparison
        Every safety axis of every cell; they count in no metric.
    """

    study: Study
    comparisons: tuple[Comparison, ...]
    tolerance: Tolerance
    average: str
    combination: str
    replicates: int
    seed: int
    repaired: Mapping[str, Assessment]
    controls: Mapping[str, Assessment]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    variants: tuple[tuple[Tolerance, list[Comparison]], ...]
    chosen: ChosenScores
    axes: tuple[Comparison, ...]

    def counts(self) -> dict[str, int]:
        """Return how many held-out benchmarks belong to each part."""
        return count_parts(self.comparisons)

    def of_cohort(self, cohort: str) -> tuple[Comparison, ...]:
        """Return the comparisons of a cohort, its on-task ones included.

        Parameters
        ----------
        cohort : str
            One of the study; empty for everything.
        """
        own = self.comparisons
        return tuple(i for i in own if _belongs(i, cohort, self.study, task=True)) if cohort else own

    def is_control(self, label: str) -> bool:
        """Return whether a label names no repair: a control of the study, reverting to base or keeping tuned.

        Parameters
        ----------
        label : str
            Of `repaired` or `controls`.
        """
        return label in self.controls or label in self.study.controls

    def sensitivity(self, label: str) -> tuple[dict[str, float | None], ...]:
        """Return the point values of one repair under other tolerances.

        Parameters
        ----------
        label : str
            Of `repaired` or `controls`.
        """
        settings = label, self.average, self.combination
        return tuple(compute_sensitivity(*variant, *settings) for variant in self.variants)

    def cohort_of(self, item: Comparison) -> str:
        """Return the cohorts a comparison belongs to, joined; empty where there is none.

        Parameters
        ----------
        item : Comparison
            One of this study.
        """
        return ", ".join(name for name in self.study.cohorts if _belongs(item, name, self.study))


def assess(
    study: Study,
    chosen: ChosenScores,
    tolerance: Tolerance | None = None,
    *,
    average: str = "mean",
    combination: str = "harmonic",
    replicates: int = 2000,
    seed: int = 0,
) -> Recovery:
    """Return what every repair healed and preserved.

    Parameters
    ----------
    study : Study
        What belongs together.
    chosen : ChosenScores
        One score per model and benchmark.
    tolerance : Tolerance, optional
        What counts as unchanged.
    average, combination : str
        Keys of `AVERAGES` and `COMBINATIONS`.
    replicates, seed : int
        Of the bootstrap; 0 replicates give no intervals.

    Raises
    ------
    ScoresError
        If a benchmark is ambiguous, nothing can be compared, or there is no repaired model.
    """
    if chosen.ambiguous:
        listed = "; ".join(map(str, chosen.ambiguous))
        raise ScoresError(f"which metric is meant is not clear: {listed}; name it with --metric BENCHMARK=METRIC")
    if average not in AVERAGES or combination not in COMBINATIONS:
        raise ScoresError(
            f"no average {average!r} or combination {combination!r}; there are {', '.join(AVERAGES)} and "
            f"{', '.join(COMBINATIONS)}"
        )
    tolerance = tolerance or Tolerance()
    if not study.labels():
        raise ScoresError("no repaired model has scores: score one, or name it with --repaired")
    comparisons, missing = compare_scores(study, chosen, tolerance)
    axes, more = compare_axes(study, chosen, tolerance)
    extended = [with_controls(item) for item in comparisons]
    resampler = Resampler(extended, average, combination, replicates, seed)

    def assessed(label: str) -> Assessment:
        found = [item for item in extended if label in item.repaired]
        cohorts = {name: [item for item in found if _belongs(item, name, study, task=True)] for name in study.cohorts}
        metrics = resampler.metrics(found, label)
        return Assessment(
            label=label,
            models={cell.name: cell.repaired[label] for cell in study.cells if label in cell.repaired},
            metrics=metrics,
            cells=resampler.by_cell(found, label),
            cohorts={name: resampler.metrics(items, label) for name, items in cohorts.items()},
            sizes=compute_sizes(found, label),
            notes=repair_notes(found, label, metrics),
        )

    return Recovery(
        study=study,
        comparisons=comparisons,
        tolerance=tolerance,
        average=average,
        combination=combination,
        replicates=replicates,
        seed=seed,
        repaired={label: assessed(label) for label in study.labels()},
        controls={label: assessed(label) for label in CONTROLS},
        variants=tuple(iter_variants(study, chosen, tolerance, comparisons)),
        missing=(*missing, *more),
        notes=(*chosen.notes, *study_notes(study, comparisons, tolerance), *unplanned_notes(study, chosen)),
        chosen=chosen,
        axes=axes,
    )


def _belongs(item: Comparison, cohort: str, study: Study, task: bool = False) -> bool:
    """Return whether a comparison belongs to a cohort: by its benchmark, its cell, or both where both are named.

    With `task`, the on-task benchmarks of its cells belong to it whether it names them or not.
    """
    members = set(study.cohorts[cohort])
    cells = members & {cell.name for cell in study.cells}
    benchmarks = members - cells
    named = not benchmarks or item.benchmark in benchmarks or (task and item.on_task)
    return named and (not cells or item.cell in cells)
