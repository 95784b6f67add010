"""Layer masks written, scored and tabulated, one after another; what a stopped run left is taken up again."""

import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dgviz.analysis.study.marks import UNDEFINED, Entry, rank_entries
from dgviz.analysis.study.masks import LayerMask
from dgviz.analysis.study.tables import PaperTable
from dgviz.checkpoint import CheckpointPair
from dgviz.errors import EvaluationError, ScoresError
from dgviz.export.batch import iter_exports, plan_exports
from dgviz.files import read_json, write_json
from dgviz.scores import ModelRole, ScoreTable, merge_tables, read_scores
from dgviz.scores.evaluate import BACKENDS, Settings, checkpoint_hash, iter_evaluation, write_results
from dgviz.scores.evaluate.settings import folder_hash
from dgviz.scores.recovery import METRICS, Comparison, Recovery
from dgviz.words import some

_RECORD, _RESULTS, _CHECKPOINTS = "masks.json", "results", "checkpoints"
_METRICS = ("combined_population", "healed", "preserved", "non_damage", "on_task_retention")


@dataclass(frozen=True)
class MaskScorer:
    """Who scores a checkpoint.

    Attributes
    ----------
    score : callable
        Takes the checkpoint's folder, a name for it, and the folder to write its scores to.
    record : mapping
        What decides the scores; a folder of scores by another scorer is not taken up.
    """

    score: Callable[[Path, str, Path], Any]
    record: Mapping[str, Any]


def evaluating(tasks: Sequence[str], backend: str, settings: Settings) -> MaskScorer:
    """Return what scores with a backend, as `evaluate` does."""

    def score(model: Path, name: str, out: Path) -> None:
        scored = list(iter_evaluation(model, tasks, backend, settings))
        write_results(name, backend, settings, scored, out)

    if backend in BACKENDS:
        BACKENDS[backend].check(tasks, settings)
    said = {name: getattr(settings, name) for name in ("limit", "shots", "chat", "model_args", "generation")}
    said |= {"task_files": folder_hash(settings.task_path)}
    return MaskScorer(score, {"backend": backend, "tasks": list(tasks), **said})


def commanding(command: str) -> MaskScorer:
    """Return what scores by a command of the user's, in whose words ``{model}`` and ``{out}`` are filled in.

    Raises
    ------
    EvaluationError
        If it is no command or names one of the two nowhere.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise EvaluationError(f"--scorer {command!r} is no command: {error}") from error
    for place in ("{model}", "{out}"):
        if not any(place in word for word in words):
            raise EvaluationError(f"--scorer {command!r} has no {place}: write it where the folder belongs")

    def score(model: Path, name: str, out: Path) -> None:
        filled = [word.replace("{model}", str(model)).replace("{out}", str(out)) for word in words]
        try:
            status = subprocess.run(filled, stdout=2, check=False).returncode
        except OSError as error:
            raise EvaluationError(f"--scorer {filled[0]} cannot be run: {error.strerror or error}") from error
        if status:
            raise EvaluationError(f"--scorer failed on {name} with exit status {status}: {shlex.join(filled)}")

    return MaskScorer(score, {"command": command})


@dataclass(frozen=True)
class ScoredModel:
    """A model whose scores are there.

    Attributes
    ----------
    name : str
        ``base``, ``tuned``, or that of its mask.
    table : ScoreTable
        Its scores.
    remembered : bool
        Whether an earlier run had scored it.
    """

    name: str
    table: ScoreTable
    remembered: bool


def iter_masks(
    pair: CheckpointPair,
    masks: Sequence[LayerMask],
    scorer: MaskScorer,
    folder: Path,
    device: str = "auto",
    keep: bool = False,
) -> Iterator[ScoredModel]:
    """Score base, tuned and every mask, writing a mask's checkpoint only where its scores are not there yet.

    Parameters
    ----------
    pair : CheckpointPair
        What is repaired.
    masks : sequence of LayerMask
        From `layer_masks`; the first is the whole repair.
    scorer : MaskScorer
        Who scores.
    folder : Path
        Of scores, and of checkpoints while they are scored.
    device : str
        Where repairs are computed.
    keep : bool
        Whether checkpoints stay.

    Raises
    ------
    EvaluationError
        If the folder holds masks of another pair, plan or scorer, or a model cannot be scored.
    """
    _take_up(folder, _record(pair, masks[0], scorer))
    yield _scored(folder, "base", scorer, pair.base.path)
    yield _scored(folder, "tuned", scorer, pair.tuned.path)
    for mask in masks:
        if _results(folder, mask.name).exists():
            yield _scored(folder, mask.name, scorer, None)
            continue
        place = folder / _CHECKPOINTS / _folder_name(mask.name)
        plans, _ = plan_exports(pair, [mask.plan], place)
        for _ in iter_exports(plans, device):
            pass
        (out,) = place.iterdir()
        yield _scored(folder, mask.name, scorer, out)
        if not keep:
            shutil.rmtree(place)


def _record(pair: CheckpointPair, whole: LayerMask, scorer: MaskScorer) -> dict[str, Any]:
    """Return what scores in a folder hang on."""
    sides = {side: checkpoint_hash(getattr(pair, side)) for side in ("base", "tuned")}
    return {**sides, "plan": whole.plan.to_json(), "scorer": dict(scorer.record)}


def _take_up(folder: Path, record: dict[str, Any]) -> None:
    """Note what a folder's scores are of; refuse one whose scores are of something else."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = read_json(folder / _RECORD)
        if before is None:
            if any(folder.iterdir()):
                raise EvaluationError(f"{folder} holds other files: name a new or empty folder for the masks")
            write_json(folder / _RECORD, record)
            return
    except OSError as error:
        raise EvaluationError(f"{folder} cannot be written: {error.strerror or error}") from error
    differing = [name for name in record if not isinstance(before, dict) or before.get(name) != record[name]]
    if differing:
        raise EvaluationError(
            f"{folder} holds masks of another {' and '.join(differing)}: name another folder, or repeat the command "
            "that began it"
        )


