"""Scoring a checkpoint task by task: remembered, resumable, and written in the harness's layout."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import dgviz
from dgviz.checkpoint import cache_dir, open_checkpoint
from dgviz.checkpoint.remote.record import address_of
from dgviz.errors import EvaluationError
from dgviz.files import write_file, write_json
from dgviz.scores.evaluate.backends import BACKENDS, Scorer
from dgviz.scores.evaluate.settings import Settings, checkpoint_hash, file_hash, task_key

# Of a run's results, the parts that are kept by task.
_BY_TASK = ("results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples")


@dataclass(frozen=True)
class TaskScores:
    """One task, scored.

    Attributes
    ----------
    task : str
        Its name.
    results : dict
        In the harness's layout; a group has all its tasks.
    remembered : bool
        Whether it had been scored before.
    seconds : float
        What it took.
    checkpoint : str
        Hash of the checkpoint's content.
    """

    task: str
    results: dict[str, Any]
    remembered: bool
    seconds: float
    checkpoint: str


def iter_evaluation(
    model: str | Path, tasks: Sequence[str], backend: str = "hf", settings: Settings | None = None
) -> Iterator[TaskScores]:
    """Score a checkpoint on tasks; yield each when it is scored, and remember it.

    The model is loaded when the first task is not remembered. Scores are remembered under the content of checkpoint
    and task files, the backend's version, limit and shots; data files that a task names are compared too. Data that
    the harness downloads is taken as it is.

    Parameters
    ----------
    model : str or Path
        A checkpoint, as `dgviz.checkpoint.open_checkpoint` takes it, with its tokenizer.
    tasks : sequence of str
        Names of tasks or groups.
    backend : str
        A key of `BACKENDS`.
    settings : Settings, optional
        How.

    Yields
    ------
    TaskScores
        In the order of the tasks.

    Raises
    ------
    EvaluationError
        If the backend or a task is unknown, something is not installed, or a task cannot be run.
    CheckpointError
        If the checkpoint cannot be read.
    """
    if backend not in BACKENDS:
        raise EvaluationError(f"there is no backend {backend!r}; there are {', '.join(BACKENDS)}")
    settings, chosen = settings or Settings(), BACKENDS[backend]
    wanted = list(dict.fromkeys(tasks))
    chosen.check(wanted, settings)
    checkpoint = open_checkpoint(model)
    if (address := address_of(checkpoint.path)) is not None:
        raise EvaluationError(
            f"{address} cannot be scored where it lies, for scoring loads all of it: download it (`fetch` does it "
            "for the Hugging Face Hub), and give that"
        )
    content = checkpoint_hash(checkpoint)
    scorer: Scorer | None = None
    for task in wanted:
        started = time.perf_counter()
        key = task_key(content, backend, chosen.version(), task, settings)
        file = cache_dir() / "scores-1" / key[:2] / f"{key}.json"
        results = _recall(file)
        remembered = results is not None
        if results is None:
            scorer = scorer or chosen.open(checkpoint.path, settings)
            results = _plain(scorer(task))
            data = {str(path): file_hash(path) for path in _data_files(results)}
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {"results": results, "data_files": data})
        yield TaskScores(task, results, remembered, time.perf_counter() - started, content)


def _plain(results: dict[str, Any]) -> dict[str, Any]:
    """Return results as JSON holds them, without what differs from run to run."""
    kept = {name: results[name] for name in (*_BY_TASK, "lm_eval_version") if results.get(name)}
    return json.loads(json.dumps(kept, default=str))


def _recall(file: Path) -> dict[str, Any] | None:
    """Return remembered results whose data files are what they were; None where there are none."""
    try:
        stored = json.loads(file.read_bytes())
        results, data = stored["results"], stored["data_files"]
        same = all(file_hash(Path(name)) == known for name, known in data.items())
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a memory that cannot be read is none: the task is scored again
    return results if same else None


def _data_files(results: dict[str, Any]) -> list[Path]:
    """Return the local files that the tasks' configurations name as data."""
    configs = results.get("configs", {}).values()
    named: list[Any] = [config.get(part) for config in configs for part in ("dataset_path", "dataset_kwargs")]
    found = []
    while named:
        value = named.pop()
        if isinstance(value, dict | list):
            named += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str):
            path = Path(value).expanduser()
            found += [path] if path.is_file() else path.rglob("*")
    return sorted({file.resolve() for file in found if file.is_file()})


def write_results(
    model: str, backend: str, settings: Settings, scored: Sequence[TaskScores], out: str | Path
) -> Path:
    """Write scores as the harness would: ``OUT/<model>/results_<date>.json``.

    Parameters
    ----------
    model : str
        What to call it.
    backend : str
        Who scored.
    settings : Settings
        How.
    scored : sequence of TaskScores
        From `iter_evaluation`.
    out : str or Path
        Folder of results.

    Returns
    -------
    Path
        The file, which `dgviz.scores.read_scores` reads.

    Raises
    ------
    EvaluationError
        If it cannot be written.
    """
    merged: dict[str, Any] = {}
    for item in scored:
        for name in _BY_TASK:
            if name in item.results:
                merged.setdefault(name, {}).update(item.results[name])
    now = datetime.now()
    content = {
        **merged,
        "config": {
            "model": backend,
            "model_args": {"pretrained": model, **settings.values_of("model_args")},
            "gen_kwargs": settings.values_of("generation"),
            "limit": settings.limit,
        },
        "date": now.timestamp(),
        "lm_eval_version": next((item.results.get("lm_eval_version") for item in scored), None),
        "model_source": backend,
        "model_name": model,
        "model_name_sanitized": re.sub(r'["<>:/|\\?*\[\]]+', "__", model),
        "dgviz": {
            "version": dgviz.__version__,
            "backend": BACKENDS[backend].version(),
            "checkpoint_sha256": scored[0].checkpoint if scored else None,
            "remembered": [item.task for item in scored if item.remembered],
            "seconds": {item.task: round(item.seconds, 3) for item in scored},
        },
    }
    folder = Path(out).expanduser() / content["model_name_sanitized"]
    file = folder / f"results_{now.isoformat().replace(':', '-')}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(file, json.dumps(content, indent=2, ensure_ascii=False).encode())
    except OSError as error:
        raise EvaluationError(f"{file} cannot be written: {error.strerror or error}") from error
    return file
