"""Every repair method on one pair of a calibration: how much it heals at a target score that one wants kept.

A method is tried at strengths of the registry (the first parameter of its sweep), searched for the strongest that
keeps the target: the fewer are tried, the less the best of them is luck. Repaired tensors are what an export would
write; transformers takes them from memory, which is checked with those of base and tuned.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgviz.analysis.sweep import SweepLine, sweep_lines
from dgviz.calibration.measure import Means, ask_model, percent, value_of
from dgviz.calibration.models import load_model
from dgviz.calibration.recipes import Run
from dgviz.calibration.tasks import SIDES, Task, find_task
from dgviz.checkpoint import Checkpoint, CheckpointPair, open_pair, read_tensor
from dgviz.errors import DgvizError
from dgviz.files import write_json
from dgviz.forecast.methods import FLOORS
from dgviz.repair.methods import METHODS
from dgviz.repair.plan import RepairPlan
from dgviz.repair.tensor import repair_tensor
from dgviz.repair.whole_model import prepare_method

_Items = dict[str, NDArray[np.float64]]  # by side, the score of every example


def measure_methods(run: Run, directory: Path, device: str = "cpu") -> dict[str, Any]:
    """Return what every method does to a pair that lies in a calibration's folder, and write it there."""
    folder = directory / "checkpoints" / run.name
    scored = _Scored(open_pair(folder / "base", folder / "tuned"), find_task(run.architecture), device)
    found = {name: scored.search(line) for name, line in _lines().items()}
    means = Means(scored.base)
    damage = means.of(scored.base)["base"] - means.of(scored.tuned)["base"]
    gain = means.of(scored.tuned)["target"] - means.of(scored.base)["target"]
    result = {
        "name": run.name,
        "family": run.family,
        "damage": value_of(100 * damage),
        "gain": value_of(100 * gain),
        "tried": len(scored.known) - 2,
        "methods": {
            name: {str(floor): scored.best(tried, floor, means) for floor in FLOORS} for name, tried in found.items()
        },
    }
    (directory / "methods").mkdir(exist_ok=True)
    write_json(directory / "methods" / f"{run.name}.json", result)
    return result


def _lines() -> dict[str, SweepLine]:
    """Return every method along its first strength."""
    return {line.method: line for line in sweep_lines(RepairPlan(method=name) for name in METHODS)}


class _Scored:
    """A pair whose repairs are scored, each once."""

    def __init__(self, pair: CheckpointPair, task: Task, device: str) -> None:
        self._pair, self._task, self._device = pair, task, device
        self.known: dict[str, _Items] = {}
        self.base, self.tuned = (self._checked(side) for side in (pair.base, pair.tuned))

    def _checked(self, side: Checkpoint) -> _Items:
        """Return the scores of one side as it lies there, which must be those of its tensors."""
        items = ask_model(load_model(side.path), self._task)
        found = self._score({name: read_tensor(info) for name, info in side.tensors.items()})
        if any(not np.array_equal(found[name], items[name]) for name in SIDES):
            raise DgvizError(f"{side.path} scores otherwise from memory than from its files: this is a fault here")
        return items

    def _score(self, tensors: dict[str, Any]) -> _Items:
        """Return the scores of the model with these weights; of equal weights they are known."""
        digest = hashlib.sha256()
        for name in sorted(tensors):
            digest.update(tensors[name].float().numpy().tobytes())
        key = digest.hexdigest()
        if key not in self.known:
            self.known[key] = ask_model(load_model(self._pair.tuned.path, tensors), self._task)
        return self.known[key]

    def repaired(self, plan: RepairPlan) -> _Items:
        """Return the scores under a plan."""
        facts = prepare_method(self._pair, plan, self._device)
        tensors = {}
        for paired in self._pair.tensors:
            if paired.tuned is not None:
                done = repair_tensor(paired, plan, self._device, facts=facts)
                tensors[paired.name] = read_tensor(done.source) if done.tensor is None else done.tensor
        return self._score(tensors)

    def kept(self, items: _Items) -> float:
        """Return the target kept in percent, over all examples."""
        base, tuned, own = (side["target"].mean() for side in (self.base, self.tuned, items))
        return float(100 * (own - base) / (tuned - base))

    def search(self, line: SweepLine) -> dict[str, _Items]:
        """Return the strengths tried, by label: both ends, and those that lead to the strongest within each floor."""
        plans = [plan for _, plan in line.points]
        tried = {plan.label: self.repaired(plan) for plan in (plans[0], plans[-1])}
        if self.kept(tried[plans[0].label]) < self.kept(tried[plans[-1].label]):
            plans.reverse()
        for floor in sorted(FLOORS):
            near, far = 0, len(plans) - 1
            while far - near > 1:
                middle = (near + far) // 2
                label = plans[middle].label
                if label not in tried:
                    tried[label] = self.repaired(plans[middle])
                near, far = (middle, far) if self.kept(tried[label]) >= floor else (near, middle)
        return tried

    def best(self, tried: dict[str, _Items], floor: float, means: "Means") -> dict[str, Any]:
        """Return the strength that heals most of those that keep so much, tuned as it is among them.

        Chosen on all examples; ``healed_apart`` is chosen on one half of them and read on the other, both ways.
        """
        choices = {"": self.tuned, **tried}
        label = self._choose(choices, floor, slice(None))
        own, tuned, base = (means.of(items) for items in (choices[label], self.tuned, self.base))
        halves = [slice(0, None, 2), slice(1, None, 2)]
        apart = [
            self._healed(choices[self._choose(choices, floor, chosen)], read)
            for chosen, read in (halves, halves[::-1])
        ]
        return {
            "label": label,
            "healed": value_of(percent(own["base"] - tuned["base"], base["base"] - tuned["base"])),
            "target_kept": value_of(percent(own["target"] - base["target"], tuned["target"] - base["target"])),
            "healed_apart": round(float(np.mean(apart)), 3),
        }

    def _choose(self, choices: dict[str, _Items], floor: float, part: slice) -> str:
        """Return the label that heals most among those that keep so much of the target, on a part of the examples."""
        cut = {label: {side: scores[part] for side, scores in items.items()} for label, items in choices.items()}
        base, tuned = self.base["target"][part].mean(), self.tuned["target"][part].mean()
        need = base + floor / 100 * (tuned - base) - 1e-12
        allowed = [label for label, items in cut.items() if not label or items["target"].mean() >= need]
        return max(allowed, key=lambda label: cut[label]["base"].mean())

    def _healed(self, items: _Items, part: slice) -> float:
        """Return healing read on a part of the examples, in percent of the damage over all of them."""
        damage = self.base["base"].mean() - self.tuned["base"].mean()
        return float(100 * (items["base"][part].mean() - self.tuned["base"][part].mean()) / damage)
