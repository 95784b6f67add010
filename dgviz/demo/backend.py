"""The demo's own evaluator among the backends of `dgviz.scores.evaluate`: importing this registers it."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dgviz.demo.data import TARGET, VIEWS
from dgviz.demo.evaluation import evaluate
from dgviz.errors import EvaluationError
from dgviz.scores.evaluate.backends import BACKENDS, Scorer
from dgviz.scores.evaluate.settings import Settings

_NOT_TAKEN = {name: f"--{name.replace('_', '-')}" for name in ("limit", "shots", "task_path", "chat")}
_NOT_TAKEN |= {"model_args": "--model-arg", "generation": "--gen-arg"}


@dataclass(frozen=True)
class DemoBackend:
    """The built-in demo's digits, scored without the harness."""

    name: str = "demo"
    title: str = "the demo's digits"

    def version(self) -> str:
        """Return the version of what classifies."""
        return f"transformers {version('transformers')}, scikit-learn {version('scikit-learn')}"

    def check(self, tasks: Sequence[str], settings: Settings) -> None:
        """Say which task does not exist, or which setting does not apply."""
        known = (*VIEWS, TARGET)
        for task in tasks:
            if task not in known:
                raise EvaluationError(f"the demo has no task {task!r}; it has {', '.join(known)}")
        if not tasks:
            raise EvaluationError(f"no task is named: give --tasks {','.join(known)}")
        for name, flag in _NOT_TAKEN.items():
            if getattr(settings, name):
                raise EvaluationError(f"the demo takes no {flag}: leave it out")

    def open(self, path: Path, settings: Settings) -> Scorer:
        """Return what scores a checkpoint of the demo; all tasks are scored at the first."""
        found: dict[str, dict[str, float]] = {}

        def score(task: str) -> dict[str, Any]:
            if not found:
                found.update(evaluate(path))
            row = found[task]
            return {
                "results": {
                    task: {
                        "alias": task,
                        "acc,none": row["score"],
                        "acc_stderr,none": row["stderr"],
                        "sample_len": row["n"],
                    }
                },
                "group_subtasks": {task: []},
                "n-shot": {task: 0},
                "higher_is_better": {task: {"acc": True}},
                "n-samples": {task: {"original": row["n"], "effective": row["n"]}},
            }

        return score


BACKENDS["demo"] = DemoBackend()
