"""One weight under one method: its update drawn and measured, from the weight's live decomposition; torch."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dgviz.analysis.effect import Effect, MethodPanel, Yardstick, describe_effect, spectral_effect, yardstick
from dgviz.checkpoint import PairedTensor, read_tensor, select_matrix
from dgviz.figures.figure4.maps import Scale
from dgviz.figures.figure4.panels import pooled_magnitudes
from dgviz.repair.facts import ModelFacts
from dgviz.repair.kept import as_dg_hard
from dgviz.repair.methods.edits import TensorUpdate, edited_update
from dgviz.repair.plan import RepairPlan
from dgviz.repair.reshape import reshape_spectrum
from dgviz.repair.rounding import add_rounded
from dgviz.spectra.delta import live_shape
from dgviz.spectra.svd.decompose import decompose

if TYPE_CHECKING:
    from dgviz.spectra.svd.decompose import Decomposition


def compute_method_panel(
    paired: PairedTensor,
    index: int | None,
    plan: RepairPlan,
    facts: ModelFacts,
    delta: torch.Tensor,
    decomposition: "Decomposition",
    scale: Scale,
) -> MethodPanel:
    """Return a method's update of one matrix as a map and figures.

    Map and spectrum are of the exact update; `MethodPanel.sparsity` is of what would be written.
    """
    shape = live_shape(delta)
    s = _values(decomposition, shape)
    measure = yardstick(s, shape)
    if plan.recipe.spectral:
        known = {"delta": delta, "depth": facts.depths.get(paired.name), "factor": facts.factor}
        update = _reshaped_update(plan, known, delta, decomposition, s, shape)
        effect = spectral_effect(plan, s, shape, measure, **known)
    else:
        update = _edited_matrix(paired, index, plan, facts, delta)
        effect = _edited_effect(paired.name, delta, update, decomposition, shape, measure)
    magnitudes = pooled_magnitudes(update)
    sparsity = _unmoved_share(paired, index, plan, delta, update)
    return MethodPanel(tuple(delta.shape), scale.encode(magnitudes), float(magnitudes.max()), sparsity, effect)


def _values(decomposition: "Decomposition", shape: tuple[int, int]) -> np.ndarray:
    """Return the singular values of the live part; rows and columns of zeros add only zeros to them."""
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


def _edited_matrix(
    paired: PairedTensor, index: int | None, plan: RepairPlan, facts: ModelFacts, delta: torch.Tensor
) -> torch.Tensor:
    """Return D' of a method that changes entries; of a stack, which is edited as one tensor, the chosen matrix."""
    update = edited_update(TensorUpdate(paired, str(delta.device)), plan, facts.trim)
    matrix = update.reshape(-1, *delta.shape)[0 if index is None else index]
    return matrix.to(delta.dtype)


def _edited_effect(
    name: str,
    delta: torch.Tensor,
    update: torch.Tensor,
    decomposition: "Decomposition",
    shape: tuple[int, int],
    measure: Yardstick,
) -> Effect:
    """Return the figures of an update that has singular vectors of its own."""
    device = str(delta.device)
    edited, rest = (decompose(part, device, name=name) for part in (update, delta - update))
    subspace = None if measure.leading is None else _overlap(decomposition, edited, measure.leading)
    s, values, removed = (_values(item, shape) for item in (decomposition, edited, rest))
    return describe_effect(s, values, removed, shape, measure, subspace)


def _overlap(tuned: "Decomposition", edited: "Decomposition", count: int) -> float:
    """Return the mean squared cosine between two leading subspaces, left and right averaged."""
    there = min(count, int(np.count_nonzero(edited.s)))
    if there == 0:
        return 0.0
    (left, right), (other_left, other_right) = tuned.triplets(count), edited.triplets(there)
    cosines = (left / left.norm(dim=0)).T @ (other_left / other_left.norm(dim=0))
    return float(cosines.square().sum() + (right @ other_right.T).square().sum()) / (2 * count)


def _unmoved_share(
    paired: PairedTensor, index: int | None, plan: RepairPlan, delta: torch.Tensor, update: torch.Tensor
) -> float:
    """Return the share of entries that are base's once the sum is rounded to the output's dtype."""
    if update is delta:
        return 1 - int(torch.count_nonzero(delta)) / delta.numel()
    base, tuned, layout = select_matrix(paired, index)
    stored = read_tensor(base).reshape(layout.rows, layout.cols)
    summed = add_rounded(
        stored,
        lambda block, _: (update[block], None),
        plan.output_dtype(tuned),
        str(delta.device),
        delta.dtype,
        paired.name,
        lambda: float(update.abs().max()),
        masked=not bool(torch.isfinite(stored).all()),
    )
    return summed.unmoved / stored.numel()
