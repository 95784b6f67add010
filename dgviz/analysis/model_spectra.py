"""All weights of a pair at once: their stored spectra, and what a rule makes of each of them.

Reads the store only. What a scan has not put there yet is named as missing, never computed, so that a page over a
thousand weights is there in a fraction of a second and fills in while a scan runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.module_path import ModulePath
from dgviz.rmt.assess import apply_rule
from dgviz.rmt.diagnosis import Diagnosis, diagnose
from dgviz.rmt.law import mp_fit
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import Threshold
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import Weight, known_keys, weights_of


@dataclass(frozen=True, eq=False)
class Matrix:
    """One matrix of a pair with its stored spectrum.

    Attributes
    ----------
    weight : Weight
        Which.
    stored : Spectrum
        Singular values, shape and figures of the entries.
    """

    weight: Weight
    stored: Spectrum

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.weight.tensor.name

    @property
    def index(self) -> int | None:
        """Which matrix of a stack."""
        return self.weight.index

    @property
    def label(self) -> str:
        """The tensor's name, with the matrix of a stack in brackets."""
        return self.weight.name

    @cached_property
    def place(self) -> ModulePath:
        """Where it belongs in the model."""
        return self.weight.module_path

    @property
    def dtype(self) -> str:
        """Of the tuned tensor."""
        return self.weight.tensor.tuned.dtype

    @property
    def expert(self) -> int | None:
        """Which expert it is, whether experts are stored as a stack or one by one."""
        return self.weight.expert

    @property
    def parameters(self) -> int:
        """Number of entries."""
        return self.stored.shape[0] * self.stored.shape[1]

    @property
    def energy(self) -> float:
        """Squared Frobenius norm of the update."""
        return self.stored.energy


@dataclass(frozen=True)
class Atlas:
    """Every matrix of a pair that could be repaired.

    Attributes
    ----------
    matrices : tuple of Matrix
        Those whose spectrum is stored, in the order of the checkpoint.
    missing : tuple of Weight
        The others.
    """

    matrices: tuple[Matrix, ...]
    missing: tuple[Weight, ...]


def read_atlas(
    pair: CheckpointPair,
    store: SpectrumStore | None = None,
    previous: Atlas | None = None,
    hash_bytes: int = 64 * 2**20,
) -> Atlas:
    """Return all stored spectra of a pair.

    Contents that nobody has hashed yet are hashed here while they are at most `hash_bytes`: a small pair written a
    moment ago has none remembered, and a page must not read a large one.
    """
    store = store or SpectrumStore()
    read = {} if previous is None else {matrix.weight: matrix for matrix in previous.matrices}
    wanted = weights_of(pair)
    new = [weight for weight in wanted if weight not in read]
    for weight, key in zip(new, _keys(new, hash_bytes), strict=True):
        found = None if key is None else store.get(key)
        if found is not None:
            read[weight] = Matrix(weight, found)
    return Atlas(tuple(read[w] for w in wanted if w in read), tuple(w for w in wanted if w not in read))


def _keys(weights: Sequence[Weight], hash_bytes: int) -> list[str | None]:
    """Return the keys of matrices, hashing contents that nobody has hashed yet while they are few."""
    keys = known_keys(weights)
    unknown = [weight for weight, key in zip(weights, keys, strict=True) if key is None]
    if sum(side.nbytes for weight in unknown for side in (weight.base, weight.tuned)) > hash_bytes:
        return keys
    return [key or weight.key for weight, key in zip(weights, keys, strict=True)]


