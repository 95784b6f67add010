"""``evaluate``: scores of a checkpoint, by lm-evaluation-harness or the demo's evaluator."""

import argparse
from contextlib import closing
from pathlib import Path

import dgviz.demo.backend  # noqa: F401  (the demo among the evaluators)
from dgviz.cli.options import print_columns, print_json
from dgviz.cli.progress import Progress
from dgviz.jobs import JobReporter
from dgviz.scores import parse_scores
from dgviz.scores.evaluate import Settings, TaskScores, iter_evaluation, write_results
from dgviz.words import number


def run(options: argparse.Namespace) -> int:
    """Score every task; what is done stays remembered when the run is stopped."""
    path = Path(options.task_path).expanduser() if options.task_path else None
    settings = Settings(options.limit, options.shots, path, options.batch_size, options.device, options.chat)
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
    if options.json:
        print_json({"file": str(file), "checkpoint_sha256": scored[0].checkpoint, "scores": _rows(file)})
    else:
        rows = [
            (
                row["benchmark"],
                row["metric"],
                number(row["score"]),
                number(row["stderr"]) or "-",
                str(row["n"] or "-"),
            )
            for row in _rows(file)
        ]
        print_columns(("benchmark", "metric", "score", "stderr", "n"), rows)
        remembered = sum(item.remembered for item in scored)
        print(f"\n{file}\n{len(scored)} tasks, {remembered} of them remembered")
    return 0


def _rows(file: Path) -> list[dict]:
    """Return what was written, read back as `recovery` reads it."""
    table = parse_scores(file.read_bytes(), str(file))
    return [
        {"benchmark": s.benchmark, "metric": s.metric, "score": s.value, "stderr": s.stderr, "n": s.n}
        for s in table.scores
    ]
