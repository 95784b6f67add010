"""All weights of a pair at once: their stored spectra, and what a rule makes of each of them.

Reads the store only. What a scan has not put there yet is named as missing, never computed, so that a page over a
thousand weights is there in a fraction of a second and fills in while a scan runs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dgviz.checkpoint import CheckpointPair
from dgviz.rmt.assess import apply_rule, kept_rank, kept_values
from dgviz.rmt.diagnosis import Diagnosis, WeighedDiagnosis, diagnose, diagnose_model
from dgviz.rmt.directions import NO_DIRECTIONS, Directions
from dgviz.rmt.law import mp_fit
from dgviz.rmt.spectrum import Spectrum, norm_ratio
from dgviz.rmt.threshold import Threshold
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import Weight, known_keys, weights_of


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """One weight whose spectrum is stored.

    Attributes
    ----------
    weight : Weight
        Which.
    spectrum : Spectrum
        Singular values, shape and figures of the entries.
    """

    weight: Weight
    spectrum: Spectrum


@dataclass(frozen=True)
class ModelSpectra:
    """Every weight of a pair that a repair may change.

    Attributes
    ----------
    weights : tuple of StoredWeight
        Those whose spectrum is stored, in the order of the checkpoint.
    missing : tuple of Weight
        The others.
    digest : str
        Changes when anything that is stored of these weights does; empty where they were not all read at once.
    """

    weights: tuple[StoredWeight, ...]
    missing: tuple[Weight, ...]
    digest: str = ""


def read_spectra(
    pair: CheckpointPair,
    store: SpectrumStore | None = None,
    previous: ModelSpectra | None = None,
    hash_bytes: int = 64 * 2**20,
) -> ModelSpectra:
    """Return all stored spectra of a pair.

    Contents that nobody has hashed yet are hashed here while they are at most `hash_bytes`: a small pair written a
    moment ago has none remembered, and a page must not read a large one.
    """
    store = store or SpectrumStore()
    read = {} if previous is None else {stored.weight.name: stored for stored in previous.weights}
    wanted = weights_of(pair)
    new = [weight for weight in wanted if weight.name not in read]
    keys = _keys(new, hash_bytes)
    found, digest = store.get_many(key for key in keys if key is not None)
    for weight, key in zip(new, keys, strict=True):
        if key in found:
            read[weight.name] = StoredWeight(weight, found[key])
    missing = tuple(weight for weight in wanted if weight.name not in read)
    known = tuple(read[weight.name] for weight in wanted if weight.name in read)
    return ModelSpectra(known, missing, "" if previous else digest)


def _keys(weights: Sequence[Weight], hash_bytes: int) -> list[str | None]:
    """Return the keys of matrices, hashing contents that nobody has hashed yet while they are few."""
    keys = known_keys(weights)
    unknown = [weight for weight, key in zip(weights, keys, strict=True) if key is None]
    if sum(side.nbytes for weight in unknown for side in (weight.base, weight.tuned)) > hash_bytes:
        return keys
    return [key or weight.key for weight, key in zip(weights, keys, strict=True)]


@dataclass(frozen=True, eq=False)
class Assessment(StoredWeight):
    """What a rule finds in one weight; figures that take time are computed when they are first asked for.

    Attributes
    ----------
    weight, spectrum
        Whose figures these are.
    threshold : Threshold
        What the rule found.
    rank : int
        Directions that the repair keeps.
    energy_kept : float
        Share of the update's squared norm that the repair keeps.
    """

    threshold: Threshold
    rank: int
    energy_kept: float

    @property
    def rank_share(self) -> float:
        """Kept directions over all p of them."""
        return self.rank / self.spectrum.s.size

    @property
    def emptied(self) -> bool:
        """Whether nothing is kept of an update: the matrix becomes base."""
        return self.rank == 0 and not self.frozen

    @property
    def frozen(self) -> bool:
        """Whether training has left the matrix as it was: there is no update to keep or drop."""
        return self.spectrum.energy == 0

    @property
    def unchanged(self) -> bool:
        """Whether every direction of an update is kept."""
        whole = self.threshold.whole and self.energy_kept == 1
        return not self.frozen and (whole or self.rank == int(np.count_nonzero(self.spectrum.s)))

    @property
    def noise_share(self) -> float:
        """What the repair drops: ``1 - |D*|^2 / |D|^2``."""
        return 1.0 - self.energy_kept

    @property
    def dropped_energy(self) -> float:
        """Squared Frobenius norm of what the repair drops."""
        return self.noise_share * self.spectrum.energy

    @property
    def kept_parameters(self) -> int:
        """``rank (m + n)``: numbers needed to write the kept part as two factors."""
        return self.rank * sum(self.spectrum.shape)

    @cached_property
    def mp_fit(self) -> float | None:
        """MP-fit of the update, in percent; None where the median measures no noise."""
        return self._fit(0)

    @cached_property
    def residual_fit(self) -> float | None:
        """MP-fit of what is dropped, in percent; None where the median measures no noise."""
        return self._fit(self.threshold.rank)

    @cached_property
    def residual_own_fit(self) -> float | None:
        """The same over the values dropped, without the zeros that stand for what is kept."""
        rest = self.spectrum.nonzero_s[self.threshold.rank :]
        return (
            None
            if self.threshold.degenerate or not rest.any()
            else mp_fit(rest[rest > 0], self.threshold.sigma, self.spectrum.nonzero_shape)
        )

    @property
    def noise_fit(self) -> float | None:
        """What noise of this shape scores; None where the median measures no noise."""
        return None if self.threshold.degenerate else self.spectrum.noise_fit

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """Whether the threshold may be trusted here, and why."""
        return diagnose(self.spectrum, self.threshold)

    def _fit(self, dropped_from: int) -> float | None:
        """Return the MP-fit of the spectrum without its first directions."""
        return None if self.threshold.degenerate else self.spectrum.mp_fit(self.threshold.sigma, dropped_from)


def assess(
    stored: StoredWeight, rule: str, params: Mapping[str, Any], directions: Directions = NO_DIRECTIONS
) -> Assessment:
    """Return what a rule finds in one weight, and what is kept of it with single directions kept or dropped.

    Where the median measures no noise, a rule that needs it changes nothing: the repair writes tuned's values.
    """
    threshold = apply_rule(stored.spectrum, rule, params)
    rank, kept = threshold.rank, 1.0 if threshold.whole else stored.spectrum.energy_kept(threshold.rank)
    if directions:
        values = kept_values(stored.spectrum, threshold, directions)
        rank = kept_rank(values, threshold, directions)
        kept = norm_ratio(values, stored.spectrum.nonzero_s) ** 2
    return Assessment(stored.weight, stored.spectrum, threshold, rank, kept)


def verdict_of(rows: Iterable[Assessment], config: Mapping[str, Any] | None = None) -> Diagnosis | None:
    """Return whether a rule may be trusted on a group of weights; None for an empty one.  See `diagnose_model`."""
    weighed = [
        WeighedDiagnosis(
            row.weight.name,
            math.prod(row.spectrum.nonzero_shape),
            row.spectrum.energy,
            row.diagnosis,
            tower=path.tower,
            layer=path.layer,
        )
        for row in rows
        for path in [row.weight.module_path]
    ]
    return diagnose_model(weighed, config) if weighed else None
