"""Who scores: lm-evaluation-harness with transformers or vLLM; one registry for these and all others."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from dgviz.errors import EvaluationError
from dgviz.packages import need
from dgviz.scores.evaluate.settings import Settings

Scorer = Callable[[str], dict[str, Any]]
"""Scores one task and returns results in the harness's layout."""


class Backend(Protocol):
    """One way to score a checkpoint."""

    name: str
    title: str

    def version(self) -> str:
        """Return the version of who scores: another one may score otherwise."""

    def check(self, tasks: Sequence[str], settings: Settings) -> None:
        """Say what is missing, or which task does not exist, before anything is loaded."""

    def open(self, path: Path, settings: Settings) -> Scorer:
        """Load a checkpoint and return what scores it."""


@dataclass(frozen=True)
class HarnessBackend:
    """lm-evaluation-harness, an optional dependency, with one of its model classes.

    Attributes
    ----------
    name : str
        As the harness calls the model class.
    title : str
        In words.
    library : str
        What runs the model, as a module and a package.
    """

    name: str
    title: str
    library: str

    def version(self) -> str:
        """Return the harness's version, and that of the library that runs the model."""
        return ", ".join(f"{package} {version(package)}" for package in ("lm_eval", self.library))

    def check(self, tasks: Sequence[str], settings: Settings) -> None:
        """Say what is not installed, or which task does not exist."""
        need(f"backend {self.name}", "lm_eval", self.library)
        if not tasks:
            raise EvaluationError(
                "no task is named: give --tasks NAME,NAME; `lm_eval ls tasks` lists the harness's own"
            )
        self._tasks(tasks, settings)

    def _tasks(self, tasks: Sequence[str], settings: Settings) -> Any:
        """Return the harness's task manager; its own thousands of tasks are read only where one of them is wanted."""
        with _quiet():
            from lm_eval.tasks import TaskManager

            own = str(settings.task_path) if settings.task_path else None
            manager = TaskManager(include_path=own, include_defaults=False) if own else None
            if manager is None or any(task not in manager.all_tasks for task in tasks):
                local = list(manager.all_tasks) if manager else []
                manager = TaskManager(include_path=own)
                unknown = [task for task in tasks if task not in manager.all_tasks]
                if unknown:
                    where = f" in {own} there are {', '.join(local) or 'none'};" if own else ""
                    raise EvaluationError(
                        f"there is no task {unknown[0]!r}:{where} `lm_eval ls tasks` lists the harness's own"
                    )
        return manager

    def open(self, path: Path, settings: Settings) -> Scorer:
        """Load a checkpoint with the harness and return what scores it."""
        with _quiet():
            import lm_eval
            from lm_eval.api.registry import get_model

            batch = settings.batch_size if settings.batch_size == "auto" else int(settings.batch_size)
            try:
                model = get_model(self.name).create_from_arg_obj(
                    {"pretrained": str(path), "dtype": "auto", **settings.values_of("model_args")},
                    {"batch_size": batch, "device": None if settings.device == "auto" else settings.device},
                )
            except Exception as error:  # whatever the model's own code raises is about this checkpoint
                raise EvaluationError(f"{path} does not load as a language model: {_first_line(error)}") from error

        def score(task: str) -> dict[str, Any]:
            with _quiet():
                try:
                    return lm_eval.simple_evaluate(
                        model=model,
                        tasks=[task],
                        task_manager=self._tasks([task], settings),
                        limit=settings.limit,
                        num_fewshot=settings.shots,
                        apply_chat_template=settings.chat,
                        gen_kwargs=settings.values_of("generation") or None,
                        log_samples=False,
                    )
                except Exception as error:  # tasks are code, and data may be out of reach
                    raise EvaluationError(f"task {task} cannot be run: {_first_line(error)}") from error

        return score


BACKENDS: dict[str, Backend] = {
    "hf": HarnessBackend("hf", "lm-evaluation-harness with transformers", "transformers"),
    "vllm": HarnessBackend("vllm", "lm-evaluation-harness with vLLM", "vllm"),
}
"""Who scores, by name; the demo adds its own (`dgviz.demo.backend`)."""


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip() or type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the harness prints off standard output, which is for results, and its remarks to warnings."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)
