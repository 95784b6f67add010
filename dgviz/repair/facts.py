"""What a method has to know of the whole model before it can change the first tensor."""

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dgviz.checkpoint import CheckpointPair, PairedTensor
from dgviz.checkpoint.module_path import block_depths
from dgviz.repair.kept import as_dg_hard, reshape_update
from dgviz.repair.methods.edits import ALL, TensorUpdate, Trim, published_cut
from dgviz.repair.methods.trim import find_cut
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.svd.decompose import resolve_device
from dgviz.spectra.weight import Weight, matrices_of

Squares = MutableMapping[tuple[str, str], tuple[float, float]]
"""(|D*|^2, |D|^2) of a matrix under a plan: what one pass has found out another need not compute again."""


@dataclass(frozen=True)
class ModelFacts:
    """What a method takes from the whole model.

    Attributes
    ----------
    depths : mapping of str to float
        `dgviz.checkpoint.module_path.block_depths` of the pair's tensors.
    trim : Trim or None
        The cut of ``ties``.
    factor : float or None
        The factor of ``norm_matched_global``.
    """

    depths: Mapping[str, float] = field(default_factory=dict)
    trim: Trim | None = None
    factor: float | None = None


def gather_facts(
    pair: CheckpointPair,
    plan: RepairPlan,
    device: str = "auto",
    store: SpectrumStore | None = None,
    squares: Squares | None = None,
) -> ModelFacts:
    """Return what a plan's method needs of a pair; reads tensors only for methods with ``whole_model``."""
    depths = block_depths(paired.name for paired in pair.tensors if paired.tuned is not None)
    changed = [paired for paired in pair.tensors if plan.changes(paired)]
    device = resolve_device(device)
    if plan.method == "ties":
        return ModelFacts(depths, trim=_model_trim(changed, plan, device))
    if plan.method == "norm_matched_global":
        found = {} if squares is None else squares
        store = store or SpectrumStore()
        kept, whole = np.sum([sum_squares(paired, plan, device, store, found) for paired in changed], axis=0)
        # Of the same spectra: equal sums are the same numbers, and the factor is exactly one.
        return ModelFacts(depths, factor=float(np.sqrt(kept / whole)) if whole > 0 else 1.0)
    return ModelFacts(depths)


def _model_trim(changed: list[PairedTensor], plan: RepairPlan, device: str) -> Trim:
    """Return the cut of TIES over all matrices together: two passes over the model, one tensor at a time."""
    density = plan.method_params["density"]
    total = sum(paired.base.numel for paired in changed)  # base has just the rows both vocabularies have
    place = published_cut(total, density)
    if place is None:
        return ALL
    if density == 0:
        return Trim(2**32, 0)

    def keys() -> Iterator[torch.Tensor]:
        """Yield the keys of every matrix's update."""
        for paired in changed:
            yield from TensorUpdate(paired, device).magnitudes()

    return Trim(find_cut(keys, place).key, float("inf"))


def sum_squares(
    paired: PairedTensor, plan: RepairPlan, device: str, store: SpectrumStore, squares: Squares
) -> tuple[float, float]:
    """Return |D*|^2 and |D|^2 of one tensor, summed over a stack's matrices."""
    total = np.zeros(2)
    for weight in matrices_of(paired):
        key = squares_key(weight, plan)
        if key not in squares:
            note_squares(squares, key, reshape_update(OpenWeight(weight, device, store), as_dg_hard(plan)))
        total += squares[key]
    return float(total[0]), float(total[1])


def squares_key(weight: Weight, plan: RepairPlan) -> tuple[str, str]:
    """Return the key of a matrix under the threshold of a plan."""
    return weight.name, f"{plan.rule} {sorted(plan.params.items())} {plan.shrinker}"


def note_squares(squares: Squares, key: tuple[str, str], kept: Any) -> None:
    """Write down the lengths that a threshold has made."""
    squares[key] = (float(np.sum(kept.values**2)), float(np.sum(kept.s**2)))