@dataclass(frozen=True, eq=False)
class Assessment:
    """What a rule makes of one matrix; figures that take time are computed when they are first asked for.

    Attributes
    ----------
    matrix : Matrix
        Whose figures these are.
    threshold : Threshold
        What the rule found.
    energy_kept : float
        Share of the update's squared norm that the repair keeps.
    """

    matrix: Matrix
    threshold: Threshold
    energy_kept: float

    @property
    def rank(self) -> int:
        """Directions that the repair keeps."""
        return self.threshold.rank

    @property
    def rank_share(self) -> float:
        """Kept directions over all p of them."""
        return self.threshold.rank / self.matrix.stored.s.size

    @property
    def noise_share(self) -> float:
        """What the repair drops: ``1 - |D*|^2 / |D|^2``."""
        return 1.0 - self.energy_kept

    @property
    def dropped_energy(self) -> float:
        """Squared Frobenius norm of what the repair drops."""
        return self.noise_share * self.matrix.energy

    @property
    def kept_parameters(self) -> int:
        """``rank (m + n)``: numbers needed to write the kept part as two factors."""
        return self.threshold.rank * sum(self.matrix.stored.shape)

    @property
    def relative_size(self) -> float | None:
        """``|D| / |W_base|``; None where the base is zero or nobody looked."""
        return self.matrix.stored.summary.get("relative_size")

    @property
    def zero_share(self) -> float | None:
        """Share of entries that did not change; None where nobody looked."""
        return self.matrix.stored.summary.get("zero_share")

    @cached_property
    def stable_rank(self) -> float | None:
        """``|D|^2 / s_1^2``; None for an update of zero."""
        s = self.matrix.stored.s
        return float(np.sum((s / s[0]) ** 2)) if s[0] > 0 else None

    @cached_property
    def mp_fit(self) -> float | None:
        """MP-fit of the update, in percent; None where the median measures no noise."""
        return self._fit(0)

    @cached_property
    def residual_fit(self) -> float | None:
        """MP-fit of what is dropped, in percent; None where the median measures no noise."""
        return self._fit(self.threshold.rank)

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """Whether the threshold may be trusted here, and why."""
        return diagnose(self.matrix.stored, self.threshold)

    def _fit(self, dropped_from: int) -> float | None:
        """Return the MP-fit of the spectrum with the values before `dropped_from` set to zero."""
        if self.threshold.degenerate or not self.threshold.sigma > 0:
            return None
        s, shape = self.matrix.stored.nonzero_s, self.matrix.stored.nonzero_shape
        return mp_fit(np.where(np.arange(s.size) < dropped_from, 0.0, s), self.threshold.sigma, shape)


def assess(matrix: Matrix, rule: str, params: Mapping[str, Any]) -> Assessment:
    """Return what a rule makes of one matrix.

    Where the median measures no noise, a rule that needs it changes nothing: the repair writes tuned's values.
    """
    threshold = apply_rule(matrix.stored, rule, params)
    return Assessment(matrix, threshold, matrix.stored.energy_kept(threshold.rank))


@dataclass(frozen=True)
class Totals:
    """What a rule makes of the whole model.

    Attributes
    ----------
    matrices, directions, parameters : int
        Counted over all of them.
    rank, kept_parameters : int
        What is kept, summed.
    energy_kept : float
        Share of the whole update's squared norm.
    emptied, unchanged : int
        Matrices of which nothing is kept (they become base), and of which everything is (they stay tuned).
    residual_fit : float or None
        Median MP-fit of what is dropped, over the matrices that have one.
    """

    matrices: int
    directions: int
    parameters: int
    rank: int
    kept_parameters: int
    energy_kept: float
    emptied: int
    unchanged: int
    residual_fit: float | None


def total(assessments: Iterable[Assessment]) -> Totals:
    """Return the sum over matrices."""
    rows = list(assessments)
    whole = sum(row.matrix.energy for row in rows)
    fits = [row.residual_fit for row in rows if row.residual_fit is not None]
    return Totals(
        matrices=len(rows),
        directions=sum(row.matrix.stored.s.size for row in rows),
        parameters=sum(row.matrix.parameters for row in rows),
        rank=sum(row.rank for row in rows),
        kept_parameters=sum(row.kept_parameters for row in rows),
        energy_kept=1 - sum(row.dropped_energy for row in rows) / whole if whole > 0 else 1.0,
        emptied=sum(row.rank == 0 and row.matrix.energy > 0 for row in rows),
        unchanged=sum(bool(row.rank == np.count_nonzero(row.matrix.stored.s)) for row in rows),
        residual_fit=float(np.median(fits)) if fits else None,
    )
