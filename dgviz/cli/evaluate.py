"""``evaluate``: scores of a checkpoint, by lm-evaluation-harness or the demo's evaluator."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

import dgviz.demo.backend  # noqa: F401  (the demo among the evaluators)
from dgviz.cli.options import print_columns, print_json
from dgviz.jobs import JobReporter
from dgviz.scores import parse_scores
from dgviz.scores.evaluate import BACKENDS, Settings, TaskScores, iter_evaluation, write_results


def add_command(commands: "argparse._SubParsersAction") -> None:
    """Add the command to the grammar."""
    evaluate = commands.add_parser("evaluate", help="score a checkpoint on benchmarks, for `recovery`")
    evaluate.add_argument("model", metavar="MODEL", help="checkpoint with its tokenizer")
    evaluate.add_argument("--tasks", default="", metavar="A,B", help="tasks or groups, by the harness's names")
    titles = "; ".join(f"{name}: {backend.title}" for name, backend in BACKENDS.items())
    evaluate.add_argument("--backend", default="hf", metavar="B", help=f"{titles} (default hf)")
    evaluate.add_argument("--task-path", metavar="DIR", help="folder of task files of your own; they may hold code")
    evaluate.add_argument("--limit", type=int, metavar="N", help="only N examples of every task, to try out")
    evaluate.add_argument("--shots", type=int, metavar="N", help="worked examples; default the task's own")
    evaluate.add_argument("--chat", action="store_true", help="put questions through the chat template")
    evaluate.add_argument("--batch-size", default="1", metavar="N", help="default 1; or auto")
    evaluate.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1 ...")
    evaluate.add_argument("--name", default="", metavar="NAME", help="what to call the model; default its folder")
    evaluate.add_argument("--out", default="results", metavar="DIR", help="folder of results (default results)")
    evaluate.add_argument("--json", action="store_true", help="machine-readable result on standard output")
    evaluate.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    """Score every task; what is done stays remembered when the run is stopped."""
    tasks = [task.strip() for task in options.tasks.split(",") if task.strip()]
    path = Path(options.task_path).expanduser() if options.task_path else None
    settings = Settings(options.limit, options.shots, path, options.batch_size, options.device, options.chat)
    reporter = JobReporter.from_environment()
    scored: list[TaskScores] = []
    evaluation = iter_evaluation(options.model, tasks, options.backend, settings)
    with tqdm(evaluation, total=len(dict.fromkeys(tasks)), desc="evaluate", unit="task", file=sys.stderr) as bar:
        for item in bar:
            scored.append(item)
            bar.set_postfix_str(item.task[-40:], refresh=False)
            reporter.progress(len(scored), bar.total, item.task)
            if reporter.cancelled():
                evaluation.close()
                reporter.finish({"tasks": len(scored)}, "cancelled")
                print("dgviz evaluate: cancelled; repeat the command to go on from here", file=sys.stderr)
                return 1
    folder = Path(options.model).expanduser()
    name = options.name or (str(folder.resolve()) if folder.exists() else options.model)
    file = write_results(name, options.backend, settings, scored, options.out)
    reporter.finish({"tasks": len(scored), "file": str(file)})
    if options.json:
        print_json({"file": str(file), "checkpoint_sha256": scored[0].checkpoint, "scores": _rows(file)})
    else:
        rows = [
            (row["benchmark"], row["metric"], _number(row["score"]), _number(row["stderr"]), str(row["n"] or "-"))
            for row in _rows(file)
        ]
        print_columns(("benchmark", "metric", "score", "stderr", "n"), rows)
        remembered = sum(item.remembered for item in scored)
        print(f"\n{file}\n{len(scored)} tasks, {remembered} of them remembered")
    return 0


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _rows(file: Path) -> list[dict]:
    """Return what was written, read back as `recovery` reads it."""
    table = parse_scores(file.read_bytes(), str(file))
    return [
        {"benchmark": s.benchmark, "metric": s.metric, "score": s.value, "stderr": s.stderr, "n": s.n}
        for s in table.scores
    ]
