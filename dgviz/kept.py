"""What a threshold keeps of one weight's update: from the store where a scan has put it there, else computed."""

import re
from dataclasses import dataclass

import numpy as np
import torch

from dgviz.checkpoint import PairedTensor, is_hashed, read_tensor, select_matrix
from dgviz.delta import compute_delta, live_shape
from dgviz.errors import SpectrumError
from dgviz.plan import RepairPlan
from dgviz.spectrum import decompose
from dgviz.store import SpectrumStore, label, spectrum_key
from dgviz.threshold import Threshold, find_rule
from dgviz.verdict import apply_rule, needs_delta


@dataclass(frozen=True)
class KeptDirections:
    """What a threshold keeps of one delta.

    Attributes
    ----------
    threshold : Threshold
        Where the cut is.
    s : (p,) float64 array
        All singular values, descending.
    shape : (int, int)
        Rows m and columns n.
    live_shape : (int, int)
        Without the rows and columns that are zero throughout; threshold and noise figures are of these.
    route : str
        How the spectrum was computed.
    origin : str
        Whose values the matrix has after its repair: ``"repaired"``, or ``"base"`` where nothing is kept, ``"tuned"``
        where everything is.
    factors : (tensor, tensor) or None
        ``left`` (m, rank) and ``right`` (rank, n), whose product is the repaired delta; None unless `origin` is
        ``"repaired"``.
    zero_share : float or None
        Share of the delta's entries that are exactly zero; None where it was not computed.
    """

    threshold: Threshold
    s: np.ndarray
    shape: tuple[int, int]
    live_shape: tuple[int, int]
    route: str
    origin: str
    factors: tuple[torch.Tensor, torch.Tensor] | None
    zero_share: float | None = None


def keep_directions(
    paired: PairedTensor, index: int | None, plan: RepairPlan, device: str, store: SpectrumStore
) -> KeptDirections:
    """Return what a plan keeps of one matrix, from the store where a scan has put it there, else computed.

    Parameters
    ----------
    paired : PairedTensor
        A tensor whose fate is repair.
    index : int or None
        Which matrix of a stack.
    plan : RepairPlan
        The threshold rule.
    device : str
        Where to compute, as `dgviz.spectrum.resolve_device` returns it.
    store : SpectrumStore
        Where to look first.

    Raises
    ------
    SpectrumError
        If the update holds a value that is not finite.
    """
    return _read_kept(paired, index, plan, device, store) or _compute_kept(paired, index, plan, device)


def _origin(threshold: Threshold, s: np.ndarray) -> str:
    """Return whose values a matrix has after its repair."""
    unknown_noise = threshold.degenerate and find_rule(threshold.rule).noise_based
    if threshold.rank == np.count_nonzero(s) or unknown_noise:
        return "tuned"
    return "repaired" if threshold.rank else "base"


def _read_kept(
    paired: PairedTensor, index: int | None, plan: RepairPlan, device: str, store: SpectrumStore
) -> KeptDirections | None:
    """Return what a scan has stored, or None where that is not enough, or not known without reading the tensors."""
    if not all(is_hashed(side) for side in select_matrix(paired, index)[:2]):
        return None
    key = spectrum_key(paired, index)
    found = store.get(key)
    if found is None:
        return None
    if needs_delta(found, plan.rule, plan.params):
        return None
    threshold = apply_rule(found, plan.rule, plan.params)
    origin = _origin(threshold, found.s)
    route = f"{found.certificate['route']}, from the store"
    zeros = found.summary.get("zero_share")
    if origin != "repaired":
        return KeptDirections(threshold, found.s, found.shape, found.live_shape, route, origin, None, zeros)
    stored = store.get_factors(key, threshold.rank)
    if stored is None:
        return None
    factors = tuple(torch.from_numpy(factor).to(device) for factor in stored)
    return KeptDirections(threshold, found.s, found.shape, found.live_shape, route, origin, factors, zeros)


def _compute_kept(paired: PairedTensor, index: int | None, plan: RepairPlan, device: str) -> KeptDirections:
    """Return what the threshold keeps of a delta, decomposed."""
    delta = compute_delta(paired, index, device)
    zeros = 1 - int(torch.count_nonzero(delta)) / delta.numel()
    try:
        decomposition = decompose(delta, device, name=label(paired.name, index))
    except SpectrumError as error:
        if not _same_bytes(paired, index):
            pattern = f"^{re.escape(paired.name)}$"
            raise SpectrumError(f"{error}, or keep tuned's tensor by --exclude {pattern!r}") from None
        # Equal infinities (a mask, say) differ by nan: nothing was trained here.
        decomposition = decompose(torch.zeros_like(delta), device, name=label(paired.name, index))
    shape = tuple(decomposition.shape)
    s = np.asarray(decomposition.s, dtype=np.float64)
    live = live_shape(delta)
    threshold = find_rule(plan.rule).apply(s[: min(live)], live, delta=delta, **plan.params)
    del delta
    origin = _origin(threshold, s)
    factors = decomposition.triplets(threshold.rank) if origin == "repaired" else None
    return KeptDirections(threshold, s, shape, live, decomposition.certificate.route, origin, factors, zeros)


def _same_bytes(paired: PairedTensor, index: int | None) -> bool:
    """Return whether both sides of a matrix are stored alike."""
    base, tuned = (read_tensor(info, index) for info in (paired.base, paired.tuned))
    if base.dtype != tuned.dtype or base.shape != tuned.shape:
        return False
    return bool(torch.equal(base.contiguous().view(torch.uint8), tuned.contiguous().view(torch.uint8)))
