"""What a plan keeps of one weight's update."""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from dgviz.command import option
from dgviz.errors import MethodError, SpectrumError
from dgviz.repair.plan import RepairPlan
from dgviz.repair.reshape import ReshapedSpectrum, reshape_spectrum
from dgviz.rmt.assess import needs_delta, stored_tau
from dgviz.rmt.threshold import Threshold
from dgviz.spectra.open_weight import OpenWeight

_LOW_RANK = ("dg_hard", "rank_r")
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class KeptDirections:
    """What a plan keeps of one delta.

    Attributes
    ----------
    threshold : Threshold
        Where the cut is.
    s : (p,) float64 array
        Singular values of the nonzero block, descending; p is its shorter side.
    values : (p,) float64 array
        Those of the repaired delta along the same directions: zero where a direction is dropped, and other than `s`
        where a shrinker or a scale sets them.
    shape : (int, int)
        Rows m and columns n.
    nonzero_shape : (int, int)
        Rows and columns that are not zero throughout; threshold and noise figures are of these.
    route : str
        How the spectrum was computed.
    origin : str
        Whose values the matrix has after its repair: ``"repaired"``, or ``"base"`` where nothing is kept, ``"tuned"``
        where everything is.
    factors : (tensor, tensor) or None
        ``left`` (m, k) and ``right`` (k, n), whose product is the repaired delta; None unless `origin` is
        ``"repaired"``. k is the number of nonzero `values`.
    zero_share : float or None
        Share of the delta's entries that are exactly zero; None where it was not computed.
    """

    threshold: Threshold
    s: np.ndarray
    values: np.ndarray
    shape: tuple[int, int]
    nonzero_shape: tuple[int, int]
    route: str
    origin: str
    factors: tuple[torch.Tensor, torch.Tensor] | None
    zero_share: float | None = None


def keep_directions(weight: OpenWeight, plan: RepairPlan) -> KeptDirections:
    """Return what a plan keeps of one matrix, with its factors: from the store where a scan has put them there."""
    if plan.method not in _LOW_RANK:
        raise MethodError(
            f"{plan.method} keeps no directions, so there are no factors; choose one of {', '.join(_LOW_RANK)}"
        )
    reshaped = reshape_update(weight, plan)
    factors = None
    if reshaped.origin == "repaired":
        left, right = _sentence_of(weight, lambda: weight.triplets(int(np.count_nonzero(reshaped.values))))
        ratio = reshaped.values[: left.shape[1]] / reshaped.s[: left.shape[1]]
        if not (ratio == 1).all():
            left = left * torch.from_numpy(ratio).to(left.device, left.dtype)
        factors = left, right
    return KeptDirections(
        reshaped.threshold,
        reshaped.s,
        reshaped.values,
        weight.weight.shape,
        weight.nonzero_shape,
        weight.route,
        reshaped.origin,
        factors,
        weight.zero_share,
    )


def reshape_update(weight: OpenWeight, plan: RepairPlan) -> ReshapedSpectrum:
    """Return what a plan with a threshold makes of the spectrum, without computing any factor."""
    known = weight.known
    if known is not None and not needs_delta(known, plan.rule, plan.params):
        tau = stored_tau(known, plan.rule, plan.params)
        return reshape_spectrum(plan, known.nonzero_s, known.nonzero_shape, tau=tau)
    return _sentence_of(weight, lambda: reshape_spectrum(plan, weight.s, weight.nonzero_shape, delta=weight.delta))


def _sentence_of(weight: OpenWeight, compute: Callable[[], _Made]) -> _Made:
    """Return what is computed; an update that has no spectrum can be left as it is, and the error says how."""
    try:
        return compute()
    except SpectrumError as error:
        keep = option("--exclude", f"^{re.escape(weight.weight.tensor.name)}$")
        raise SpectrumError(f"{error}, or keep tuned's tensor by {keep}") from None


def as_dg_hard(plan: RepairPlan) -> RepairPlan:
    """Return the plan of the D* that a control is made from: DG-Hard with the same rule, shrinker and tau."""
    return dataclasses.replace(plan, method="dg_hard", method_params={})
