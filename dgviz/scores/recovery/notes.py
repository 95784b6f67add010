"""What to beware of in the figures: empty parts, small denominators, ratios that mean nothing, units."""

from collections.abc import Mapping, Sequence

import numpy as np

from dgviz.scores import ChosenScores
from dgviz.scores.recovery.partition import CHANGES, Comparison, Tolerance
from dgviz.scores.recovery.resample import MetricValue
from dgviz.scores.recovery.study import Study

_SMALL = 3.0  # a denominator below this many tolerances, or standard errors, is called small
_EMPTY = {
    "healed": "no held-out benchmark is damaged: there is nothing to heal, Clean-up is non-damage alone, and "
    "Combined (per cell) counts healing as 100",
    "preserved": "no held-out benchmark is improved: there is no side gain to preserve, Retention is on-task "
    "retention alone, and Combined (per cell) counts preservation as 100, so that reverting to base would have 100",
    "non_damage": "no held-out benchmark is unchanged: Clean-up is % healed alone",
}


def repair_notes(
    comparisons: Sequence[Comparison], label: str, metrics: Mapping[str, MetricValue]
) -> tuple[str, ...]:
    """Return what to beware of in one repair's figures."""
    notes = [note for name, note in _EMPTY.items() if not metrics[name].n]
    if metrics["on_task_retention"].value is None:
        notes.append("no on-task benchmark was scored: Retention and Balance rest on the held-out benchmarks alone")
    for item in comparisons:
        score = item.repaired[label]
        reference = item.tuned if item.on_task else item.base
        where = f"{item.benchmark} in cell {item.cell}"
        if min(score.value, reference.value) < 0 or reference.value == 0:
            notes.append(
                f"{where}: a ratio of {score.value:g} to {reference.value:g} means nothing; left out of ratios"
            )
        errors = [found.stderr or 0.0 for found in (item.base, item.tuned)]
        if item.part in CHANGES and abs(item.gain) < _SMALL * max(item.limit, float(np.hypot(*errors))):
            notes.append(
                f"{where}: its percentage divides by a change of only {item.tuned.value - item.base.value:+.4g} "
                f"(tolerance {item.limit:.4g})"
            )
    return tuple(notes)


def study_notes(study: Study, comparisons: Sequence[Comparison], tolerance: Tolerance) -> list[str]:
    """Return what to beware of in the whole study."""
    notes = []
    large = [i.benchmark for i in comparisons if max(abs(i.base.value), abs(i.tuned.value)) > 1.5]
    plain = list(dict.fromkeys(name for name in large if name not in tolerance.of))
    if plain and tolerance.value:
        notes.append(
            f"the tolerance {tolerance.value:g} is in units of the score, and {', '.join(plain)} is no share of 1: "
            "give a tolerance in its unit"
        )
    lower = list(dict.fromkeys(item.benchmark for item in comparisons if not item.higher_is_better))
    if lower:
        notes.append(
            f"lower is better of {', '.join(lower)}: differences change their sign, and ratios are turned over "
            "(100 b / r and 100 t / r), so that a repaired model as good as its reference has 100"
        )
    scored = {item.cell for item in comparisons if item.on_task}
    for cell in study.cells:
        if cell.on_task and cell.name not in scored:
            notes.append(f"cell {cell.name}: {cell.on_task} has no score of both base and tuned")
        if not cell.on_task:
            notes.append(f"cell {cell.name}: no benchmark is called on-task, and all count as held-out")
    return notes


def unplanned_notes(study: Study, chosen: ChosenScores) -> list[str]:
    """Return which scores a study that names its benchmarks does not ask for, and what of it is open."""
    design = study.design
    if not design.benchmarks:
        return []
    models = {name for cell in study.cells for name in (cell.base, cell.tuned, *cell.repaired.values())}
    planned = {*design.benchmarks, *design.axes, *(cell.on_task for cell in study.cells)}
    notes = [design.note] if design.note else []
    for what, names in (
        ("models", {model for _, model, _ in chosen.scores} - models),
        ("benchmarks", set(chosen.metrics) - planned),
    ):
        if names:
            notes.append(f"left aside, {what} that the study does not name: {', '.join(sorted(names))}")
    for cohort in study.open_cohorts():
        notes.append(f"cohort {cohort} is open: the study file does not say what belongs to it, and no figure has it")
    return notes
