"""What a plan keeps of one weight's update: from the store where a scan has put it there, else computed."""

import dataclasses
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from dgviz.checkpoint import PairedTensor, is_hashed, read_tensor, select_matrix
from dgviz.checkpoint.layout import label
from dgviz.command import option
from dgviz.errors import MethodError, SpectrumError
from dgviz.repair.plan import RepairPlan
from dgviz.repair.reshape import ReshapedSpectrum, reshape_spectrum
from dgviz.rmt.assess import needs_delta, stored_tau
from dgviz.rmt.spectrum import StoredSpectrum
from dgviz.rmt.threshold import Threshold
from dgviz.spectra.delta import compute_delta, live_shape
from dgviz.spectra.store import SpectrumStore, spectrum_key
from dgviz.spectra.svd.decompose import Decomposition, decompose

_LOW_RANK = ("dg_hard", "rank_r")


@dataclass(frozen=True)
class KeptDirections:
    """What a plan keeps of one delta.

    Attributes
    ----------
    threshold : Threshold
        Where the cut is.
    s : (p,) float64 array
        Singular values of the live part, descending; p is its shorter side.
    values : (p,) float64 array
        Those of the repaired delta along the same directions: zero where a direction is dropped, and other than `s`
        where a shrinker or a scale sets them.
    shape : (int, int)
        Rows m and columns n.
    live_shape : (int, int)
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
    live_shape: tuple[int, int]
    route: str
    origin: str
    factors: tuple[torch.Tensor, torch.Tensor] | None
    zero_share: float | None = None


def keep_directions(
    paired: PairedTensor, index: int | None, plan: RepairPlan, device: str, store: SpectrumStore
) -> KeptDirections:
    """Return what a plan keeps of one matrix, from the store where a scan has put it there, else computed."""
    if plan.method not in _LOW_RANK:
        raise MethodError(
            f"{plan.method} keeps no directions, so there are no factors; choose one of {', '.join(_LOW_RANK)}"
        )
    return OpenMatrix(paired, index, device, store).keep(plan)


class OpenMatrix:
    """One matrix's update, looked up or decomposed once, whatever number of plans ask."""

    def __init__(self, paired: PairedTensor, index: int | None, device: str, store: SpectrumStore) -> None:
        self.paired, self.index = paired, index
        self._device, self._store = device, store

    def keep(self, plan: RepairPlan) -> KeptDirections:
        """Return what a plan with a threshold keeps, with its factors."""
        found = self._stored_for(plan)
        if found is not None:
            reshaped = self._reshaped(plan, found)
            count = int(np.count_nonzero(reshaped.values))
            stored = self._store.get_factors(self._key, count) if reshaped.origin == "repaired" else None
            if stored is not None or reshaped.origin != "repaired":
                factors = stored and tuple(torch.from_numpy(factor).to(self._device) for factor in stored)
                return self._kept(reshaped, factors)
        delta, decomposition = self._computed
        reshaped = reshape_spectrum(plan, self._own_values, self._live_shape, delta=delta)
        count = int(np.count_nonzero(reshaped.values))
        return self._kept(reshaped, decomposition.triplets(count) if reshaped.origin == "repaired" else None)

    def reshape(self, plan: RepairPlan) -> ReshapedSpectrum:
        """Return what a plan with a threshold makes of the spectrum, without computing any factor."""
        found = self._stored_for(plan)
        if found is not None:
            return self._reshaped(plan, found)
        return reshape_spectrum(plan, self._own_values, self._live_shape, delta=self._computed[0])

    def triplets(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the strongest triplets, ``U s`` (m, rank) and ``Vh`` (rank, n), whatever a plan makes of them."""
        stored = self._store.get_factors(self._key, rank)
        if stored is None:
            return self._computed[1].triplets(rank)
        left, right = (torch.from_numpy(factor).to(self._device) for factor in stored)
        return left, right

    @property
    def route(self) -> str:
        """How the spectrum was computed."""
        if self._found is not None and "_computed" not in self.__dict__:
            return f"{self._found.certificate['route']}, from the store"
        return self._computed[1].certificate.route

    def _kept(self, reshaped: ReshapedSpectrum, factors: tuple[torch.Tensor, torch.Tensor] | None) -> KeptDirections:
        """Return the answer; factors of the best approximation are given the method's values."""
        shape = self._found.shape if self._found is not None else tuple(self._computed[1].shape)
        if factors is not None:
            left, right = factors
            ratio = reshaped.values[: left.shape[1]] / reshaped.s[: left.shape[1]]
            if not (ratio == 1).all():
                left = left * torch.from_numpy(ratio).to(left.device, left.dtype)
            factors = left, right
        return KeptDirections(
            reshaped.threshold,
            reshaped.s,
            reshaped.values,
            shape,
            self._live_shape,
            self.route,
            reshaped.origin,
            factors,
            self._zero_share,
        )

    @cached_property
    def _key(self) -> str:
        return spectrum_key(self.paired, self.index)

    @cached_property
    def _found(self) -> StoredSpectrum | None:
        """What a scan has stored; None also where that is not known without reading the tensors."""
        if not all(is_hashed(side) for side in select_matrix(self.paired, self.index)[:2]):
            return None
        return self._store.get(self._key)

    def _stored_for(self, plan: RepairPlan) -> StoredSpectrum | None:
        """Return what is stored, where it is enough to tell the plan's threshold."""
        found = self._found
        return None if found is None or needs_delta(found, plan.rule, plan.params) else found

    def _reshaped(self, plan: RepairPlan, found: StoredSpectrum) -> ReshapedSpectrum:
        """Return what a plan makes of a stored spectrum."""
        tau = stored_tau(found, plan.rule, plan.params)
        return reshape_spectrum(plan, found.live_s, found.live_shape, tau=tau)

    @cached_property
    def _live_shape(self) -> tuple[int, int]:
        """Rows and columns that are not zero throughout."""
        return self._found.live_shape if self._found is not None else live_shape(self._computed[0])

    @cached_property
    def _zero_share(self) -> float | None:
        if "_computed" not in self.__dict__:
            return self._found.summary.get("zero_share")
        delta = self._computed[0]
        return 1 - int(torch.count_nonzero(delta)) / delta.numel()

    @cached_property
    def _computed(self) -> tuple[torch.Tensor, Decomposition]:
        """The delta and its decomposition, which holds it anyway."""
        name = label(self.paired.name, self.index)
        delta = compute_delta(self.paired, self.index, self._device)
        try:
            return delta, decompose(delta, self._device, name=name)
        except SpectrumError as error:
            if not _same_bytes(self.paired, self.index):
                keep = option("--exclude", f"^{re.escape(self.paired.name)}$")
                raise SpectrumError(f"{error}, or keep tuned's tensor by {keep}") from None
        # Equal infinities (a mask, say) differ by nan: nothing was trained here.
        delta = torch.zeros_like(delta)
        return delta, decompose(delta, self._device, name=name)

    @cached_property
    def _own_values(self) -> np.ndarray:
        """Singular values of the live part."""
        return np.asarray(self._computed[1].s, dtype=np.float64)[: min(self._live_shape)]


def _same_bytes(paired: PairedTensor, index: int | None) -> bool:
    """Return whether both sides of a matrix are stored alike."""
    base, tuned = (read_tensor(info, index) for info in (paired.base, paired.tuned))
    if base.dtype != tuned.dtype or base.shape != tuned.shape:
        return False
    return bool(torch.equal(base.contiguous().view(torch.uint8), tuned.contiguous().view(torch.uint8)))


def as_dg_hard(plan: RepairPlan) -> RepairPlan:
    """Return the plan of the D* that a control is made from: DG-Hard with the same rule, shrinker and tau."""
    return dataclasses.replace(plan, method="dg_hard", method_params={})
