"""All weights of a pair at once: their stored spectra, and what a rule makes of each of them.

Reads the store only. What a scan has not put there yet is named as missing, never computed, so that a page over a
thousand weights is there in a fraction of a second and fills in while a scan runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dgviz.checkpoint import CheckpointPair, PairedTensor, content_hash, matrix_layout, select_matrix
from dgviz.checkpoint.layout import label
from dgviz.checkpoint.module_path import ModulePath, module_path
from dgviz.rmt.assess import apply_rule, energy_kept
from dgviz.rmt.diagnosis import Diagnosis, diagnose
from dgviz.rmt.law import mp_fit
from dgviz.rmt.spectrum import StoredSpectrum
from dgviz.rmt.threshold import Threshold
from dgviz.spectra.store import SpectrumStore, known_keys, spectrum_key

# Contents that nobody has hashed yet are hashed here while they are this few bytes: a small pair written a moment ago
# has none remembered, and a page must not read a large one.
_READ_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Matrix:
    """One matrix of a pair with its stored spectrum.

    Attributes
    ----------
    name : str
        Tensor.
    index : int or None
        Which matrix of a stack.
    place : ModulePath
        Where it belongs in the model.
    dtype : str
        Of the tuned tensor.
    key : str
        Of its spectrum in the store.
    stored : StoredSpectrum
        Singular values, shape and figures of the entries.
    """

    name: str
    index: int | None
    place: ModulePath
    dtype: str
    key: str
    stored: StoredSpectrum

    @property
    def label(self) -> str:
        """The tensor's name, with the matrix of a stack in brackets."""
        return label(self.name, self.index)

    @property
    def expert(self) -> int | None:
        """Which expert it is, whether experts are stored as a stack or one by one."""
        return self.place.expert if self.index is None else self.index

    @property
    def parameters(self) -> int:
        """Number of entries."""
        return self.stored.shape[0] * self.stored.shape[1]

    @cached_property
    def energy(self) -> float:
        """Squared Frobenius norm of the update."""
        return float(np.sum(self.stored.s**2))


@dataclass(frozen=True)
class Atlas:
    """Every matrix of a pair that could be repaired.

    Attributes
    ----------
    matrices : tuple of Matrix
        Those whose spectrum is stored, in the order of the checkpoint.
    missing : tuple of (str, int or None)
        Name and index of the others.
    """

    matrices: tuple[Matrix, ...]
    missing: tuple[tuple[str, int | None], ...]


def list_matrices(pair: CheckpointPair) -> list[tuple[PairedTensor, int | None]]:
    """Return every matrix of a pair whose fate is repair, stacks matrix by matrix."""
    found: list[tuple[PairedTensor, int | None]] = []
    for paired in pair.repairable:
        stack = matrix_layout(paired.name, paired.tuned.shape).stack
        found += [(paired, index) for index in ([None] if stack is None else range(stack))]
    return found


def read_atlas(pair: CheckpointPair, store: SpectrumStore | None = None, previous: Atlas | None = None) -> Atlas:
    """Return all stored spectra of a pair."""
    store = store or SpectrumStore()
    read = {} if previous is None else {(matrix.name, matrix.index): matrix for matrix in previous.matrices}
    wanted = list_matrices(pair)
    new = [(paired, index) for paired, index in wanted if (paired.name, index) not in read]
    for (paired, index), key in zip(new, _keys(new), strict=True):
        found = None if key is None else store.get(key)
        if found is not None:
            place = module_path(paired.name)
            read[paired.name, index] = Matrix(paired.name, index, place, paired.tuned.dtype, key, found)
    names = [(paired.name, index) for paired, index in wanted]
    return Atlas(tuple(read[name] for name in names if name in read), tuple(n for n in names if n not in read))


def _keys(matrices: Sequence[tuple[PairedTensor, int | None]]) -> list[str | None]:
    """Return the keys of matrices, hashing contents that nobody has hashed yet while they are few."""
    keys = known_keys(matrices)
    unknown = [matrices[i] for i, key in enumerate(keys) if key is None]
    sides = [side for paired, index in unknown for side in select_matrix(paired, index)[:2]]
    if not unknown or sum(side.nbytes for side in sides) > _READ_BYTES:
        return keys
    for side in sides:
        content_hash(side)
    return [key or spectrum_key(*matrices[i]) for i, key in enumerate(keys)]


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
        s, shape = self.matrix.stored.live_s, self.matrix.stored.live_shape
        return mp_fit(np.where(np.arange(s.size) < dropped_from, 0.0, s), self.threshold.sigma, shape)


def assess(matrix: Matrix, rule: str, params: Mapping[str, Any]) -> Assessment:
    """Return what a rule makes of one matrix.

    Where the median measures no noise, a rule that needs it changes nothing: the repair writes tuned's values.
    """
    threshold = apply_rule(matrix.stored, rule, params)
    return Assessment(matrix, threshold, energy_kept(matrix.stored.s, threshold.rank))


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
