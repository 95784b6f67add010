"""``evaluate``: scores of a checkpoint, by lm-evaluation-harness or the demo's evaluator."""

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import dgviz.demo.backend  # noqa: F401  (the demo among the evaluators)
from dgviz.cli.options import print_columns, print_result
from dgviz.cli.progress import Progress
from dgviz.jobs import JobReporter
from dgviz.scores import Score, parse_scores
from dgviz.scores.evaluate import Settings, TaskScores, iter_evaluation, write_hub_results, write_results
from dgviz.words import number

_COLUMNS = "benchmark", "metric", "score", "stderr", "n"


def evaluation_settings(options: argparse.Namespace) -> Settings:
    """Return how a checkpoint is scored, as options describe it."""
    return Settings(
        limit=options.limit,
        shots=options.shots,
        task_path=Path(options.task_path).expanduser() if options.task_path else None,
        batch_size=options.batch_size,
        device=options.device,
        chat=options.chat,
        model_args=options.model_arg,
        generation=options.gen_arg,
    )


def run(options: argparse.Namespace) -> int:
    """Score every task; what is done stays remembered when the run is stopped."""
    settings = evaluation_settings(options)
    scored: list[TaskScores] = []
    evaluation = iter_evaluation(options.model, options.tasks, options.backend, settings)
    with closing(evaluation), Progress("evaluate", len(set(options.tasks)), unit="task") as progress:
        for item in evaluation:
            scored.append(item)
            progress.tell(1, item.task)
    folder = Path(options.model).expanduser()
    name = options.name or (str(folder.resolve()) if folder.exists() else options.model)
    file = write_results(name, options.backend, settings, scored, options.out)
    JobReporter.from_environment().finish({"tasks": len(scored), "file": str(file)})
    scores = parse_scores(file.read_bytes(), str(file)).scores  # as `recovery` reads them
    beside = write_hub_results(folder, scored, scores)
    rows = [dict(zip(_COLUMNS, (s.benchmark, s.metric, s.value, s.stderr, s.n), strict=True)) for s in scores]
    result = {"file": str(file), "checkpoint_sha256": scored[0].checkpoint, "scores": rows}
    result["eval_results"] = list(map(str, beside))
    print_result(options, result, lambda: _print([file, *beside], scored, scores))
    return 0


def _print(files: Sequence[Path], scored: Sequence[TaskScores], scores: Sequence[Score]) -> None:
    """Print what was written, and how much of it was known."""
    rows = ((s.benchmark, s.metric, number(s.value), number(s.stderr) or "-", str(s.n or "-")) for s in scores)
    print_columns(_COLUMNS, rows)
    remembered = sum(item.remembered for item in scored)
    print("", *files, sep="\n")
    print(f"{len(scored)} tasks, {remembered} of them remembered")
