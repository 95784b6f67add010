"""``recovery``: did a repair heal anything? Scores of base, tuned and repaired models, and the metrics they make."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dgviz.cli.options import print_columns, print_result, warn
from dgviz.command import Command
from dgviz.errors import ScoresError
from dgviz.scores import choose_scores, read_scores
from dgviz.scores.recovery import (
    METRICS,
    MetricValue,
    Recovery,
    Tolerance,
    assess,
    plan_study,
    read_study,
    recovery_report,
)
from dgviz.scores.recovery.report import definition, tolerance_sentence
from dgviz.scores.recovery.resample import RESAMPLED
from dgviz.scores.recovery.study import study_arguments


def run(options: argparse.Namespace) -> int:
    """Assess every repair and print what came of it."""
    if options.bootstrap < 0 or options.seed < 0:
        raise ScoresError(f"--bootstrap {options.bootstrap} --seed {options.seed}: neither may be negative")
    table = read_scores(options.scores)
    said = read_study(options.study) if options.study else study_arguments({}, "")
    cohorts = {name: _list(members) for name, members in options.cohort.items()}
    # Of every cell named; under an empty name that of all others.
    on_task = {cell: benchmark for cell, _, benchmark in (item.rpartition("=") for item in options.on_task)}
    study = plan_study(
        table,
        base=options.base,
        tuned=options.tuned,
        on_task=on_task,
        repaired=options.repaired,
        cells=said["cells"],
        cohorts=said["cohorts"] | cohorts,
        lower_is_better=[*said["lower_is_better"], *options.lower_is_better],
        design=said["design"],
    )
    chosen = choose_scores(table, study.design.metrics_of(table) | options.metric, options.benchmarks)
    recovery = assess(
        study.only(options.cell),
        chosen,
        _tolerance(options.tolerance, options.z, study.design.tolerance),
        average=options.average,
        combination=options.combine,
        replicates=options.bootstrap,
        seed=options.seed,
    )
    written = _write(recovery, options) if options.tables else []
    result = recovery_report(recovery) | {"written": list(map(str, written))}
    print_result(options, result, lambda: _print_recovery(recovery, written))
    warn(recovery.notes, "note")
    if recovery.study.design.benchmarks and recovery.missing:
        asked = Command("study", study=options.study, scores=options.scores)
        warn([f"{len(recovery.missing)} scores of the study; {asked} says which"], "missing")
    else:
        warn(recovery.missing, "missing")
    return 0


def _list(text: str) -> list[str]:
    """Return the names of a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _write(recovery: Recovery, options: argparse.Namespace) -> list[Path]:
    """Write the paper's tables and figures into a folder; return the files."""
    from dgviz.analysis.study import noise_files, paper_tables, read_noise, write_tables
    from dgviz.figures.study import write_figures

    folder = Path(options.tables).expanduser()
    noise = read_noise(noise_files(recovery.study, Path(options.study).expanduser().parent))
    return [*write_tables(paper_tables(recovery, noise), folder), *write_figures(recovery, folder)]


def _tolerance(items: Sequence[str], z: float, of_study: float | None) -> Tolerance:
    """Return the tolerance that options state, else the study's."""
    of = {"": Tolerance().value if of_study is None else of_study}
    for item in items:
        name, _, number = item.rpartition("=")
        try:
            of[name] = float(number)
        except ValueError as error:
            raise ScoresError(f"--tolerance takes a number or BENCHMARK=NUMBER; got {item!r}") from error
    return Tolerance(of.pop(""), of, z)


def _print_recovery(recovery: Recovery, written: Sequence[Path]) -> None:
    """Print raw scores, the metrics of every repair, and what they mean."""
    counts = ", ".join(f"{count} {part}" for part, count in recovery.counts().items())
    print(f"{counts}; {tolerance_sentence(recovery)}\n")
    labels = recovery.study.labels()
    several = len(recovery.study.cells) > 1
    rows = [
        (
            f"{item.cell}: {item.benchmark}" if several else item.benchmark,
            item.part.replace("_", "-"),
            f"{item.base.value:.4g}",
            f"{item.tuned.value:.4g}",
            *(f"{item.repaired[label].value:.4g}" if label in item.repaired else "-" for label in labels),
        )
        for item in recovery.comparisons
    ]
    print_columns(("benchmark", "part", "base", "tuned", *labels), rows)
    print()
    assessed = {**recovery.repaired, **recovery.controls}
    titles = {label: f"{label} (control)" if recovery.is_control(label) else label for label in assessed}
    names = list(METRICS)
    for part in (names[:4], names[4:]):
        table = [
            (titles[label], *(_shown(found.metrics[name]) for name in part)) for label, found in assessed.items()
        ]
        print_columns(("repair", *part), table)
        print()
    print("Percent [95 % interval] (n).")
    for name in METRICS:
        print(f"{name}: {definition(recovery, name)}")
    if recovery.replicates:
        print(f"interval: {recovery.replicates} replicates, seed {recovery.seed}. {RESAMPLED}")
    for note in dict.fromkeys(note for found in recovery.repaired.values() for note in found.notes):
        about = [label for label, found in recovery.repaired.items() if note in found.notes]
        warn([note if len(about) == len(recovery.repaired) else f"{', '.join(about)}: {note}"], "note")
    if written:
        print(f"wrote {len(written)} files into {written[0].parent}")


def _shown(found: MetricValue) -> str:
    """Return a metric's value with interval and n."""
    if found.value is None:
        return f"- ({found.n})"
    interval = f" [{found.interval[0]:.1f}, {found.interval[1]:.1f}]" if found.interval else ""
    return f"{found.value:.1f}{interval} ({found.n})"
