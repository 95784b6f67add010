"""An assessed study as plain values: one JSON document, and the table of benchmarks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dgviz.files import csv_text
from dgviz.scores import Score
from dgviz.scores.recovery.assess import Assessment, Recovery
from dgviz.scores.recovery.metrics import AVERAGES, METRICS
from dgviz.scores.recovery.partition import Comparison
from dgviz.scores.recovery.resample import RESAMPLED, MetricValue


def recovery_report(recovery: Recovery) -> dict[str, Any]:
    """Return everything that is known, as JSON values.

    Parameters
    ----------
    recovery : Recovery
        The assessed study.

    Returns
    -------
    dict
        ``cells``, ``counts`` of the parts, ``tolerance``, ``average``, ``combination``, ``bootstrap``, ``benchmarks``
        (raw scores and changes), ``axes`` (the same of safety), ``open`` (fields of the study file), ``repaired``
        (label -> metrics, each with value, n, interval and definition, and their detail), ``controls``, ``cohorts``,
        ``missing`` and ``notes``.
    """
    return {
        "cells": [asdict(cell) | {"on_task": cell.on_task or None} for cell in recovery.study.cells],
        "cohorts": recovery.study.cohorts,
        "counts": recovery.counts(),
        "tolerance": asdict(recovery.tolerance) | {"definition": tolerance_sentence(recovery)},
        "average": {"name": recovery.average, "definition": AVERAGES[recovery.average]},
        "combination": recovery.combination,
        "bootstrap": {"replicates": recovery.replicates, "seed": recovery.seed, "resampled": RESAMPLED},
        "benchmarks": recovery_rows(recovery),
        "axes": recovery_rows(recovery, recovery.axes),
        "open": recovery.study.design.open,
        "repaired": {label: _assessed(recovery, found) for label, found in recovery.repaired.items()},
        "controls": {label: _assessed(recovery, found) for label, found in recovery.controls.items()},
        "missing": recovery.missing,
        "notes": recovery.notes,
    }


def tolerance_sentence(recovery: Recovery) -> str:
    """Return what counted as unchanged, in words."""
    tolerance = recovery.tolerance
    others = "".join(f", {value:g} on {name}" for name, value in tolerance.of.items())
    errors = (
        f", or by up to {tolerance.z:g} standard errors of the difference where both scores have one"
        if tolerance.z
        else ""
    )
    return f"unchanged: tuned and base differ by up to {tolerance.value:g}{others} in units of the score{errors}"


def definition(recovery: Recovery, name: str) -> str:
    """Return what a metric means under the average and combination in use."""
    return METRICS[name].definition.format(combination=recovery.combination) + (
        f"; averaged as {AVERAGES[recovery.average]}" if recovery.average != "mean" else ""
    )


def _values(recovery: Recovery, metrics: Mapping[str, MetricValue]) -> dict[str, dict[str, Any]]:
    """Return metrics as JSON values."""
    return {name: asdict(found) | {"definition": definition(recovery, name)} for name, found in metrics.items()}


def _assessed(recovery: Recovery, found: Assessment) -> dict[str, Any]:
    """Return one repair as JSON values: its metrics first."""
    return {
        **_values(recovery, found.metrics),
        "control": recovery.is_control(found.label),
        "models": found.models,
        "cells": found.cells,
        "cohorts": {name: _values(recovery, metrics) for name, metrics in found.cohorts.items()},
        "by_size": [asdict(item) for item in found.sizes],
        "sensitivity": recovery.sensitivity(found.label),
        "notes": found.notes,
    }


def recovery_rows(recovery: Recovery, items: Sequence[Comparison] | None = None) -> list[dict[str, Any]]:
    """Return every benchmark of every cell, raw scores and what became of them.

    Parameters
    ----------
    recovery : Recovery
        The assessed study.
    items : sequence of Comparison, optional
        In place of its benchmarks, such as its safety axes.
    """
    return [
        {
            "cell": item.cell,
            "benchmark": item.benchmark,
            "cohort": recovery.cohort_of(item),
            "metric": item.metric,
            "higher_is_better": item.higher_is_better,
            "part": item.part,
            "base": _score(item.base),
            "tuned": _score(item.tuned),
            "change": item.tuned.value - item.base.value,
            "tolerance": item.limit,
            "repaired": {
                label: {
                    **_score(score),
                    "change_from_tuned": score.value - item.tuned.value,
                    "change_from_base": score.value - item.base.value,
                    "percent": item.percent(label),
                }
                for label, score in item.repaired.items()
            },
        }
        for item in (recovery.comparisons if items is None else items)
    ]


def _score(score: Score) -> dict[str, Any]:
    return {"score": score.value, "stderr": score.stderr, "n": score.n}


def metrics_csv(recovery: Recovery) -> str:
    """Return every metric of every repair, over everything and by cohort, as CSV."""
    rows = []
    for label, found in {**recovery.repaired, **recovery.controls}.items():
        for cohort, metrics in {"all": found.metrics, **found.cohorts}.items():
            for name, value in metrics.items():
                low, high = value.interval or (None, None)
                rows.append((label, cohort, name, value.value, low, high, value.n, definition(recovery, name)))
    return csv_text(("repair", "cohort", "metric", "percent", "low", "high", "n", "definition"), rows)


def benchmarks_csv(recovery: Recovery) -> str:
    """Return every raw score with its changes, one line per model and benchmark, as CSV."""
    rows = []
    for row in recovery_rows(recovery):
        place = [row[name] for name in ("cell", "benchmark", "cohort", "metric", "part", "tolerance")]
        for role in ("base", "tuned"):
            change = row["change"] if role == "tuned" else 0.0
            rows.append((*place, role, *row[role].values(), change, None, None))
        for label, found in row["repaired"].items():
            changes = (found[name] for name in ("change_from_base", "change_from_tuned", "percent"))
            rows.append((*place, label, found["score"], found["stderr"], found["n"], *changes))
    titles = ("cell", "benchmark", "cohort", "metric", "part", "tolerance", "model", "score", "stderr", "n")
    return csv_text((*titles, "change_from_base", "change_from_tuned", "percent"), rows)
