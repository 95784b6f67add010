"""The demo's table of scores: base, the two fine-tunes, and what repairs make of them.

Repaired models are scored as a user would get them: written to disk as full checkpoints by `dgviz.export`, loaded by
transformers. WiSE-FT, ``(1 - alpha) base + alpha tuned`` over every tensor (Wortsman et al. 2022, arXiv 2109.01903),
is the simple alternative that a repair has to be compared with.
"""

import platform
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dgviz.checkpoint import open_pair
from dgviz.demo.data import TARGET, VIEWS, load_digits_split
from dgviz.demo.evaluation import HELD_OUT, evaluate
from dgviz.demo.packaged import demo_files
from dgviz.demo.recipe import Phase, describe_recipe
from dgviz.export import plan_export
from dgviz.plan import RepairPlan

TUNED = ("clean", "noisy")
ALPHAS = (0.25, 0.5, 0.75)
SCORED_MODELS = (
    "base",
    *(name for tuned in TUNED for name in (tuned, f"{tuned}/dg_hard", *(f"{tuned}/wise_ft_{a}" for a in ALPHAS))),
)


def iter_scores(directory: str | Path, phases: tuple[Phase, ...]) -> Iterator[str | dict[str, Any]]:
    """Score a demo's three models and their repairs; yield each name when it is scored, and the table last.

    Parameters
    ----------
    directory : str or Path
        Holds the checkpoints ``base``, ``clean`` and ``noisy``.
    phases : tuple of Phase
        The recipe they were made by, for the record.

    Yields
    ------
    str or dict
        A name of `SCORED_MODELS`; at the end the content of ``scores.json``.

    Raises
    ------
    DgvizError
        If a checkpoint cannot be read, repaired or evaluated.
    """
    folders = demo_files(directory)
    results: dict[str, Mapping[str, Any]] = {}
    spectra: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in SCORED_MODELS:
            tuned, _, method = name.partition("/")
            checkpoint = Path(scratch, "repaired")
            if not method:
                checkpoint = folders[name]
            elif method == "dg_hard":
                spectra[tuned] = _write_dg_hard(folders["base"], folders[tuned], checkpoint)
            else:
                _write_wise_ft(folders["base"], folders[tuned], float(method.rpartition("_")[2]), checkpoint)
            results[name] = evaluate(checkpoint)
            shutil.rmtree(Path(scratch, "repaired"), ignore_errors=True)
            yield name
    yield build_scores(results, spectra, phases)


def build_scores(
    results: Mapping[str, Mapping[str, Any]], spectra: Mapping[str, Mapping[str, float]], phases: tuple[Phase, ...]
) -> dict[str, Any]:
    """Return the content of ``scores.json``.

    Parameters
    ----------
    results : mapping
        For each of `SCORED_MODELS`, what `dgviz.demo.evaluate` returned.
    spectra : mapping
        For each fine-tune, the summary of its weights under DG-Hard.
    phases : tuple of Phase
        The recipe.

    Returns
    -------
    dict
        ``scores`` (rows of model, benchmark, score, stderr, n), what the names of ``benchmarks`` and ``models`` mean,
        the ``spectra`` of the updates, the ``recipe`` with its seeds, the ``split`` and the ``versions`` used.
    """
    train, held_out = load_digits_split()
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
        "split": {
            "data": "sklearn.datasets.load_digits",
            "train": train.labels.size,
            "held_out": held_out.labels.size,
        },
        "recipe": describe_recipe(phases),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "scikit-learn", "numpy")},
        },
    }


def _describe_model(name: str) -> dict[str, Any]:
    """Return what a scored model is: its role, and for a repair the method and its parameters."""
    tuned, _, method = name.partition("/")
    if not method:
        return {"role": "base"} if name == "base" else {"role": "tuned", "base": "base"}
    repaired = {"role": "repaired", "base": "base", "tuned": tuned}
    if method == "dg_hard":
        return {**repaired, "method": "dg_hard", "params": {}}
    return {**repaired, "method": "wise_ft", "params": {"alpha": float(method.rpartition("_")[2])}}


def _write_dg_hard(base: Path, tuned: Path, out: Path) -> dict[str, float]:
    """Export the default repair of a pair; return medians over its full-size weights."""
    from dgviz.export.write import ExportResult, iter_export

    plan = plan_export(open_pair(base, tuned), RepairPlan(), out)
    result = next(event for event in iter_export(plan, device="cpu") if isinstance(event, ExportResult))
    repaired = [row for row in result.tensors.values() if row["action"] == "repair"]
    # The 24 weights of attention and MLP; position embeddings and classifier have too few directions to compare.
    full = [row for row in repaired if min(row["shape"]) >= 128]
    return {
        "repaired_weights": len(repaired),
        "full_weights": len(full),
        "directions": min(min(row["shape"]) for row in full),
        "median_rank": statistics.median(row["rank"] for row in full),
        "median_energy_kept": statistics.median(row["energy_kept"] for row in full),
        "median_mp_fit": statistics.median(row["mp_fit"]["tuned"] for row in full),
    }


def _write_wise_ft(base: Path, tuned: Path, alpha: float, out: Path) -> None:
    """Write ``(1 - alpha) base + alpha tuned``, every tensor, in float32."""
    from safetensors.torch import load_file, save_file

    out.mkdir()
    start, end = load_file(base / "model.safetensors"), load_file(tuned / "model.safetensors")
    mixed = {name: (1 - alpha) * start[name] + alpha * end[name] for name in end}
    save_file(mixed, out / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(tuned / "config.json", out / "config.json")
