"""One weight under one method: its update drawn and measured, from the weight's live decomposition; torch."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dgviz.analysis.effect import Effect, MethodPanel, Yardstick, describe_effect, spectral_effect, yardstick
from dgviz.checkpoint import read_tensor
from dgviz.figures.figure4.maps import Scale
from dgviz.figures.figure4.panels import pooled_magnitudes
from dgviz.repair.facts import ModelFacts
from dgviz.repair.kept import as_dg_hard
from dgviz.repair.methods.edits import TensorUpdate, edited_update
from dgviz.repair.plan import RepairPlan
from dgviz.repair.reshape import reshape_spectrum
from dgviz.repair.rounding import add_rounded
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.svd.decompose import decompose

if TYPE_CHECKING:
    from dgviz.spectra.svd.decompose import Decomposition


def compute_method_panel(weight: OpenWeight, plan: RepairPlan, facts: ModelFacts, scale: Scale) -> MethodPanel:
    """Return a method's update of one matrix as a map and figures.

    Map and spectrum are of the exact update; `MethodPanel.sparsity` is of what would be written.
    """
    delta, decomposition = weight.delta, weight.decomposition
    shape, s = weight.nonzero_shape, weight.s
    measure = yardstick(s, shape)
    if plan.recipe.spectral:
        known = {"delta": delta, "depth": facts.depths.get(weight.weight.tensor.name), "factor": facts.factor}
        update = _reshaped_update(plan, known, delta, decomposition, s, shape)
        effect = spectral_effect(plan, s, shape, measure, **known)
    else:
        update = _edited_matrix(weight, plan, facts)
        effect = _edited_effect(weight, update, measure)
    magnitudes = pooled_magnitudes(update)
    sparsity = _unmoved_share(weight, plan, update)
    return MethodPanel(tuple(delta.shape), scale.encode(magnitudes), float(magnitudes.max()), sparsity, effect)


def _values(decomposition: "Decomposition", shape: tuple[int, int]) -> np.ndarray:
    """Return the singular values of the nonzero block; rows and columns of zeros add only zeros to them."""
    return np.asarray(decomposition.s, dtype=np.float64)[: min(shape)]


def _reshaped_update(
    plan: RepairPlan,
    known: dict[str, Any],
    delta: torch.Tensor,
    decomposition: "Decomposition",
    s: np.ndarray,
    shape: tuple[int, int],
) -> torch.Tensor:
    """Return D' of a method that keeps D's singular vectors."""
    reshaped = reshape_spectrum(plan, s, shape, **known)
    if reshaped.origin != "repaired":
        return delta if reshaped.origin == "tuned" else torch.zeros_like(delta)
    if plan.method in ("dg_hard", "rank_r"):
        return _product(decomposition, s, reshaped.values, delta)
    if plan.method == "complement":
        kept = reshape_spectrum(as_dg_hard(plan), s, shape, delta)
        return delta - _product(decomposition, s, kept.values, delta)
    return delta * float(reshaped.values[0] / s[0])


def _product(decomposition: "Decomposition", s: np.ndarray, values: np.ndarray, delta: torch.Tensor) -> torch.Tensor:
    """Return the matrix that has other singular values along the leading directions, zeros behind them."""
    count = int(np.count_nonzero(values))
    if count == 0:
        return torch.zeros_like(delta)
    left, right = (factor.to(delta.device, delta.dtype) for factor in decomposition.triplets(count))
    ratio = torch.from_numpy(values[:count] / s[:count]).to(left.device, left.dtype)
    return (left * ratio) @ right


def _edited_matrix(weight: OpenWeight, plan: RepairPlan, facts: ModelFacts) -> torch.Tensor:
    """Return D' of a method that changes entries; of a stack, which is edited as one tensor, the chosen matrix."""
    update = edited_update(TensorUpdate(weight.weight.tensor, weight.device), plan, facts.trim)
    matrix = update.reshape(-1, *weight.delta.shape)[weight.weight.index or 0]
    return matrix.to(weight.delta.dtype)


def _edited_effect(weight: OpenWeight, update: torch.Tensor, measure: Yardstick) -> Effect:
    """Return the figures of an update that has singular vectors of its own."""
    parts = update, weight.delta - update
    edited, rest = (decompose(part, weight.device, name=weight.weight.name) for part in parts)
    subspace = None if measure.leading is None else _overlap(weight.decomposition, edited, measure.leading)
    values, removed = (_values(item, weight.nonzero_shape) for item in (edited, rest))
    return describe_effect(weight.s, values, removed, weight.nonzero_shape, measure, subspace)


def _overlap(tuned: "Decomposition", edited: "Decomposition", count: int) -> float:
    """Return the mean squared cosine between two leading subspaces, left and right averaged."""
    there = min(count, int(np.count_nonzero(edited.s)))
    if there == 0:
        return 0.0
    (left, right), (other_left, other_right) = tuned.triplets(count), edited.triplets(there)
    cosines = (left / left.norm(dim=0)).T @ (other_left / other_left.norm(dim=0))
    return float(cosines.square().sum() + (right @ other_right.T).square().sum()) / (2 * count)


def _unmoved_share(weight: OpenWeight, plan: RepairPlan, update: torch.Tensor) -> float:
    """Return the share of entries that are base's once the sum is rounded to the output's dtype."""
    delta = weight.delta
    if update is delta:
        return 1 - int(torch.count_nonzero(delta)) / delta.numel()
    stored = read_tensor(weight.weight.base).reshape(weight.weight.shape)
    summed = add_rounded(
        stored,
        lambda block, _: (update[block], None),
        plan.output_dtype(weight.weight.tuned),
        weight.device,
        delta.dtype,
        weight.weight.name,
        lambda: float(update.abs().max()),
        masked=not bool(torch.isfinite(stored).all()),
    )
    return summed.unmoved / stored.numel()
