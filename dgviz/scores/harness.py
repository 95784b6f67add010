"""The results files of lm-evaluation-harness, from 0.3 to 0.4.13.

Current layout: ``results/<model>/results_<date>.json`` with ``results`` (task -> ``"acc,none"``,
``"acc_stderr,none"``, ``sample_len``), ``groups``, ``group_subtasks``, ``n-shot``, ``n-samples`` and
``higher_is_better``. Last year's has no ``sample_len``, the first 0.4 no ``model_name`` and no ``n-samples``, and 0.3
writes metrics without a filter (``"acc"``).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dgviz.errors import ScoresError
from dgviz.scores.types import Score, ScoreTable, count, finite, objects

# The harness's own registry (lm_eval.api.metrics), for layouts that do not write `higher_is_better`.
_ACCURACIES = "acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"
_HIGHER = *_ACCURACIES, "f1", "mcc", "bleu", "chrf", "likelihood"
_LOWER = "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "ter", "brier_score"
DIRECTIONS = dict.fromkeys(_HIGHER, True) | dict.fromkeys(_LOWER, False)
"""Whether higher is better, by metric."""
_NO_METRIC = ("alias", "name", "sample_len", "sample_count", "samples")
# `model_args` names the model under one of these, the descendant before what it descends from. vLLM's adapter is not
# in the harness's own list, so that its `model_name` is that of the base.
_MODEL_ARGUMENTS = ("peft", "delta", "lora_local_path", "pretrained", "model", "path")
_DESCENDANT = "lora_local_path"


def is_harness(content: Mapping[str, Any]) -> bool:
    """Return whether a JSON object looks like the harness's results."""
    results = content.get("results")
    return isinstance(results, dict) and all(isinstance(row, dict) for row in results.values())


def parse_harness(content: Mapping[str, Any], source: str, model: str, folder: str) -> ScoreTable:
    """Return every metric of every task and group of a results file."""
    results = content["results"]
    rows = {**results, **objects(content.get("groups")), **results}
    rows = {name: row for name, row in rows.items() if any(iter_metrics(row))}
    if not rows:
        raise ScoresError(
            f"{source} holds no score: its 'results' name no metric; choose a results file of a full run"
        )
    name = model or model_name(content) or folder.replace("__", "/")
    if not name:
        raise ScoresError(f"{source} does not say which model it scores: give its name as NAME={source}")
    scores, unknown = [], set()
    parents, directed = _parents(content, rows), objects(content.get("higher_is_better"))
    for task, row in rows.items():
        directions = directed.get(task, {})
        for metric, value, stderr in iter_metrics(row):
            plain = metric.split(",")[0]
            higher = directions.get(plain, DIRECTIONS.get(plain))
            if higher is None:
                unknown.add(f"{task}: {plain}")
            scores.append(
                Score(
                    model=name,
                    benchmark=task,
                    value=value,
                    stderr=stderr,
                    n=_examples(content, task, row),
                    metric=metric,
                    higher_is_better=higher,
                    group=parents.get(task, ""),
                    conditions=_conditions(content, task),
                    source=source,
                )
            )
    notes = [f"{source} does not say whether higher is better; taken as higher: {item}" for item in sorted(unknown)]
    return ScoreTable(tuple(scores), notes=tuple(notes))


def model_name(content: Mapping[str, Any]) -> str:
    """Return the model's name as the harness recorded it, or an empty string."""
    arguments = _object(content, "config").get("model_args")
    if isinstance(arguments, str):
        arguments = dict(item.split("=", 1) for item in arguments.split(",") if "=" in item)
    arguments = arguments if isinstance(arguments, dict) else {}
    if isinstance(content.get("model_name"), str) and content["model_name"] and not arguments.get(_DESCENDANT):
        return content["model_name"]
    return next((str(arguments[key]) for key in _MODEL_ARGUMENTS if arguments.get(key)), "")


def _object(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a part that is an object, or an empty one where it is absent."""
    return content[name] if isinstance(content.get(name), dict) else {}


def iter_metrics(row: Mapping[str, Any]) -> Iterator[tuple[str, float | None, float | None]]:
    """Yield (metric, value, standard error) of a task; the filter ``none`` is not written out."""
    for key, value in row.items():
        metric, _, chosen = key.partition(",")
        if not metric.strip() or metric in _NO_METRIC or metric.endswith("_stderr"):
            continue
        stderr = row.get(f"{metric}_stderr,{chosen}" if chosen else f"{metric}_stderr")
        yield metric if chosen in ("", "none") else f"{metric},{chosen}", finite(value), finite(stderr)


def _examples(content: Mapping[str, Any], task: str, row: Mapping[str, Any]) -> int | None:
    """Return how many examples a task was scored on; of a group, the sum over the tasks under it."""
    counted = objects(content.get("n-samples"))
    if task in counted:
        return count(counted[task].get("effective"))
    if count(row.get("sample_len")):
        return count(row["sample_len"])
    leaves = [count(counted.get(leaf, {}).get("effective")) for leaf in _leaves(content, task)]
    return sum(leaves) if leaves and all(leaves) else None


def _children(content: Mapping[str, Any], group: str) -> list[str]:
    """Return the direct members of a group; a task has none."""
    members = _object(content, "group_subtasks").get(group)
    return [str(name) for name in members] if isinstance(members, list) else []


def _leaves(content: Mapping[str, Any], group: str, above: tuple[str, ...] = ()) -> list[str]:
    """Return the tasks under a group."""
    found = []
    for name in _children(content, group):
        if name not in above:
            found += _leaves(content, name, (*above, group)) or [name]
    return found


def _parents(content: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, str]:
    """Return for every task and group the outermost group with a score of its own that contains it."""
    above = {name: group for group in rows for name in _children(content, group)}
    outermost = {}
    for name in above:
        group, seen = above[name], {name}
        while group in above and group not in seen:
            seen.add(group)
            group = above[group]
        outermost[name] = group
    return outermost


def _conditions(content: Mapping[str, Any], task: str) -> str:
    """Return number of shots, task version, limit and chat template: what makes two scores comparable."""
    shots, version = _object(content, "n-shot"), _object(content, "versions").get(task)
    limit, parts = _object(content, "config").get("limit"), []
    if task in shots:
        parts.append(f"{shots[task]} shots")
    if version not in (None, "N/A"):
        parts.append(f"task version {version}")
    if limit is not None:
        parts.append(f"limit {limit:g}" if finite(limit) else f"limit {limit}")
    if content.get("chat_template_sha"):
        parts.append(f"chat template {re.sub(r'[^0-9a-f]', '', str(content['chat_template_sha']))[:8]}")
    return ", ".join(parts)
