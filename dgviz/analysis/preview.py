"""What methods that keep the singular vectors make of a whole model, from stored spectra: no tensor is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgviz.analysis.model_spectra import StoredWeight, assess
from dgviz.analysis.rules import ShrunkAssessment
from dgviz.errors import MethodError
from dgviz.repair.methods.method import keep
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.spectrum import Spectrum, effective_rank, norm_ratio


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


def preview_model(matrices: Sequence[StoredWeight], plan: RepairPlan, names: Sequence[str]) -> ModelPreview:
    """Return the figures of a method on a model: exact, updates along the same directions subtract like numbers."""
    facts = prepare_stored(matrices, plan, names)
    values = [_values(matrix, plan, facts) for matrix in matrices]
    published = [_values(matrix, RepairPlan()) for matrix in matrices]
    s = np.concatenate([matrix.spectrum.nonzero_s for matrix in matrices])
    found = np.concatenate(values)
    return ModelPreview(
        norm_ratio(found, s),
        norm_ratio(np.abs(found - np.concatenate(published)), s) if s.any() else 0.0,
        int(np.count_nonzero(found)),
        float(np.median([effective_rank(own) for own in values])),
    )


def preview_matrices(
    matrices: Sequence[StoredWeight], plan: RepairPlan, names: Sequence[str]
) -> list[ShrunkAssessment]:
    """Return what a method makes of every matrix, beside what the plan's rule finds in it."""
    facts = prepare_stored(matrices, plan, names)
    return [
        ShrunkAssessment.of(assess(matrix, plan.rule, plan.params), _values(matrix, plan, facts))
        for matrix in matrices
    ]


def prepare_stored(matrices: Sequence[StoredWeight], plan: RepairPlan, names: Sequence[str]) -> Any:
    """Return what a method takes from the whole model, all of whose spectra are stored; `names` are its tensors."""
    return plan.recipe.prepare(plan.method_params, _StoredModel(names, matrices, plan))


@dataclass(frozen=True)
class _StoredModel:
    """The whole model as far as stored spectra tell of it."""

    names: Sequence[str]
    matrices: Sequence[StoredWeight]
    plan: RepairPlan

    @property
    def _own(self) -> list[StoredWeight]:
        """Matrices that no override decides."""
        default, at = self.plan.default, self.plan.at
        return [matrix for matrix in self.matrices if at(matrix.weight.tensor, matrix.weight.index) is default]

    def squares(self) -> tuple[float, float]:
        """Return |D*|^2 and |D|^2 under the plan, summed over all matrices."""
        plan, spectra = self.plan.default, [matrix.spectrum for matrix in self._own]
        kept = [keep(spectrum, plan.rule, plan.params, plan.shrinker)[1] for spectrum in spectra]
        whole = [spectrum.nonzero_s for spectrum in spectra]
        return float(sum(np.sum(own**2) for own in kept)), float(sum(np.sum(own**2) for own in whole))

    def tensor_squares(self) -> dict[str, tuple[float, float]]:
        """Return |D|^2 and |W0|^2 of every tensor whose update is not zero: of zero no spectrum tells base's size."""
        found: dict[str, tuple[float, float]] = {}
        for name, own in groupby(self._own, key=lambda matrix: matrix.weight.tensor.name):
            spectra = [matrix.spectrum for matrix in own]
            if any(spectrum.energy for spectrum in spectra):
                found[name] = sum(item.energy for item in spectra), sum(map(_base_square, spectra))
        return found


def _base_square(spectrum: Spectrum) -> float:
    """Return |W0|^2 of a matrix, from the relative size of its update."""
    size = spectrum.summary.get("relative_size", 0.0)
    if size == 0:
        raise MethodError(
            f"{spectrum.name}: the size of base is not known from a spectrum with an update of zero, or without "
            "figures of its entries; measure the method on the whole model instead (compare-methods)"
        )
    return 0.0 if size is None else spectrum.energy / size**2


def _values(matrix: StoredWeight, plan: RepairPlan, facts: Any = None) -> NDArray[np.float64]:
    """Return the singular values of a method's update of one matrix, along the fine-tuned one's directions."""
    own = plan.at(matrix.weight.tensor, matrix.weight.index)
    return own.reshape(matrix.spectrum, facts, matrix.weight.tensor.name).values
