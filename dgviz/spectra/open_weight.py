"""A weight at work: its update and what follows from it, looked up where a scan has stored it, else computed once."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from dgviz.device import fetch, send
from dgviz.errors import DgvizError, SpectrumError
from dgviz.rmt.assess import apply_rule, needs_delta, threshold_key
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import Threshold
from dgviz.spectra.delta import Sides, compute_delta, compute_deltas
from dgviz.spectra.entries import describe_weight
from dgviz.spectra.moments import find_nonzero
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.svd.decompose import Decomposition, decompose, decompose_stack, resolve_device
from dgviz.spectra.weight import Weight, known_keys

# Retained factors are stored up to a fifth of the weight's own bytes: for a square bfloat16 matrix that is p / 20
# directions, more than most updates keep, and a scanned model adds a fifth of its size to the cache at most. Beyond
# 64 MiB reading them back costs a good part of what computing them does.
_FACTOR_SHARE, _FACTOR_BYTES = 0.2, 64 * 2**20


class OpenWeight:
    """One weight on a device; every part is made when it is first asked for, and kept.

    Parameters
    ----------
    weight : Weight
        Which matrix of which pair.
    device : str
        See `resolve_device`.
    store : SpectrumStore, optional
        Where spectra are looked up and put; default: the user's own.
    """

    def __init__(self, weight: Weight, device: str = "auto", store: SpectrumStore | None = None) -> None:
        self.weight, self.device = weight, resolve_device(device)
        self.store = store or SpectrumStore()
        self._spectrum: Spectrum | None = None
        self._looked_up = False

    @cached_property
    def key(self) -> str:
        """Under which spectrum and factors are stored."""
        return self.weight.key

    @cached_property
    def as_stored(self) -> Sides:
        """Base and tuned as stored, on the device."""
        return Sides(self.weight, self.device)

    @cached_property
    def delta(self) -> torch.Tensor:
        """Tuned minus base, (rows, columns), on the device."""
        return compute_delta(self.weight, self.device, sides=self.as_stored)

    @cached_property
    def decomposition(self) -> Decomposition:
        """The factorisation of the update."""
        return decompose(self.delta, self.device, name=self.weight.name)

    @property
    def is_computed(self) -> bool:
        """Whether the update has been decomposed here."""
        return "decomposition" in self.__dict__

    @property
    def nbytes(self) -> int:
        """Memory held, estimated: the delta and factors of the same size; nothing before they are made."""
        return 3 * self.delta.nbytes if "delta" in self.__dict__ else 0

    @property
    def known(self) -> Spectrum | None:
        """The spectrum where it is known without reading either side, else None."""
        if not self._looked_up and self._spectrum is None and (key := known_keys([self.weight])[0]):
            self.key = key
            self._look_up()
        return self._spectrum

    def spectrum(self) -> Spectrum:
        """Return the spectrum from the store, or compute and store it."""
        if not self._looked_up and self._spectrum is None:
            self._look_up()
        if self._spectrum is None:
            self._spectrum = self._compute()
        return self._spectrum

    def spectrum_with(self, rule: str, params: Mapping[str, Any]) -> Spectrum:
        """Return the spectrum; for a rule that needs the delta, with the tau it finds there, which is stored too."""
        spectrum = self.spectrum()
        if needs_delta(spectrum, rule, params):
            started = time.perf_counter()
            tau = apply_rule(spectrum, rule, {**params, "scale": 1.0}, lambda: self.delta).tau
            known = spectrum.summary.get("thresholds", {}) | {threshold_key(rule, params): tau}
            summary = spectrum.summary | {"thresholds": known}
            seconds = spectrum.seconds + time.perf_counter() - started
            self._spectrum = self._put(dataclasses.replace(spectrum, summary=summary, stored=False, seconds=seconds))
        return self._spectrum

    @cached_property
    def measured(self) -> Spectrum:
        """The spectrum, from the store or just computed: then neither stored nor described."""
        if self.known is not None:
            return self.known
        nonzero = find_nonzero(self.delta)
        s = np.asarray(self.decomposition.s, dtype=np.float64)
        return Spectrum(s, tuple(self.decomposition.shape), {}, nonzero.figures())

    def threshold(self, rule: str, params: Mapping[str, Any]) -> Threshold:
        """Return what a rule finds in the update, reading it only where the rule needs the delta."""
        return apply_rule(self.measured, rule, params, lambda: self.delta)

    def triplets(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the strongest triplets, ``U s`` (m, rank) and ``Vh`` (rank, n), stored or computed."""
        stored = self._stored_factors(rank)
        return self.decomposition.triplets(rank) if stored is None else stored

    def vectors(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the two singular vectors of one direction, from 1 on, of length one."""
        left, right = self.triplets(number)
        u, v = left[:, -1].cpu().numpy().astype(np.float64), right[-1].cpu().numpy().astype(np.float64)
        if not u.any():
            raise SpectrumError(f"direction {number} of {self.weight.name} has a singular value of zero")
        return u / np.linalg.norm(u), v / np.linalg.norm(v)

    def factors(self, values: np.ndarray, s: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``U values`` (m, k) and ``Vh`` (k, n) of the k directions whose values are not zero."""
        places = np.flatnonzero(values)
        last = int(places[-1]) + 1 if places.size else 0
        left, right = self.triplets(last)
        if places.size < last:
            chosen = send(torch.from_numpy(places), left.device)
            left, right = left[:, chosen], right[chosen]
        ratio = values[places] / s[places]
        if not (ratio == 1).all():
            left = left * send(torch.from_numpy(ratio).to(left.dtype), left.device)
        return left, right

    def store_factors(self, *rules: tuple[str, Mapping[str, Any]]) -> Spectrum:
        """Store the triplets that one of the rules keeps, as many as fit under the cap; return the spectrum."""
        spectrum = self.spectrum()
        per_rank = sum(spectrum.shape) * (8 if self.weight.is_double else 4)
        cap = min(_FACTOR_BYTES, _FACTOR_SHARE * self.weight.tuned.nbytes)
        ranks = {apply_rule(spectrum, rule, params).rank for rule, params in rules}
        rank = max((rank for rank in ranks if rank * per_rank <= cap), default=0)
        if rank:
            left, right = self.decomposition.triplets(rank)
            left, right = fetch(left), right.cpu()  # what is waited for is both
            try:
                self.store.put_factors(self.key, left.numpy(), right.numpy())
            except DgvizError as error:
                self._spectrum = _warned(spectrum, error)
        return self.spectrum()

    @property
    def zero_share(self) -> float | None:
        """Share of the update's entries that are exactly zero; None where nobody looked."""
        return self.measured.summary.get("zero_share")

    @property
    def route(self) -> str:
        """How the spectrum was computed."""
        if not self.is_computed and self.known is not None:
            return f"{self.known.certificate['route']}, from the store"
        return self.decomposition.certificate.route

    def _stored_factors(self, rank: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        if self.known is None:
            return None
        stored = self.store.get_factors(self.key, rank)
        return stored and tuple(send(torch.from_numpy(factor), self.device) for factor in stored)

    def _look_up(self) -> None:
        """Take the spectrum from the store; once, for what others store meanwhile is the same."""
        self._spectrum, self._looked_up = self.weight.find_spectrum(self.store, self.key), True

    def _compute(self) -> Spectrum:
        """Decompose the update, describe its entries, and store both."""
        started = time.perf_counter()
        certificate = dataclasses.asdict(self.decomposition.certificate)
        summary = describe_weight(self.weight, self.delta, self.decomposition, self.as_stored)
        self.as_stored.forget()
        s = np.asarray(self.decomposition.s, dtype=np.float64)
        spectrum = Spectrum(s, tuple(self.decomposition.shape), certificate, summary, self.weight.name)
        return self._put(dataclasses.replace(spectrum, seconds=time.perf_counter() - started))

    def _put(self, spectrum: Spectrum) -> Spectrum:
        """Store a spectrum; a store that cannot be written costs a warning only."""
        try:
            self.store.put(self.key, spectrum.s, spectrum.shape, spectrum.certificate, spectrum.summary)
        except DgvizError as error:
            return _warned(spectrum, error)
        return spectrum


def open_together(weights: Sequence[Weight], device: str, store: SpectrumStore, size: int) -> Iterator[OpenWeight]:
    """Yield weights of one shape in order, those that are not stored decomposed so many together.

    Where a GPU's memory does not hold them it is tried with half as many.
    """
    rest = list(weights)
    while rest:
        group = [OpenWeight(weight, device, store) for weight in rest[:size]]
        try:
            if len(group) > 1:
                _decompose_together([own for own in group if own.known is None])
        except torch.OutOfMemoryError:
            size = len(group) // 2
        else:
            del rest[:size]
            while group:
                yield group.pop(0)
            continue
        del group
        torch.cuda.empty_cache()
        logging.getLogger("dgviz").warning(f"{device} ran out of memory: {size} matrices at once are tried next")


def _decompose_together(weights: list[OpenWeight]) -> None:
    """Decompose the updates of several weights in one go; where one cannot be, each is left to itself."""
    if not weights:
        return
    device = weights[0].device
    with contextlib.suppress(DgvizError):
        deltas = compute_deltas([own.weight for own in weights], device, [own.as_stored for own in weights])
        for own, delta in zip(weights, deltas, strict=True):
            own.delta = delta
        found = decompose_stack(deltas, device, [own.weight.name for own in weights])
        for own, decomposition in zip(weights, found, strict=True):
            own.decomposition = decomposition


def _warned(spectrum: Spectrum, error: DgvizError) -> Spectrum:
    """Return a spectrum with one warning more, once."""
    return dataclasses.replace(spectrum, warnings=tuple(dict.fromkeys((*spectrum.warnings, str(error)))))
