"""`dgviz fit` judged: fitted scales against WiSE-FT chosen on the same samples, pair by pair and seed by seed.

Every model is asked in memory, for the share of its right answers and for the log-likelihood of the right ones,
which varies less from example to example. *Ahead* is healing above that of WiSE-FT at the same true target, read off
a curve of true scores over alpha; standard errors are those of resampled held-out examples, the same for every model.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dgviz.calibration.measure import Means, make_pair, percent, value_of
from dgviz.calibration.recipes import FAMILIES, PICTURES, Run
from dgviz.calibration.tasks import MASK, SIDES, find_task
from dgviz.checkpoint import CheckpointPair
from dgviz.demo.evaluation import one_thread, quiet_transformers
from dgviz.files import read_json, replacing, write_file, write_json
from dgviz.fit.blend import Blend
from dgviz.fit.path import STEPS, Objective, Point, choose_point, iter_path
from dgviz.fit.samples import Samples, draw_gaps, draw_texts, hash_samples

KEEPS = (98, 95, 90)
ALPHAS = tuple(round(0.5 + 0.05 * step, 2) for step in range(11))
METRICS = ("right", "likelihood")
SAMPLES = 48
_Scores = dict[str, NDArray[np.float64]]  # by side: the scores of every example, (metrics, examples)


def iter_fits(directory: Path, runs: Sequence[Run], seeds: int, steps: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield what `judge_fit` finds for every seed and pair, with one scale a tensor and then with two a matrix.

    Parameters
    ----------
    directory : Path
        A calibration's; what is in its ``fits`` is not done again, and pairs that it lacks are trained.
    runs : sequence of Run
        Pairs; of pictures there are no texts, and they are passed over.
    seeds : int
        How many; all pairs with the first seed come first.
    steps : int, optional
        At most so many steps of every training, to try it out.
    """
    spoken = [run for run in runs if FAMILIES[run.architecture] != PICTURES]
    for seed in range(seeds):
        for run in spoken:
            for split in (False, True):
                yield judge_fit(run, directory, seed, split, steps)


def judge_fit(run: Run, directory: Path, seed: int, split: bool, steps: int | None = None) -> dict[str, Any]:
    """Return what a fit does for a pair, and write it into the directory; what is there is read."""
    file = directory / "fits" / f"{run.name}{'-split' if split else ''}-{seed}.json"
    known = read_json(file)
    if known is not None:
        return known
    file.parent.mkdir(exist_ok=True)
    pair = make_pair(run, directory, steps)
    started = time.process_time()
    with one_thread(), quiet_transformers():
        found = _judge(run, pair, file.parent / f"{run.name}.npz", seed, split)
    found["seconds"] = round(time.process_time() - started, 1)
    write_json(file, found)
    return found


def _judge(run: Run, pair: CheckpointPair, scored: Path, seed: int, split: bool) -> dict[str, Any]:
    blend, task = Blend(pair, split, "cpu"), find_task(run.architecture)
    curve = _curve(blend, task, scored)
    samples = [_draw(blend, task, scale, 2 * seed + scale) for scale in (0, 1)]
    objective = Objective(blend, *samples)
    averages: list[Point] = []
    while not averages or averages[-1].target_kept >= min(KEEPS):
        alpha = 1 - 0.1 * len(averages)
        averages.append(objective.point(alpha, blend.scales(alpha)))
    path = list(iter_path(objective, min(KEEPS), seed, STEPS))
    rows = []
    for keep in KEEPS:
        chosen = {"wise_ft": choose_point(objective, averages, keep), "fit": choose_point(objective, path, keep)}
        alpha = chosen["wise_ft"].scales[0]
        scores = {"wise_ft": _read(curve, alpha), "fit": _ask(blend, task, chosen["fit"].scales)}
        estimates = {name: _estimates(objective, point) for name, point in chosen.items()}
        row = {"keep": keep, "strength": chosen["fit"].strength, "alpha": alpha, "estimates": estimates}
        rows.append(row | {metric: compare(curve, scores, place) for place, metric in enumerate(METRICS)})
    return {
        "name": run.name,
        "base": run.base,
        "family": run.family,
        "seed": seed,
        "split": split,
        "parameters": sum(info.numel for info in pair.tuned.tensors.values()),
        "scales": len(blend.parts),
        "examples": task.examples,
        "samples": hash_samples(*samples),
        "rows": rows,
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy")},
    }


def _estimates(objective: Objective, point: Point) -> dict[str, float]:
    """Return what the samples say of a point, by right first guesses and, as ``near``, by divergence."""
    scales = objective.tensor(point.scales)
    return {
        "target_kept": point.target_kept,
        "healed": objective.base.kept(scales),
        "near_tuned": objective.tuned.share(scales),
        "near_base": objective.base.share(scales),
    }


def _draw(blend: Blend, task: Any, scale: int, seed: int) -> Samples:
    """Return one side's own samples."""
    ask = blend.at(blend.scales(scale))
    if blend.masked:
        return draw_gaps(ask, MASK, SAMPLES, task.length, seed)
    return draw_texts(ask, blend.model.config, SAMPLES, task.length, seed)


def _ask(blend: Blend, task: Any, scales: Sequence[float]) -> _Scores:
    """Return the true scores at some scales, example by example."""
    model, found = blend.at(torch.tensor(scales)), {}
    for side in SIDES:
        shown, answers, asked = (torch.from_numpy(part) for part in task.held_out(side))
        with torch.inference_mode():
            said = model(input_ids=shown).logits.log_softmax(-1)
        likelihood = said.gather(-1, answers.unsqueeze(-1)).squeeze(-1)
        scores = [(part * asked).sum(1) / asked.sum(1) for part in (said.argmax(-1) == answers, likelihood)]
        found[side] = torch.stack(scores).double().numpy()
    return found


