"""The demo's tables: base, the two fine-tunes, what every method makes of them, and how that changes with strength.

Repaired models are scored as a user would get them: written to disk as full checkpoints by `dgviz.export`, loaded by
transformers.
"""

import hashlib
import platform
import statistics
from collections.abc import Generator, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dgviz.analysis.sweep import sweep_lines, sweep_plans, sweep_result
from dgviz.checkpoint import open_pair
from dgviz.demo.data import TARGET, VIEWS, load_digits_split
from dgviz.demo.evaluation import HELD_OUT, evaluate
from dgviz.demo.packaged import FINE_TUNES, demo_files
from dgviz.demo.recipe import Phase, describe_recipe
from dgviz.repair.methods import METHODS
from dgviz.repair.plan import RepairPlan

_ALPHAS = (0.25, 0.5, 0.6, 0.75, 0.9)
_PROVED = tuple(name for name, method in METHODS.items() if not method.experimental)
_REPAIRS = {
    "dg_hard": RepairPlan(),
    **{f"wise_ft_{a}": RepairPlan(method="wise_ft", method_params={"alpha": a}) for a in _ALPHAS},
    **{name: RepairPlan(method=name) for name in _PROVED if name not in ("dg_hard", "wise_ft")},
}
SCORED_MODELS = ("base", *(name for tuned in FINE_TUNES for name in (tuned, *(f"{tuned}/{r}" for r in _REPAIRS))))
"""Every model of ``scores.json``: base, and each fine-tune with every method at its default, WiSE-FT at several."""

SWEPT_METHODS = _PROVED
"""The methods of ``frontier.json``."""

_IN_FRONTIER = (HELD_OUT, TARGET)


class _Evaluations:
    """Scores by the weights' content: where two methods meet in one model, it is evaluated once."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, dict[str, float]]] = {}

    def evaluate(self, folder: Path) -> dict[str, dict[str, float]]:
        """Return what `dgviz.demo.evaluate` says of a checkpoint."""
        content = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        if content not in self._known:
            self._known[content] = evaluate(folder)
        return self._known[content]


def iter_tables(
    directory: str | Path,
    phases: tuple[Phase, ...],
    models: Sequence[str] = SCORED_MODELS,
    methods: Sequence[str] = SWEPT_METHODS,
) -> Iterator[str | tuple[dict[str, Any], dict[str, Any]]]:
    """Score a demo's three models, their repairs and a sweep of every method; yield names, then the tables."""
    from dgviz.export.passing import iter_written

    folders = demo_files(directory)
    seen = _Evaluations()
    results: dict[str, Mapping[str, Any]] = {}
    spectra: dict[str, dict[str, float]] = {}
    for name in (name for name in models if "/" not in name):
        results[name] = seen.evaluate(folders[name])
        yield name
    for tuned in FINE_TUNES:
        plans = {f"{tuned}/{r}": plan for r, plan in _REPAIRS.items() if f"{tuned}/{r}" in models}
        names = {plan.label: name for name, plan in plans.items()}
        pair = open_pair(folders["base"], folders[tuned])
        for plan, folder, written in iter_written(pair, list(plans.values()), "cpu"):
            results[names[plan.label]] = seen.evaluate(folder)
            if plan == RepairPlan():
                spectra[tuned] = _describe_spectra(written.tensors)
            yield names[plan.label]
    frontier: dict[str, Any] = {}
    for tuned in FINE_TUNES if methods else ():
        frontier[tuned] = yield from _iter_frontier(folders["base"], folders[tuned], methods, seen)
    yield build_scores({name: results[name] for name in models}, spectra, phases), frontier


def count_steps(models: Sequence[str] = SCORED_MODELS, methods: Sequence[str] = SWEPT_METHODS) -> int:
    """Return how many names `iter_tables` yields."""
    swept = sweep_plans(sweep_lines([RepairPlan(method=name) for name in methods], every=True))
    return len(models) + len(FINE_TUNES) * len(swept)


def _iter_frontier(
    base: Path, tuned: Path, methods: Sequence[str], seen: _Evaluations
) -> Generator[str, None, dict[str, Any]]:
    """Score a sweep of methods over one pair; yield each plan's name, and return the sweep."""
    from dgviz.analysis.methods import comparison_table, iter_comparison
    from dgviz.export.passing import iter_written

    pair = open_pair(base, tuned)
    lines = sweep_lines([RepairPlan(method=name) for name in methods], every=True)
    plans = sweep_plans(lines)
    scores = {}
    for plan, folder, _ in iter_written(pair, plans, "cpu"):
        scores[plan.label] = _in_frontier(seen.evaluate(folder))
        yield f"{tuned.name}/{plan.label}"
    table = comparison_table(list(iter_comparison(pair, plans, "cpu", ranks=False)), plans)
    ends = {"base": _in_frontier(seen.evaluate(base)), "tuned": _in_frontier(seen.evaluate(tuned))}
    return {"ends": ends, "lines": sweep_result(lines, table, scores)}


def _in_frontier(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Return the two scores that a frontier is drawn of."""
    return {name: dict(rows[name]) for name in _IN_FRONTIER}


def build_scores(
    results: Mapping[str, Mapping[str, Any]], spectra: Mapping[str, Mapping[str, float]], phases: tuple[Phase, ...]
) -> dict[str, Any]:
    """Return the content of ``scores.json``."""
    train, held_out = (len(digits.labels) for digits in load_digits_split())
    benchmarks = {view: {"role": "held_out", "metric": "accuracy", "higher_is_better": True} for view in VIEWS}
    benchmarks[HELD_OUT] = {"role": "summary", "mean_of": list(VIEWS), "metric": "accuracy", "higher_is_better": True}
    benchmarks[TARGET] = {"role": "on_task", "metric": "accuracy", "higher_is_better": True}
    return {
        "scores": [
            {"model": model, "benchmark": benchmark, **row}
            for model, rows in results.items()
            for benchmark, row in rows.items()
        ],
        "benchmarks": benchmarks,
        "models": {name: _describe_model(name) for name in results},
        "spectra": spectra,
        "split": {"data": "sklearn.datasets.load_digits", "train": train, "held_out": held_out},
        "recipe": describe_recipe(phases),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "transformers", "scikit-learn", "numpy")},
    }


def _describe_model(name: str) -> dict[str, Any]:
    """Return what a scored model is: its role, and for a repair the method and its parameters."""
    tuned, _, repair = name.partition("/")
    if not repair:
        return {"role": "base"} if name == "base" else {"role": "tuned", "base": "base"}
    plan = _REPAIRS[repair]
    params = dict(plan.method_params) if plan != RepairPlan() else {}
    described = {"role": "repaired", "base": "base", "tuned": tuned, "method": plan.method, "params": params}
    return {**described, "control": True} if plan.recipe.control else described


def _describe_spectra(tensors: Mapping[str, Any]) -> dict[str, float]:
    """Return medians over the full-size weights of the default repair."""
    repaired = [row for row in tensors.values() if row["action"] == "repair"]
    # The 24 weights of attention and MLP; position embeddings and classifier have too few directions to compare.
    full = [row for row in repaired if min(row["shape"]) >= 128]
    matrices = [matrix for row in full for matrix in row["matrices"]]
    return {
        "repaired_weights": len(repaired),
        "full_weights": len(full),
        "directions": min(min(row["shape"]) for row in full),
        "median_rank": statistics.median(matrix["rank"] for matrix in matrices),
        "median_energy_kept": statistics.median(matrix["energy_kept"] for matrix in matrices),
        "median_mp_fit": statistics.median(matrix["mp_fit"]["tuned"] for matrix in matrices),
    }
