"""One number per model and benchmark: which metric is meant, and what cannot be decided."""

import dataclasses
import itertools
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dgviz.errors import ScoresError
from dgviz.scores.types import Score, ScoreTable

METRIC_ORDER = ("acc_norm", "acc", "exact_match", "f1", "mcc", "bleu", "chrf", "word_perplexity", "perplexity")
"""Which metric a benchmark with several is judged by, unless it is named; other metrics are never chosen unasked."""


@dataclass(frozen=True)
class Ambiguity:
    """A benchmark of which it is not clear which number is meant.

    Attributes
    ----------
    benchmark : str
        Its name.
    metrics : tuple of str
        What there is to choose from, with filters.
    """

    benchmark: str
    metrics: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.benchmark} has {', '.join(self.metrics)}"


@dataclass(frozen=True)
class ChosenScores:
    """One score per cell, model and benchmark.

    Attributes
    ----------
    scores : mapping of (cell, model, benchmark) to Score
        Whose value is there.
    metrics : mapping of benchmark to str
        The metric chosen.
    ambiguous : tuple of Ambiguity
        Benchmarks left out until a metric is named for them.
    missing : tuple of str
        Scores that a file names without giving a number.
    notes : tuple of str
        What was left aside, and what is not comparable.
    """

    scores: Mapping[tuple[str, str, str], Score]
    metrics: Mapping[str, str]
    ambiguous: tuple[Ambiguity, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def choose_scores(
    table: ScoreTable, metrics: Mapping[str, str] | None = None, benchmarks: Iterable[str] = ()
) -> ChosenScores:
    """Return one score per model and benchmark.

    A benchmark's metric is the one named for it; else the only one; else the first of `METRIC_ORDER` that every model
    scored on it has, if that metric has one filter only. Otherwise the benchmark is ambiguous. A task whose group has
    a score of its own counts in the group and not beside it, and a summary of other benchmarks not at all, unless it
    is among `benchmarks`.

    Parameters
    ----------
    table : ScoreTable
        From `dgviz.scores.read_scores`.
    metrics : mapping of benchmark to str, optional
        The metric of a benchmark, with its filter where it has several (``exact_match,strict-match``); several with
        ``+`` between them for their mean.
    benchmarks : iterable of str, optional
        The only benchmarks wanted, members of groups included; all by default.

    Raises
    ------
    ScoresError
        If a benchmark or metric named does not exist, or two files give different values for one score.
    """
    metrics, wanted = dict(metrics or {}), list(benchmarks)
    known = table.benchmark_names()
    for name in (*metrics, *wanted):
        if name not in known:
            raise ScoresError(f"no scores of a benchmark {name!r}; there are {', '.join(known)}")
    notes = list(table.notes)
    found: dict[str, list[Score]] = {}
    aside: dict[str, list[str]] = {}
    for score in table.scores:
        if wanted and score.benchmark not in wanted:
            continue
        if score.group and not wanted:
            aside.setdefault(f"counted within {score.group}", []).append(score.benchmark)
        elif table.roles.get(score.benchmark) == "summary" and not wanted:
            aside.setdefault("a summary of other benchmarks", []).append(score.benchmark)
        else:
            found.setdefault(score.benchmark, []).append(score)
    notes += [f"left aside, {why}: {', '.join(dict.fromkeys(names))}" for why, names in aside.items()]
    scores: dict[tuple[str, str, str], Score] = {}
    chosen: dict[str, str] = {}
    ambiguous, missing = [], []
    for benchmark, rows in found.items():
        metric = _metric(benchmark, rows, metrics.get(benchmark))
        if metric is None:
            ambiguous.append(Ambiguity(benchmark, tuple(dict.fromkeys(row.metric for row in rows))))
            continue
        chosen[benchmark] = metric
        kept = _distinct(row for row in rows if row.metric == metric)
        if not kept:
            parts = [_distinct(row for row in rows if row.metric == part) for part in metric.split("+")]
            kept, lacking = _means(parts, metric)
            missing += [f"{_place(row)}: not all of {metric}, so no mean of them" for row in lacking]
        missing += [f"{_place(row)} in {row.source}" for row in kept if row.value is None]
        scores |= {(row.cell, row.model, benchmark): row for row in kept if row.value is not None}
        notes += _comparable(benchmark, kept)
    return ChosenScores(scores, chosen, tuple(ambiguous), tuple(missing), tuple(dict.fromkeys(notes)))


def _metric(benchmark: str, rows: list[Score], named: str | None) -> str | None:
    """Return the metric a benchmark is judged by, or None where that is not clear."""
    there = list(dict.fromkeys(row.metric for row in rows))
    if named is not None:
        for part in [named] if named in there else named.split("+"):
            if part not in there:
                raise ScoresError(f"{benchmark} has no metric {part!r}; it has {', '.join(map(repr, there))}")
        return named
    if len(there) == 1:
        return there[0]
    scored = {metric: {(row.cell, row.model) for row in rows if row.metric == metric} for metric in there}
    everywhere = set().union(*scored.values())
    for plain in METRIC_ORDER:
        filters = [metric for metric in there if metric.split(",")[0] == plain]
        if any(scored[metric] == everywhere for metric in filters):
            # Several filters are several answers to the same question: which one is meant is not ours to say.
            return filters[0] if len(filters) == 1 else None
    return None


def _means(parts: list[list[Score]], metric: str) -> tuple[list[Score], list[Score]]:
    """Return the mean of several metrics of each model, and a row of each model that lacks one of them.

    The metrics are of the same answers: the error of their mean is at most the mean of their errors.
    """
    models: dict[tuple[str, str], list[Score]] = {}
    for row in itertools.chain(*parts):
        models.setdefault((row.cell, row.model), []).append(row)
    kept, lacking = [], []
    for own in models.values():
        values, errors = [row.value for row in own], [row.stderr for row in own]
        if len(own) < len(parts) or None in values:
            lacking.append(own[0])
            continue
        kept.append(
            dataclasses.replace(
                own[0],
                metric=metric,
                value=statistics.fmean(values),
                stderr=None if None in errors else statistics.fmean(errors),
                n=own[0].n if len({row.n for row in own}) == 1 else None,
            )
        )
    return kept, lacking


def _place(row: Score) -> str:
    return f"{row.model} on {row.benchmark}" + (f" in cell {row.cell}" if row.cell else "")


def _distinct(rows: Iterable[Score]) -> list[Score]:
    """Return one row per cell and model; a score that was read twice must be the same both times."""
    kept: dict[tuple[str, str], Score] = {}
    for row in rows:
        before = kept.setdefault((row.cell, row.model), row)
        if (before.value, before.stderr) != (row.value, row.stderr):
            raise ScoresError(
                f"two different scores of {_place(row)}: {_shown(before)} in {before.source} and {_shown(row)} in "
                f"{row.source}; leave one of them out"
            )
    return list(kept.values())


def _shown(row: Score) -> str:
    value = "none" if row.value is None else f"{row.value:g}"
    return value if row.stderr is None else f"{value} ± {row.stderr:g}"


def _comparable(benchmark: str, rows: list[Score]) -> list[str]:
    """Return what differs between the measurements of one benchmark."""
    notes = []
    for what, values in (
        ("conditions", {row.model: row.conditions for row in rows if row.conditions}),
        ("numbers of examples", {row.model: str(row.n) for row in rows if row.n}),
    ):
        if len(set(values.values())) > 1:
            told = "; ".join(f"{model}: {value}" for model, value in values.items())
            notes.append(f"{benchmark} was scored under different {what}, which may not be comparable: {told}")
    return notes
