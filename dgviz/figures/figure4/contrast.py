"""One weight under one method: its update drawn and measured, from the weight's live decomposition; torch."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dgviz.analysis.effect import Effect, MethodPanel, Yardstick, describe_effect, spectral_effect, yardstick
from dgviz.figures.figure4.maps import ComparedSide, Scale
from dgviz.figures.figure4.panels import pooled_magnitudes
from dgviz.figures.figure4.payload import start_tau
from dgviz.repair.methods.method import Reshaped
from dgviz.repair.plan import RepairPlan
from dgviz.repair.rounding import add_rounded
from dgviz.repair.update import TensorUpdate, edited_blocks
from dgviz.rmt.assess import needs_delta
from dgviz.rmt.law import mp_fit
from dgviz.rmt.spectrum import Spectrum, norm_ratio
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.svd.decompose import decompose

if TYPE_CHECKING:
    from dgviz.spectra.svd.decompose import Decomposition


def compute_method_panel(weight: OpenWeight, plan: RepairPlan, facts: Any, scale: Scale) -> MethodPanel:
    """Return a method's update of one matrix as a map and figures.

    Map and spectrum are of the exact update; `MethodPanel.sparsity` is of what would be written.
    """
    spectrum = _spectrum_for(weight, plan)
    update, reshaped = compute_update(weight, plan, facts)
    if reshaped is not None:
        effect = spectral_effect(plan, spectrum, facts, weight.weight.tensor.name)
    else:
        effect = _edited_effect(weight, update, yardstick(spectrum.nonzero_s, spectrum.nonzero_shape))
    magnitudes = pooled_magnitudes(update)
    sparsity = _unmoved_share(weight, plan, update)
    return MethodPanel(weight.weight.shape, scale.encode(magnitudes), float(magnitudes.max()), sparsity, effect)


def compute_update(weight: OpenWeight, plan: RepairPlan, facts: Any) -> tuple[torch.Tensor, Reshaped | None]:
    """Return a plan's update D' of one matrix, and its singular values where it has D's singular vectors."""
    if plan.keep or plan.recipe.spectral:
        reshaped = plan.reshape(_spectrum_for(weight, plan), facts, weight.weight.tensor.name)
        return _reshaped_update(weight, reshaped, plan), reshaped
    blocks = edited_blocks(TensorUpdate(weight.weight.tensor, weight.device), plan, facts)
    edited = torch.cat(list(blocks)).reshape(-1, *weight.delta.shape)  # of a stack, which is edited as one tensor
    return edited[weight.weight.index or 0].to(weight.delta.dtype), None


def compute_side(
    weight: OpenWeight, plan: RepairPlan, facts: Any, scale: Scale, sigma: float
) -> tuple[ComparedSide, torch.Tensor]:
    """Return one side of a comparison, and its update.

    Parameters
    ----------
    weight, plan, facts
        The matrix, what is made of it, and what the plan's method took from the whole model.
    scale : Scale
        Of the entries.
    sigma : float
        The noise that its MP-fits are measured by; 0 where that is not known.
    """
    update, reshaped = compute_update(weight, plan, facts)
    rest = weight.delta - update
    shape = weight.measured.nonzero_shape
    missing, tau, gain = {}, None, None
    if reshaped is None:
        parts = [_values(decompose(part, weight.device, name=weight.weight.name), shape) for part in (update, rest)]
        missing["rank"] = "it changes entries"
        missing["directions"] = "it changes entries: directions of its own"
    else:
        parts = [reshaped.values, reshaped.removed]
        gain = np.zeros(weight.measured.s.size)
        np.divide(reshaped.values, reshaped.s, out=gain[: reshaped.s.size], where=reshaped.s > 0)
        if reshaped.rank is None:
            missing["rank"] = "no direction is dropped" if plan.keep != "base" else "nothing of the update is kept"
    if reshaped is not None and reshaped.threshold is not None:
        tau = start_tau(weight.measured.s, reshaped.threshold)
    else:
        missing["tau"] = "it has no threshold"
    own = parts[1][parts[1] > 0]  # what is taken away, without the zeros that stand for what is kept
    fits = tuple(mp_fit(part, sigma, shape) if sigma and part.any() else None for part in (*parts, own))
    if None in fits:
        missing["fits"] = "a part that is zero has none" if sigma else "the median measures no noise"
    maps = (scale.encode(pooled_magnitudes(part)) for part in (update, rest))
    energy = norm_ratio(parts[0], weight.measured.nonzero_s) ** 2
    rank = None if reshaped is None else reshaped.rank
    return ComparedSide(*maps, tau, rank, energy, fits, gain, missing), update


def _spectrum_for(weight: OpenWeight, plan: RepairPlan) -> Spectrum:
    """Return the spectrum of a matrix, with the tau that the plan's rule finds in the matrix where it needs it."""
    if needs_delta(weight.measured, plan.rule, plan.params):
        return weight.spectrum_with(plan.rule, plan.params)
    return weight.measured


def _reshaped_update(weight: OpenWeight, reshaped: Reshaped, plan: RepairPlan) -> torch.Tensor:
    """Return D' of a method that keeps D's singular vectors."""
    if reshaped.origin != "repaired":
        return weight.delta if reshaped.origin == "tuned" else torch.zeros_like(weight.delta)
    return plan.recipe.update(reshaped, weight)(slice(None)).to(weight.delta.dtype)


def _values(decomposition: "Decomposition", shape: tuple[int, int]) -> np.ndarray:
    """Return the singular values of the nonzero block; rows and columns of zeros add only zeros to them."""
    return np.asarray(decomposition.s, dtype=np.float64)[: min(shape)]


def _edited_effect(weight: OpenWeight, update: torch.Tensor, measure: Yardstick) -> Effect:
    """Return the figures of an update that has singular vectors of its own."""
    parts, shape = (update, weight.delta - update), weight.measured.nonzero_shape
    edited, rest = (decompose(part, weight.device, name=weight.weight.name) for part in parts)
    subspace = None if measure.leading is None else _overlap(weight.decomposition, edited, measure.leading)
    values, removed = (_values(item, shape) for item in (edited, rest))
    return describe_effect(weight.measured.nonzero_s, values, removed, shape, measure, subspace)


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
    stored = weight.as_stored.base()
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
