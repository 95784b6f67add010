"""What a plan makes of the singular values of one update: no tensor is read, nothing is decomposed.

Methods that leave the singular vectors alone are known from the spectrum: ``D' = U diag(values) Vh``. Pages preview
with this, and the repair itself asks it which directions to keep.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgviz.errors import MethodError
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.law import mp_fits
from dgviz.rmt.shrinkage import find_shrinker
from dgviz.rmt.spectrum import norm_ratio
from dgviz.rmt.threshold import Threshold, find_rule

_Values = NDArray[np.float64]


@dataclass(frozen=True)
class ReshapedSpectrum:
    """A spectrum before and after a method.

    Attributes
    ----------
    threshold : Threshold or None
        The cut, for a method that makes one.
    s : (p,) array
        Singular values of the update, descending.
    values : (p,) array
        Those of the method's result along the same directions.
    """

    threshold: Threshold | None
    s: _Values
    values: _Values

    @property
    def origin(self) -> str:
        """Whose values the matrix has afterwards: ``"tuned"``, ``"base"``, or else ``"repaired"``."""
        if np.array_equal(self.values, self.s):
            return "tuned"
        return "repaired" if self.values.any() else "base"

    @property
    def norm_kept(self) -> float:
        """Length of the result's update over the update's own; 1 for a zero update."""
        return norm_ratio(self.values, self.s)

    def mp_fits(self, shape: Sequence[int]) -> dict[str, float | None]:
        """Return the MP-fit of the tuned update, of the result's and of what was taken away; None without noise."""
        return mp_fits(self.s, self.values, self.threshold.sigma if self.threshold else 0.0, shape)


def reshape_spectrum(
    plan: RepairPlan,
    s: _Values,
    shape: Sequence[int],
    delta: Any = None,
    depth: float | None = None,
    factor: float | None = None,
    tau: float | None = None,
) -> ReshapedSpectrum:
    """Return what a plan's method makes of a spectrum."""
    params = plan.method_params
    if plan.method == "rank_r":
        plan = dataclasses.replace(plan, rule="fixed_rank", params={"rank": params["rank"]}, shrinker="hard")
    if plan.method in ("wise_ft", "lines", "norm_matched_global"):
        by = scale_factor(plan, depth) if factor is None else factor
        if by is None:
            raise MethodError(f"{plan.method} takes its factor from the whole model, which has not been looked at")
        return ReshapedSpectrum(None, s, s.copy() if by == 1 else by * s)
    threshold, values = _kept(plan, s, shape, delta, tau)
    if plan.method == "norm_matched":
        values = norm_ratio(values, s) * s if not np.array_equal(values, s) else values
    elif plan.method == "complement":
        values = s - values
    elif plan.method == "dg_hard":
        values = values if params["alpha"] == 1 else params["alpha"] * values
    elif plan.method != "rank_r":
        raise MethodError(f"{plan.method} changes entries, not singular values: its spectrum has to be computed")
    return ReshapedSpectrum(threshold, s, values)


def scale_factor(plan: RepairPlan, depth: float | None) -> float | None:
    """Return what a method multiplies a tensor's whole update by; None where it does not, or does not know yet."""
    params = plan.method_params
    if plan.method == "wise_ft":
        return float(params["alpha"])
    if plan.method == "lines" and depth is not None:
        return float(params["alpha"] + (params["last"] - params["alpha"]) * depth)
    return None


def _kept(
    plan: RepairPlan, s: _Values, shape: Sequence[int], delta: Any, tau: float | None
) -> tuple[Threshold, _Values]:
    """Return the cut of a plan and the singular values of D*, zeros for what is dropped.

    Where the noise is not known a rule made from it keeps everything: D* is D.
    """
    rule = find_rule(plan.rule)
    if rule.needs_delta and tau is not None:
        threshold = rule.apply_at(tau, s, shape, **plan.params)
    else:
        threshold = rule.apply(s, shape, delta=delta, **plan.params)
    unknown_noise = threshold.degenerate and rule.noise_based
    if unknown_noise or (threshold.rank >= np.count_nonzero(s) and plan.shrinker == "hard"):
        return threshold, s.copy()
    values = np.zeros_like(s)
    kept = s[: threshold.rank]
    if plan.shrinker != "hard" and not threshold.degenerate:
        kept = find_shrinker(plan.shrinker).apply(kept, shape, threshold.sigma)
    values[: threshold.rank] = kept
    return threshold, values
