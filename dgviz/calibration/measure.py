"""One pair measured: trained, repaired as a user would repair it, scored, and what its scores are worth.

Every model is written to disk and loaded again by transformers. Healing is how far a repair comes back from tuned to
base on base's own task, target kept how far it stays from base on the target, both in percent; standard errors are
those of 1000 resamples of the examples, the same ones for every model. The strength of WiSE-FT is chosen anew in
every resample.
"""

import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgviz.analysis.model_spectra import StoredWeight, assess
from dgviz.calibration.models import load_model
from dgviz.calibration.recipes import ALPHAS, Run
from dgviz.calibration.tasks import SIDES, Task, find_task
from dgviz.calibration.train import train_base, train_pair
from dgviz.checkpoint import CheckpointPair, open_pair
from dgviz.demo.evaluation import one_thread
from dgviz.export.passing import iter_written
from dgviz.files import replacing, write_json
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.weight import weights_of

_AVERAGED = "wise_ft "
CONTROLS = ("norm_matched", "norm_matched_global")
_RESAMPLES = 1000
_Items = dict[str, dict[str, NDArray[np.float64]]]  # by model and side, the score of every example


def measure_run(
    run: Run, directory: Path, steps: int | None = None, alphas: Sequence[float] = ALPHAS, device: str = "cpu"
) -> dict[str, Any]:
    """Return the result of a pair, and write it into the directory; what is trained already is not trained again."""
    started = time.perf_counter()
    pair = make_pair(run, directory, steps)
    task = find_task(run.architecture)
    items = _score(pair, task, alphas, device)
    result = {
        "name": run.name,
        "family": run.family,
        "architecture": run.architecture,
        "recipe": run.recipe,
        "seed": run.seed,
        **_describe(pair),
        **summarise(items),
        "data": task.data,
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "numpy")},
        "seconds": round(time.perf_counter() - started, 1),
    }
    (directory / "pairs").mkdir(exist_ok=True)
    with replacing(directory / "pairs" / f"{run.name}.npz") as fresh, fresh.open("wb") as file:
        np.savez(file, **{f"{model} on {side}": rows for model, own in items.items() for side, rows in own.items()})
    write_json(directory / "pairs" / f"{run.name}.json", result)
    return result


def make_pair(run: Run, directory: Path, steps: int | None = None) -> CheckpointPair:
    """Return a pair of a calibration's folder; what is not there is trained."""
    base, folder = directory / "bases" / run.base, directory / "checkpoints" / run.name
    if not base.exists():
        train_base(run.architecture, run.seed, base, steps)
    if not folder.exists():
        train_pair(run, base, folder, steps)
    return open_pair(folder / "base", folder / "tuned")


def _describe(pair: CheckpointPair) -> dict[str, Any]:
    """Return size and spectrum of a pair: what DG-Hard with its own settings drops of the update's energy."""
    rows = []
    for weight in weights_of(pair):
        rows.append(assess(StoredWeight(weight, OpenWeight(weight, "cpu").measured), "dg_hard", {}))
    energy = sum(row.spectrum.energy for row in rows)
    return {
        "parameters": sum(info.numel for info in pair.tuned.tensors.values()),
        "matrices": len(rows),
        "largest": list(max((row.spectrum.shape for row in rows), key=np.prod)),
        "dropped": 100 * sum(row.dropped_energy for row in rows) / energy,
    }


def _score(pair: CheckpointPair, task: Task, alphas: Sequence[float], device: str) -> _Items:
    """Return the scores of base, tuned and every repair, by what `summarise` calls them."""
    plans = {"dg_hard": RepairPlan(), **{name: RepairPlan(method=name) for name in CONTROLS}}
    plans |= {_at(alpha): RepairPlan(method="wise_ft", method_params={"alpha": alpha}) for alpha in alphas}
    names = {plan.label: name for name, plan in plans.items()}
    items = {
        name: ask_model(load_model(side.path), task) for name, side in (("base", pair.base), ("tuned", pair.tuned))
    }
    for plan, folder, _ in iter_written(pair, list(plans.values()), device):
        items[names[plan.label]] = ask_model(load_model(folder), task)
    return items


def _at(alpha: float) -> str:
    return f"{_AVERAGED}{alpha:g}"


