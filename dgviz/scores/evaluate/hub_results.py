"""Scores beside the model they are of: ``.eval_results/TASK.yaml``, as the Hugging Face Hub reads them.

Written where the model scored is an output of dgviz and its task says which data set of the hub it asks. Format:
https://huggingface.co/docs/hub/eval-results
"""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from dgviz.checkpoint.hub import HUB_ID
from dgviz.errors import EvaluationError
from dgviz.files import write_file
from dgviz.scores.choice import METRIC_ORDER
from dgviz.scores.evaluate.run import TaskScores
from dgviz.scores.types import Score

FOLDER = ".eval_results"
_REPORT = "dgviz.json"


def write_hub_results(model: Path, scored: Sequence[TaskScores], scores: Sequence[Score]) -> list[Path]:
    """Write a file per task into an output's folder; return what was written, nothing for any other model.

    Parameters
    ----------
    model : Path
        Folder of what was scored.
    scored : sequence of TaskScores
        From `iter_evaluation`.
    scores : sequence of Score
        The same, as `read_scores` reads them.

    Raises
    ------
    EvaluationError
        If a file cannot be written.
    """
    if not (model / _REPORT).is_file():
        return []
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    configs: dict[str, Any] = {}
    for item in scored:
        configs |= item.results.get("configs") or {}
    written = []
    for task, config in configs.items():
        data = str(config.get("dataset_path") or "")
        score = _main(task, scores)
        if score is None or not HUB_ID.fullmatch(data) or Path(data).exists():
            continue
        notes = ", ".join(filter(None, (score.metric, score.conditions, f"task {task} of lm-evaluation-harness")))
        entry = EvalResultEntry(
            data,
            str(config.get("dataset_name") or "default"),
            score.value,
            date=date.today().isoformat(),
            notes=notes,
        )
        file = model / FOLDER / f"{task}.yaml"
        try:
            file.parent.mkdir(exist_ok=True)
            write_file(file, yaml_dump(eval_result_entries_to_yaml([entry])).encode())
        except OSError as error:
            raise EvaluationError(f"{file} cannot be written: {error.strerror or error}") from error
        written.append(file)
    return written


def _main(task: str, scores: Sequence[Score]) -> Score | None:
    """Return a task's score by the metric that is judged by, or by its first."""
    own = [score for score in scores if score.benchmark == task and score.value is not None]
    order = {metric: place for place, metric in enumerate(METRIC_ORDER)}
    return min(own, key=lambda score: order.get(score.metric.split(",")[0], len(order)), default=None)
