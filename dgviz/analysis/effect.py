"""What a method does to one update: its singular values before and after, in figures; numpy only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgviz.repair.plan import RepairPlan
from dgviz.rmt.law import mp_fit
from dgviz.rmt.null import noise_distance
from dgviz.rmt.spectrum import Spectrum, effective_rank, norm_ratio
from dgviz.rmt.threshold import RULES

_Values = NDArray[np.float64]


@dataclass(frozen=True)
class Yardstick:
    """What every method on one update is measured with, whatever its own rule: DG-Hard as published on that update.

    Attributes
    ----------
    sigma : float or None
        Noise per entry of the fine-tuned update; None where its median measures no noise.
    leading : int or None
        How many of its directions stand above DG-Hard's threshold; None where there are none or that is not known.
    """

    sigma: float | None
    leading: int | None


@dataclass(frozen=True)
class Effect:
    """Figures of a method's update ``D'`` of one matrix, against the fine-tuned one, ``D``.

    Attributes
    ----------
    values : (p,) float64 array
        Singular values of D'. Where D' has D's singular vectors they stand along those, else they descend.
    norm_kept : float
        ``|D'| / |D|``.
    effective_rank : float
        `dgviz.rmt.spectrum.effective_rank` of D'.
    mp_kept, mp_removed, mp_removed_own : float or None
        MP-fit of D', of D - D', and of the latter's values that are not zero, in percent, by the noise of D; None
        where that is not known, or the part is zero.
    mp_noise : float or None
        What noise of the shape scores; None where the noise of D is not known.
    subspace : float or None
        Share of D's leading directions that are among as many leading ones of D': the mean squared cosine between
        the two subspaces, averaged over the left and the right one. None where D has no leading directions.
    """

    values: _Values
    norm_kept: float
    effective_rank: float
    mp_kept: float | None
    mp_removed: float | None
    mp_removed_own: float | None
    mp_noise: float | None
    subspace: float | None


@dataclass(frozen=True)
class MethodPanel:
    """A method's update of one matrix, drawn and measured.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of the weight.
    codes : (rows, cols) uint8 array
        Block maxima of D' on the scale of the fine-tuned update's map.
    peak : float
        Largest entry of D' in size, which may lie above that scale.
    sparsity : float
        Share of entries that the written matrix has from base, after rounding to its dtype.
    effect : Effect
        Its figures.
    """

    shape: tuple[int, int]
    codes: NDArray[np.uint8]
    peak: float
    sparsity: float
    effect: Effect


def yardstick(s: _Values, shape: Sequence[int]) -> Yardstick:
    """Return what methods on an update are measured with."""
    published = RULES["dg_hard"].apply(s, shape)
    known = not published.degenerate and published.sigma > 0 and math.isfinite(published.sigma)
    return Yardstick(published.sigma, published.rank or None) if known else Yardstick(None, None)


def describe_effect(
    s: _Values, values: _Values, removed: _Values, shape: Sequence[int], measure: Yardstick, subspace: float | None
) -> Effect:
    """Return the figures of a method's update."""
    fits = [
        mp_fit(part, measure.sigma, shape) if measure.sigma and part.any() else None
        for part in (values, removed, removed[removed > 0])
    ]
    noise = noise_distance(shape).fit if measure.sigma else None
    return Effect(values, norm_ratio(values, s), effective_rank(values), *fits, noise, subspace)


def spectral_effect(plan: RepairPlan, spectrum: Spectrum, facts: Any = None, tensor: str = "") -> Effect:
    """Return the figures of a method that leaves the singular vectors alone, from its spectrum."""
    s, shape = spectrum.nonzero_s, spectrum.nonzero_shape
    measure = yardstick(s, shape)
    values = plan.reshape(spectrum, facts, tensor).values
    subspace = None
    if measure.leading is not None:
        ahead = np.argsort(-values, kind="stable")[: measure.leading]
        subspace = float(np.count_nonzero((ahead < measure.leading) & (values[ahead] > 0))) / measure.leading
    return describe_effect(s, values, np.abs(s - values), shape, measure, subspace)
