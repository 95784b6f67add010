"""The results files of lighteval: rows per task as the harness has them, averages of tasks, and the row ``all``.

``results/<model>/results_<date>.json`` with ``config_general`` (the model), ``results`` (task -> ``"acc"``,
``"acc_stderr"``) and ``config_tasks`` (what a metric's direction is, how many documents there were). The number of
shots is the end of a task's name. ``mmlu:_average:5`` is the mean of ``mmlu:...:5``, and ``all`` that of every task.
"""

import re
from collections.abc import Mapping
from typing import Any

from dgviz.errors import ScoresError
from dgviz.scores.harness import DIRECTIONS, is_harness, iter_metrics
from dgviz.scores.types import Score, ScoreTable, count, objects

_ALL = "all"
_AVERAGE = "_average"


def is_lighteval(content: Mapping[str, Any]) -> bool:
    """Return whether a JSON object looks like lighteval's results."""
    return isinstance(content.get("config_general"), dict) and is_harness(content)


def parse_lighteval(content: Mapping[str, Any], source: str, model: str, folder: str) -> ScoreTable:
    """Return every metric of every task; averages count their tasks, and ``all`` is a summary."""
    general, rows = content["config_general"], content["results"]
    settings = general.get("model_config")
    named = general.get("model_name") or (settings.get("model_name") if isinstance(settings, dict) else None)
    name = model or str(named or "") or folder
    if not name:
        raise ScoresError(f"{source} does not say which model it scores: give its name as NAME={source}")
    averages = {_family(task): task for task in rows if _AVERAGE in re.split(r"[:|]", task)}
    scores, unknown = [], set()
    for task, row in rows.items():
        about = objects(content.get("config_tasks")).get(task, {})
        known, summed = _directions(about), task == _ALL or task in averages.values()
        for metric, value, stderr in iter_metrics(row):
            higher = known.get(metric, DIRECTIONS.get(metric))
            if higher is None and not summed:
                unknown.add(f"{task}: {metric}")
            group = averages.get(_family(task), "")
            scores.append(
                Score(
                    model=name,
                    benchmark=task,
                    value=value,
                    stderr=None if summed else stderr,  # a mean of standard errors is none
                    n=count(about.get("effective_num_docs")),
                    metric=metric,
                    higher_is_better=higher,
                    group="" if group == task else group,
                    conditions=_conditions(task, general),
                    source=source,
                )
            )
    if not scores:
        raise ScoresError(f"{source} holds no score: its 'results' name no metric; choose the file of a full run")
    notes = [f"{source} does not say whether higher is better; taken as higher: {item}" for item in sorted(unknown)]
    return ScoreTable(tuple(scores), roles={_ALL: "summary"} if _ALL in rows else {}, notes=tuple(notes))


def _family(task: str) -> tuple[str, str]:
    """Return what a task shares with its average: its name up to the last part but one, and the shots."""
    parts = re.split(r"[:|]", task)
    return ":".join(parts[:-2]), parts[-1]


def _directions(about: Mapping[str, Any]) -> dict[str, bool]:
    """Return what a task's config says of its metrics; one metric may have several names."""
    found = {}
    for metric in about.get("metrics") or about.get("metric") or []:
        names = metric.get("metric_name") if isinstance(metric, dict) else None
        higher = metric.get("higher_is_better") if names else None
        for name in names if isinstance(names, list) else [names]:
            own = higher.get(name) if isinstance(higher, dict) else higher
            if isinstance(own, bool):
                found[str(name)] = own
    return found


def _conditions(task: str, general: Mapping[str, Any]) -> str:
    """Return number of shots and limit."""
    shots, most = re.search(r"[:|](\d+)$", task), general.get("max_samples")
    parts = [f"{shots[1]} shots"] if shots else []
    return ", ".join([*parts, *([f"limit {most}"] if most is not None else [])])