def _folder_name(name: str) -> str:
    return name.replace(" ", "-")


def _results(folder: Path, name: str) -> Path:
    """Return where a model's scores lie once they are whole."""
    return folder / _RESULTS / _folder_name(name)


def _scored(folder: Path, name: str, scorer: MaskScorer, model: Path | None) -> ScoredModel:
    """Return a model's scores, scored now unless they are there."""
    results = _results(folder, name)
    remembered = results.exists()
    if not remembered:
        fresh = results.with_name(f"{results.name}.partial")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        scorer.score(model, name, fresh)
        _read(fresh, name)
        fresh.rename(results)
    return ScoredModel(name, _read(results, name), remembered)


def _read(results: Path, name: str) -> ScoreTable:
    """Return the scores in a folder, which are those of one model whatever they call it."""
    table = read_scores([f"{name}={results}"])
    models = table.model_names()
    if len(models) > 1:
        raise ScoresError(
            f"{results} has scores of {some(models)}: a scorer writes those of the one model it is given"
        )
    return ScoreTable(tuple(replace(score, model=name, cell="") for score in table.scores), notes=table.notes)


def mask_scores(scored: Sequence[ScoredModel], on_task: str) -> ScoreTable:
    """Return the scores of all models as one table that says what each of them is."""
    roles = {item.name: ModelRole("repaired", "base", "tuned", item.name) for item in scored}
    roles |= {"base": ModelRole("base"), "tuned": ModelRole("tuned", "base")}
    merged = merge_tables([item.table for item in scored])
    return ScoreTable(merged.scores, roles, {on_task: "on_task"} if on_task else {}, merged.notes)


def scores_json(table: ScoreTable) -> dict[str, Any]:
    """Return a table of scores as `recovery` and the page Evidence read it."""
    columns = ("model", "benchmark", "metric", "stderr", "n", "higher_is_better")
    return {
        "models": {name: {"role": r.role, "base": r.base, "tuned": r.tuned} for name, r in table.models.items()},
        "benchmarks": {name: {"role": role} for name, role in table.roles.items()},
        "scores": [{**{c: getattr(s, c) for c in columns}, "score": s.value} for s in table.scores],
    }


def mask_table(recovery: Recovery, masks: Sequence[LayerMask]) -> PaperTable:
    """Return every mask with what it healed and kept and its raw scores; the best of each metric marked."""
    count = len(masks[0].tensors)
    metrics = [
        rank_entries([Entry(recovery.repaired[mask.name].metrics[n].value, why=UNDEFINED) for mask in masks], 1e-9)
        for n in _METRICS
    ]
    rows = []
    for place, mask in enumerate(masks):
        scores = [
            Entry(i.repaired[mask.name].value if mask.name in i.repaired else None, 3) for i in _items(recovery)
        ]
        share = Entry(100 * len(mask.tensors) / count)
        rows.append(("", (Entry(mask.name), share, *(column[place] for column in metrics), *scores)))
    for role in ("base", "tuned"):
        scores = [Entry(getattr(item, role).value, 3) for item in _items(recovery)]
        rows.append(("", (Entry(role), Entry(""), *[Entry("")] * len(_METRICS), *scores)))
    headings = [METRICS[name].title.partition(" (")[0] for name in _METRICS]
    notes = (
        "in percent but for scores; each mask repairs a part of the tensors and leaves the others as tuned",
        "which masks the paper took is not known",
    )
    title = "Layer masks: repairing a part of the layers"
    columns = ("Repaired", "Tensors", *headings, *(item.benchmark for item in _items(recovery)))
    return PaperTable("layer-masks", title, "", columns, tuple(rows), notes)


def _items(recovery: Recovery) -> list[Comparison]:
    """Return the comparisons, the on-task one last."""
    return sorted(recovery.comparisons, key=lambda item: item.on_task)
