"""What methods that keep the singular vectors make of a whole model, from stored spectra: no tensor is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgviz.analysis.model_spectra import StoredWeight
from dgviz.repair.plan import RepairPlan
from dgviz.repair.reshape import reshape_spectrum
from dgviz.rmt.assess import stored_tau
from dgviz.rmt.spectrum import effective_rank, norm_ratio


@dataclass(frozen=True)
class ModelPreview:
    """A method over all matrices whose spectrum is stored, against their fine-tuned updates.

    Attributes
    ----------
    norm_kept : float
        ``|D'| / |D|``, both lengths over all matrices together.
    distance : float
        ``|D' - D*| / |D|``, D* that of DG-Hard as published.
    directions : int
        Singular directions that are left something.
    effective_rank : float
        Median over the matrices.
    """

    norm_kept: float
    distance: float
    directions: int
    effective_rank: float


def preview_model(matrices: Sequence[StoredWeight], plan: RepairPlan, depths: Mapping[str, float]) -> ModelPreview:
    """Return the figures of a method on a model: exact, updates along the same directions subtract like numbers."""
    factor = common_factor(matrices, plan) if plan.method == "norm_matched_global" else None
    values = [_values(matrix, plan, depths.get(matrix.weight.tensor.name), factor) for matrix in matrices]
    published = [_values(matrix, RepairPlan()) for matrix in matrices]
    s = np.concatenate([matrix.spectrum.nonzero_s for matrix in matrices])
    found = np.concatenate(values)
    return ModelPreview(
        norm_ratio(found, s),
        norm_ratio(np.abs(found - np.concatenate(published)), s) if s.any() else 0.0,
        int(np.count_nonzero(found)),
        float(np.median([effective_rank(own) for own in values])),
    )


def common_factor(matrices: Sequence[StoredWeight], plan: RepairPlan) -> float:
    """Return ``|D*| / |D|`` over all matrices, D* by the plan's rule and shrinker."""
    own = RepairPlan(plan.rule, plan.params, shrinker=plan.shrinker)
    kept = [_values(matrix, own) for matrix in matrices]
    return norm_ratio(np.concatenate(kept), np.concatenate([matrix.spectrum.nonzero_s for matrix in matrices]))


def _values(
    matrix: StoredWeight, plan: RepairPlan, depth: float | None = None, factor: float | None = None
) -> NDArray[np.float64]:
    """Return the singular values of a method's update of one matrix, along the fine-tuned one's directions."""
    found = matrix.spectrum
    tau = stored_tau(found, plan.rule, plan.params)
    return reshape_spectrum(plan, found.nonzero_s, found.nonzero_shape, depth=depth, factor=factor, tau=tau).values