def ask_model(model: Any, task: Task) -> dict[str, NDArray[np.float64]]:
    """Return the scores of a model on both sides of a task."""
    import torch

    with torch.inference_mode(), one_thread():
        return {side: np.asarray(task.score(model, side), dtype=np.float64) for side in SIDES}


class Means:
    """Means over all examples, and over those of every resample: the same ones for every model."""

    def __init__(self, items: Mapping[str, NDArray[np.float64]]) -> None:
        draws = np.random.default_rng(0)
        self._weights = {}
        for side in SIDES:
            n = items[side].size
            resampled = draws.multinomial(n, np.full(n, 1 / n), _RESAMPLES) / n
            self._weights[side] = np.vstack([np.full(n, 1 / n), resampled])

    def of(self, items: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Return the means of one model's scores, by side; the first is of all examples."""
        return {side: self._weights[side] @ items[side] for side in SIDES}


def summarise(items: _Items) -> dict[str, Any]:
    """Return what scores example by example say: damage and gain in points, healing and target kept in percent.

    Parameters
    ----------
    items : dict
        By model (``base``, ``tuned``, ``dg_hard``, the controls, ``wise_ft ALPHA``) and side, one score per example.
    """
    resampled = Means(items["base"])
    means = {model: resampled.of(scores) for model, scores in items.items()}
    own, target = ({model: found[side] for model, found in means.items()} for side in ("base", "target"))
    damage, gain = own["base"] - own["tuned"], target["tuned"] - target["base"]

    def healed(scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return percent(scores - own["tuned"], damage)

    def kept(scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return percent(scores - target["base"], gain)

    def both(model: str) -> dict[str, Any]:
        return {"healed": value_of(healed(own[model])), "target_kept": value_of(kept(target[model]))}

    alphas = [float(model.removeprefix(_AVERAGED)) for model in items if model.startswith(_AVERAGED)]
    averaged = [*map(_at, alphas), "tuned"]
    chosen = _choose([own[name] for name in averaged], [target[name] for name in averaged], target["dg_hard"])
    best = [np.choose(chosen, [scores[name] for name in averaged]) for scores in (own, target)]
    dg_hard = healed(own["dg_hard"])
    same = {
        "alpha": (*alphas, 1.0)[chosen[0]],
        "healed": value_of(healed(best[0])),
        "target_kept": value_of(kept(best[1])),
        "ahead": value_of(healed(best[0]) - dg_hard),
    }
    control = {**both("norm_matched"), "ahead": value_of(healed(own["norm_matched"]) - dg_hard)}
    control["ahead_target"] = value_of(kept(target["norm_matched"]) - kept(target["dg_hard"]))
    return {
        "damage": value_of(100 * damage),
        "gain": value_of(100 * gain),
        "scores": {side: {m: value_of(100 * means[m][side]) for m in ("base", "tuned", "dg_hard")} for side in SIDES},
        "dg_hard": both("dg_hard"),
        "wise_ft": same,
        "norm_matched": control,
        "norm_matched_global": both("norm_matched_global"),
        "wise_ft_curve": [{"alpha": alpha, **both(_at(alpha))} for alpha in alphas],
    }


def _choose(own: list[NDArray], target: list[NDArray], reached: NDArray) -> NDArray[np.int64]:
    """Return the strength of the highest score on base's task whose target is no worse than DG-Hard's; else the last.

    Among the strengths that were scored, tuned being the last; decided for every resample on its own.
    """
    allowed = np.stack(target) >= reached - 1e-12
    allowed[-1] |= ~allowed.any(axis=0)
    return np.where(allowed, np.stack(own), -np.inf).argmax(axis=0)


def percent(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return shares in percent; of nothing there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(whole) > 1e-12, 100 * part / whole, np.nan)


def value_of(resampled: NDArray[np.float64]) -> dict[str, float | None]:
    """Return a figure and its standard error over the resamples in which it is defined; the first is of all examples.

    The error is half the width of the middle 68 %, for a ratio whose denominator comes near zero has no variance.
    """
    rest = resampled[1:][np.isfinite(resampled[1:])]
    if not np.isfinite(resampled[0]) or rest.size < _RESAMPLES // 2:
        return {"value": None, "stderr": None}
    low, high = np.quantile(rest, (0.159, 0.841))
    return {"value": round(float(resampled[0]), 3), "stderr": round(float(high - low) / 2, 3)}
