"""Who scores: lm-evaluation-harness with transformers or vLLM, or the demo's evaluator; one registry for all."""

import contextlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from dgviz.demo import evaluate as evaluate_demo
from dgviz.demo.data import TARGET, VIEWS
from dgviz.errors import EvaluationError
from dgviz.evaluate.settings import Settings

HARNESS_PIN = "lm-eval==0.4.13"
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
    needs : tuple of (module, pip line)
        What must be installed beside dgviz.
    """

    name: str
    title: str
    needs: tuple[tuple[str, str], ...]

    def version(self) -> str:
        """Return the harness's version, and that of the library that runs the model."""
        return ", ".join(f"{package} {version(package)}" for package in ("lm_eval", self._library()))

    def _library(self) -> str:
        return "vllm" if self.name == "vllm" else "transformers"

    def check(self, tasks: Sequence[str], settings: Settings) -> None:
        """Say what is not installed, or which task does not exist.

        Parameters
        ----------
        tasks : sequence of str
            Names.
        settings : Settings
            Names the folder of tasks of one's own.

        Raises
        ------
        EvaluationError
            If anything is missing.
        """
        for module, package in self.needs:
            if importlib.util.find_spec(module) is None:
                raise EvaluationError(
                    f"backend {self.name} needs {module}, which is not installed: "
                    f"run `python -m pip install {package}`"
                )
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
        """Load a checkpoint with the harness and return what scores it.

        Parameters
        ----------
        path : Path
            Folder with weights, configuration and tokenizer.
        settings : Settings
            How.

        Raises
        ------
        EvaluationError
            If it does not load, or a task cannot be run; the message says which.
        """
        with _quiet():
            import lm_eval
            from lm_eval.api.registry import get_model

            batch = settings.batch_size if settings.batch_size == "auto" else int(settings.batch_size)
            try:
                model = get_model(self.name).create_from_arg_obj(
                    {"pretrained": str(path), "dtype": "auto"},
                    {"batch_size": batch, "device": _device(settings.device)},
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
                        log_samples=False,
                    )
                except Exception as error:  # tasks are code, and data may be out of reach
                    raise EvaluationError(f"task {task} cannot be run: {_first_line(error)}") from error

        return score


@dataclass(frozen=True)
class DemoBackend:
    """The built-in demo's digits, scored without the harness."""

    name: str = "demo"
    title: str = "the demo's digits"

    def version(self) -> str:
        """Return the version of what classifies."""
        return f"transformers {version('transformers')}, scikit-learn {version('scikit-learn')}"

    def check(self, tasks: Sequence[str], settings: Settings) -> None:
        """Say which task does not exist, or which setting does not apply.

        Parameters
        ----------
        tasks : sequence of str
            Names.
        settings : Settings
            Of which the demo takes none.

        Raises
        ------
        EvaluationError
            If one does not fit.
        """
        known = (*VIEWS, TARGET)
        for task in tasks:
            if task not in known:
                raise EvaluationError(f"the demo has no task {task!r}; it has {', '.join(known)}")
        if not tasks:
            raise EvaluationError(f"no task is named: give --tasks {','.join(known)}")
        for name in ("limit", "shots", "task_path", "chat"):
            if getattr(settings, name) not in (None, False):
                raise EvaluationError(f"the demo takes no --{name.replace('_', '-')}: leave it out")

    def open(self, path: Path, settings: Settings) -> Scorer:
        """Return what scores a checkpoint of the demo; all tasks are scored at the first.

        Parameters
        ----------
        path : Path
            Folder of the checkpoint.
        settings : Settings
            Not used: the demo always runs on the CPU.
        """
        found: dict[str, dict[str, float]] = {}

        def score(task: str) -> dict[str, Any]:
            if not found:
                found.update(evaluate_demo(path))
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


_ALL: tuple[Backend, ...] = (
    HarnessBackend("hf", "lm-evaluation-harness with transformers", (("lm_eval", HARNESS_PIN),)),
    HarnessBackend("vllm", "lm-evaluation-harness with vLLM", (("lm_eval", HARNESS_PIN), ("vllm", "vllm"))),
    DemoBackend(),
)
BACKENDS: dict[str, Backend] = {backend.name: backend for backend in _ALL}


def _device(device: str) -> str:
    """Return the device to compute on."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__


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
