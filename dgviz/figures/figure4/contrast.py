"""One weight under one method: its update drawn and measured, from the weight's live decomposition; torch."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dgviz.analysis.effect import Effect, MethodPanel, Yardstick, describe_effect, spectral_effect, yardstick
from dgviz.checkpoint import read_tensor
from dgviz.figures.figure4.maps import ComparedPanels, ComparedUpdate, EntryPanels, Scale, SpectrumPanels
from dgviz.figures.figure4.panels import pooled_magnitudes
from dgviz.repair.methods.method import Reshaped
from dgviz.repair.plan import RepairPlan
from dgviz.repair.rounding import add_rounded
from dgviz.repair.update import TensorUpdate, edited_blocks
from dgviz.rmt.assess import needs_delta
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.svd.decompose import decompose

if TYPE_CHECKING:
    from dgviz.spectra.svd.decompose import Decomposition


def compute_method_panel(weight: OpenWeight, plan: RepairPlan, facts: Any, scale: Scale) -> MethodPanel:
    """Return a method's update of one matrix as a map and figures.

    Map and spectrum are of the exact update; `MethodPanel.sparsity` is of what would be written.
    """
    update, effect, _ = _updated(weight, plan, facts)
    magnitudes = pooled_magnitudes(update)
    sparsity = _unmoved_share(weight, plan, update)
    return MethodPanel(weight.weight.shape, scale.encode(magnitudes), float(magnitudes.max()), sparsity, effect)


def compare_update(
    weight: OpenWeight,
    plan: RepairPlan,
    facts: Any,
    label: str,
    entries: EntryPanels,
    lower: SpectrumPanels,
    other: OpenWeight | None = None,
) -> ComparedPanels:
    """Return the maps of a plan's update of one matrix, beside those of the threshold in view.

    `entries` are the threshold's own maps, which give the scale, and `lower` those of the directions. With `other`,
    the same matrix of another fine-tune, the update is made of that one's, whose directions are others.
    """
    update, effect, reshaped = _updated(other or weight, plan, facts)
    rest, rank = (other or weight).delta - update, entries.rank
    codes = [entries.scale.encode(pooled_magnitudes(part)) for part in (update, rest)]
    if rank:
        left, right = weight.decomposition.triplets(rank)
        rest = update - left @ right  # of the threshold's
    else:
        rest = update
    between = entries.scale.encode(pooled_magnitudes(rest))
    directions = None
    if reshaped is not None and other is None:
        ratio = np.zeros(lower.s.size)
        np.divide(reshaped.values, reshaped.s, out=ratio[: reshaped.s.size], where=reshaped.s > 0)
        magnitudes, kept = lower.scale.decode()[lower.directions], np.arange(ratio.size) < rank
        parts = ratio, np.abs(1 - ratio), np.abs(ratio - kept)
        directions = tuple(lower.scale.encode(magnitudes * part) for part in parts)
    own = ComparedUpdate(
        None if reshaped is None else reshaped.rank,
        effect.norm_kept**2,
        (effect.mp_kept, effect.mp_removed),
        directions,
    )
    maps = replace(entries, repaired=codes[0], discarded=codes[1], exact=None)
    cut = None if reshaped is None else reshaped.threshold
    return ComparedPanels(label, None if cut is None else cut.tau, maps, rank, between, own)


def _updated(weight: OpenWeight, plan: RepairPlan, facts: Any) -> tuple[torch.Tensor, Effect, Reshaped | None]:
    """Return a plan's update of one matrix, its figures and, where the singular vectors stay, its spectrum."""
    spectrum, name = weight.measured, weight.weight.tensor.name
    if needs_delta(spectrum, plan.rule, plan.params):
        spectrum = weight.spectrum_with(plan.rule, plan.params)
    if plan.keep or plan.recipe.spectral:
        reshaped = plan.reshape(spectrum, facts, name)
        return _reshaped_update(weight, reshaped, plan), spectral_effect(plan, spectrum, facts, name), reshaped
    blocks = edited_blocks(TensorUpdate(weight.weight.tensor, weight.device), plan, facts)
    edited = torch.cat(list(blocks)).reshape(-1, *weight.delta.shape)  # of a stack, which is edited as one tensor
    update = edited[weight.weight.index or 0].to(weight.delta.dtype)
    effect = _edited_effect(weight, update, yardstick(spectrum.nonzero_s, spectrum.nonzero_shape))
    return update, effect, None


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
