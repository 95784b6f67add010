"""Layer masks: the repair of a part of the layers, all others left as tuned (the paper's App. I.2).

Which masks the paper took is not known. Here they are each third of the depth, each class of weight, and all but each
of these.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dgviz.analysis.groups import THIRDS, collect, thirds_of
from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.module_path import CLASSES, cut_name, module_path
from dgviz.checkpoint.selector import Selector
from dgviz.errors import PlanError
from dgviz.repair.overrides import Override, refuse_idle
from dgviz.repair.plan import RepairPlan

EVERYTHING = "all layers"
"""The mask that leaves nothing out: the whole repair."""


@dataclass(frozen=True)
class LayerMask:
    """A part of the weights that is repaired.

    Attributes
    ----------
    name : str
        What it is called.
    plan : RepairPlan
        The repair of this part.
    tensors : tuple of str
        Those that are repaired.
    """

    name: str
    plan: RepairPlan
    tensors: tuple[str, ...]


def layer_masks(pair: CheckpointPair, plan: RepairPlan, chosen: Iterable[str] = ()) -> list[LayerMask]:
    """Return the whole repair and its masks; of masks that repair the same weights the first.

    Parameters
    ----------
    pair : CheckpointPair
        What is repaired.
    plan : RepairPlan
        How.
    chosen : iterable of str
        Names of the only masks wanted beside the whole repair; all by default.

    Raises
    ------
    PlanError
        If the plan changes nothing of the pair, or there is no such mask.
    """
    refuse_idle(plan, pair)
    names = [tensor.name for tensor in pair.tensors if plan.changes(tensor)]
    if not names:
        raise PlanError(f"the plan changes no tensor of {pair.tuned.path}, so there are no layers to mask")
    paths = [module_path(name) for name in names]
    parts = collect(zip(thirds_of(paths), names, strict=True), THIRDS[:3])
    parts.pop(THIRDS[3], None)
    parts |= collect(zip((path.kind for path in paths), names, strict=True), CLASSES)
    rest = {f"all but {part}": [name for name in names if name not in set(own)] for part, own in parts.items()}
    masks: dict[tuple[str, ...], str] = {tuple(names): EVERYTHING}
    for name, own in {**parts, **rest}.items():
        if own:
            masks.setdefault(tuple(own), name)
    wanted = list(chosen)
    for name in wanted:
        if name not in masks.values():
            raise PlanError(f"there is no mask {name!r}; there are {', '.join(masks.values())}")
    return [
        LayerMask(name, plan if name == EVERYTHING else _masked(plan, own), own)
        for own, name in masks.items()
        if not wanted or name in (EVERYTHING, *wanted)
    ]


def _masked(plan: RepairPlan, names: Iterable[str]) -> RepairPlan:
    """Return a plan that keeps tuned's values of all tensors but some."""
    patterns = "|".join(dict.fromkeys(map(_pattern, names)))
    return replace(plan, overrides=(*plan.overrides, Override(Selector(f"not re=^({patterns})$"), {"keep": "tuned"})))


def _pattern(name: str) -> str:
    """Return an expression for a tensor; for an expert's, for all experts' of its layer, which go together."""
    if module_path(name).expert is None:
        return re.escape(name)
    *before, _, last = cut_name(name)
    return "".join([*map(re.escape, before), r"\d+", re.escape(last)])