def _curve(blend: Blend, task: Any, file: Path) -> dict[float, _Scores]:
    """Return the true scores of base and of WiSE-FT over alpha; kept for other seeds."""
    alphas = (0.0, *ALPHAS)
    if not file.exists():
        found = [_ask(blend, task, blend.scales(alpha).tolist()) for alpha in alphas]
        with replacing(file) as fresh, fresh.open("wb") as stream:
            np.savez(stream, **{side: np.stack([scores[side] for scores in found]) for side in SIDES})
    with np.load(file) as data:
        return {alpha: {side: data[side][number] for side in SIDES} for number, alpha in enumerate(alphas)}


def _read(curve: Mapping[float, _Scores], alpha: float) -> _Scores:
    """Return the scores of WiSE-FT at any alpha, between those of its neighbours on the curve."""
    low = max(known for known in curve if known <= alpha)
    high = min(known for known in curve if known >= alpha)
    share = (alpha - low) / (high - low) if high > low else 0.0
    return {side: (1 - share) * curve[low][side] + share * curve[high][side] for side in SIDES}


def compare(curve: Mapping[float, _Scores], scores: Mapping[str, _Scores], metric: int = 0) -> dict[str, Any]:
    """Return healing and target kept of models in percent, and how far they heal above WiSE-FT at the same target.

    Parameters
    ----------
    curve : mapping
        By alpha the scores of WiSE-FT; 0 is base and 1 tuned.
    scores : mapping
        By name, the scores of other models.
    metric : int
        Which of `METRICS`.
    """
    only = lambda model: {side: model[side][metric] for side in SIDES}  # noqa: E731
    resampled = Means(only(curve[0]))
    of = lambda model: resampled.of(only(model))  # noqa: E731
    base, tuned = of(curve[0]), of(curve[1])
    damage, gain = base["base"] - tuned["base"], tuned["target"] - base["target"]
    healed = lambda means: percent(means["base"] - tuned["base"], damage)  # noqa: E731
    kept = lambda means: percent(means["target"] - base["target"], gain)  # noqa: E731
    averaged = [of(curve[alpha]) for alpha in sorted(curve) if alpha > 0]
    own, target = (np.stack([figure(means) for means in averaged]) for figure in (healed, kept))
    target = np.maximum.accumulate(target, axis=0)  # where a stronger alpha keeps less by chance
    result: dict[str, Any] = {"damage": value_of(100 * damage), "gain": value_of(100 * gain)}
    for name, model in scores.items():
        mine, reached = healed(of(model)), kept(of(model))
        ahead = mine - [np.interp(*columns) for columns in zip(reached, target.T, own.T, strict=True)]
        result[name] = {"healed": value_of(mine), "target_kept": value_of(reached), "ahead": value_of(ahead)}
    return result


def summarise_fits(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row a metric, form and share to be kept: how far fits are ahead, a base being one measurement.

    Of every base the mean over its pairs and seeds; the standard error is that of the mean over bases. ``better`` and
    ``pairs`` count pairs by their mean over seeds, ``target_kept`` is the true share kept on average. A
    pair without damage or gain is left out: shares of it mean nothing.
    """
    rows = []
    cases = product(METRICS, sorted({result["split"] for result in results}), enumerate(KEEPS))
    for metric, split, (place, keep) in cases:
        own = [(result, result["rows"][place][metric]["fit"]) for result in results if result["split"] == split]
        found = [(result, fit) for result, fit in own if fit["ahead"]["value"] is not None]
        if not found:
            continue
        by_pair, by_base = (_means(found, key) for key in ("name", "base"))
        values = list(by_base.values())
        rows.append(
            {
                "metric": metric,
                "split": split,
                "keep": keep,
                "mean": float(np.mean(values)),
                "stderr": float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None,
                "bases": by_base,
                "better": sum(value > 0 for value in by_pair.values()),
                "pairs": len(by_pair),
                "target_kept": float(np.mean([fit["target_kept"]["value"] for _, fit in found])),
            }
        )
    return rows


def write_fits(directory: Path) -> Path:
    """Write the table of all bases judged in a calibration's folder, as the package has it; return where.

    The package's own is ``dgviz/forecast/fits.json``.
    """
    results = [read_json(file) for file in sorted((directory / "fits").glob("*.json"))]
    single = [result for result in results if not result["split"]]
    rows = []
    for name in sorted({result["base"] for result in single}):
        own = [result for result in single if result["base"] == name]
        summary = {row["keep"]: row["mean"] for row in summarise_fits(own) if row["metric"] == "likelihood"}
        config = read_json(directory / "bases" / name / "config.json")
        rows.append(
            {
                "base": name,
                "architecture": config["architectures"][0],
                "layers": config.get("num_hidden_layers") or config["n_layer"],
                "parameters": own[0]["parameters"],
                "pairs": len({result["name"] for result in own}),
                "seeds": len({result["seed"] for result in own}),
                "ahead": {str(keep): round(mean, 2) for keep, mean in summary.items()},
            }
        )
    lines = ",\n".join(json.dumps(row) for row in rows)
    write_file(directory / "fits.json", f"[\n{lines}\n]\n".encode())
    return directory / "fits.json"


def _means(found: Sequence[tuple[Mapping[str, Any], Any]], key: str) -> dict[str, float]:
    """Return the mean lead of results by one of their properties."""
    groups: dict[str, list[float]] = {}
    for result, fit in found:
        groups.setdefault(result[key], []).append(fit["ahead"]["value"])
    return {name: float(np.mean(values)) for name, values in groups.items()}
