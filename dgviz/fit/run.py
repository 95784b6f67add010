"""A fit from a pair to a plan's file, which holds all that a run that was stopped goes on from."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.fingerprint import sample_contents
from dgviz.errors import MethodError, PlanError
from dgviz.files import pretty_json, read_json, write_file
from dgviz.fit.blend import Blend, Part
from dgviz.fit.path import STEPS, Objective, Point, choose_point, iter_path
from dgviz.fit.samples import Samples, draw_gaps, draw_texts, hash_samples
from dgviz.repair.plan import RepairPlan
from dgviz.words import exact_number


@dataclass(frozen=True)
class FitSettings:
    """What decides every number of a fit, besides the pair.

    Attributes
    ----------
    split : bool
        Two scales a matrix, above and below DG-Hard's tau, in place of one.
    seed : int
        Of the samples and of the order in which they are gone through.
    samples, length : int
        Texts of either side, and tokens of each.
    steps : int
        Of Adam at the first strength; half of it at the others.
    mask : int or None
        Token of a gap, for a masked model whose config does not say it.
    """

    split: bool = False
    seed: int = 0
    samples: int = 48
    length: int = 96
    steps: int = STEPS
    mask: int | None = None


def iter_fit(
    pair: CheckpointPair, out: Path, settings: FitSettings, keep: float, device: str = "auto"
) -> Iterator[Point]:
    """Fit a pair, and write the plan that keeps a share of the target; yield every point of the path.

    Parameters
    ----------
    pair : CheckpointPair
        Two causal or two masked language models of transformers.
    out : Path
        File of the plan. One of the same pair and settings is gone on from, whatever it was to keep.
    settings : FitSettings
        How it is fitted.
    keep : float
        Of the target, in percent, estimated from tuned's samples.
    device : str
        Where the model is asked.

    Raises
    ------
    MethodError
        If the model is no language model, or both sides say the same.
    PlanError
        If the file holds something else, or `keep` is no such share.
    """
    if not 0 < keep < 100:
        raise PlanError(f"what is kept of the target is between 0 and 100 percent; got {keep:g}")
    inputs = [sample_contents(pair.base), sample_contents(pair.tuned)]
    versions = {name: version(name) for name in ("torch", "transformers")}
    made = {"inputs": inputs, **dataclasses.asdict(settings), "versions": versions}
    state = _read(out, made)
    blend = Blend(pair, settings.split, device)
    if "samples" not in state:
        base, tuned = (_draw(blend, settings, scale) for scale in (0, 1))
        state |= {"sha256": hash_samples(base, tuned), "samples": [base.to_json(), tuned.to_json()], "path": []}
        _write(out, state)
    objective = Objective(blend, *map(Samples.from_json, state["samples"]))
    path: list[Point] = []
    for point in iter_path(objective, keep, settings.seed, settings.steps, [Point(**row) for row in state["path"]]):
        path.append(point)
        if len(path) > len(state["path"]):
            state["path"].append(dataclasses.asdict(point))
            _write(out, state)
        yield point
    chosen = choose_point(objective, path, keep)
    healed = objective.base.kept(objective.tensor(chosen.scales))
    plan = fitted_plan(blend.parts, chosen.scales, settings.seed, state["sha256"])
    state["chosen"] = {"keep": keep, "target_kept": chosen.target_kept, "healed": healed, "strength": chosen.strength}
    _write(out, state, plan)


def fitted_plan(parts: Sequence[Part], scales: Sequence[float], seed: int, sha256: str) -> RepairPlan:
    """Return the plan that gives every part its scale; what has none stays tuned's."""
    settings: dict[str, dict[str, float]] = {}
    for part, scale in zip(parts, scales, strict=True):
        settings.setdefault(part.tensor, {})[part.which] = scale
    overrides = []
    for tensor, values in settings.items():
        if set(values.values()) != {1.0}:
            given = {"method": "wise_ft" if "alpha" in values else "split"}
            given |= {name: exact_number(value) for name, value in values.items()}
            overrides.append(f"name={tensor}: {', '.join(f'{name}={value}' for name, value in given.items())}")
    params = {"above": 1, "below": 1, "fit_seed": seed, "fit_samples": int(sha256[:13], 16)}
    return RepairPlan(method="split", method_params=params, overrides=overrides)


def _read(out: Path, made: dict[str, Any]) -> dict[str, Any]:
    """Return what an earlier run has left of the same fit, or a new beginning."""
    found = read_json(out) if out.exists() else {"fit": {"made": made}}
    state = found.get("fit") if isinstance(found, dict) else None
    if not isinstance(state, dict) or state.get("made") != made:
        raise PlanError(f"{out} holds no fit of this pair with these settings and versions: name a new file")
    return state


def _write(out: Path, state: dict[str, Any], plan: RepairPlan | None = None) -> None:
    write_file(out, pretty_json({"fit": state, **({"plan": plan.to_json()} if plan else {})}))


def _draw(blend: Blend, settings: FitSettings, scale: int) -> Samples:
    """Return one side's own samples."""
    ask, config, mask = blend.at(blend.scales(scale)), blend.model.config, settings.mask
    count, length, seed = settings.samples, settings.length, 2 * settings.seed + scale
    if not blend.masked:
        return draw_texts(ask, config, count, length, seed)
    mask = getattr(config, "mask_token_id", None) if mask is None else mask
    if mask is None:
        raise MethodError(f"the config of {blend.pair.tuned.path} names no mask_token_id: give it as --mask-token")
    return draw_gaps(ask, mask, count, length, seed)
