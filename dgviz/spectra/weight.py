"""One matrix of a pair: what it is called, where it stands, and the key under which its spectrum is stored."""

import dataclasses
import math
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from dgviz.checkpoint import (
    CheckpointPair,
    MatrixLayout,
    PairedTensor,
    TensorInfo,
    content_hash,
    is_hashed,
    known_hashes,
    matrix_layout,
)
from dgviz.checkpoint.derived import pick_rows
from dgviz.checkpoint.layout import label
from dgviz.checkpoint.module_path import ModulePath, module_path
from dgviz.errors import PairError
from dgviz.rmt.spectrum import Spectrum
from dgviz.spectra.store import SpectrumStore, spectrum_key


@dataclass(frozen=True)
class Weight:
    """One matrix of a pair.

    Attributes
    ----------
    tensor : PairedTensor
        The tensor that it is, or whose stack it belongs to.
    index : int or None
        Its place in the stack; None for a tensor that is one matrix.

    Raises
    ------
    PairError
        From every attribute that needs both sides, where the tensor has no delta, is no matrix, or the index does
        not fit it.
    """

    tensor: PairedTensor
    index: int | None = None

    @property
    def name(self) -> str:
        """The tensor's name, with the matrix of a stack in brackets."""
        return label(self.tensor.name, self.index)

    @property
    def module_path(self) -> ModulePath:
        """Where it belongs in the model."""
        return module_path(self.tensor.name)

    @property
    def expert(self) -> int | None:
        """Which expert it is, whether experts are stored as a stack or one by one."""
        return self.module_path.expert if self.index is None else self.index

    @property
    def base(self) -> TensorInfo:
        """Its entries before fine-tuning."""
        return self._sides[0]

    @property
    def tuned(self) -> TensorInfo:
        """Its entries after fine-tuning."""
        return self._sides[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        layout = self._sides[2]
        return layout.rows, layout.cols

    @property
    def parameters(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @cached_property
    def is_double(self) -> bool:
        """Whether either side is float64, and so its delta."""
        return "float64" in (self.base.dtype, self.tuned.dtype)

    @property
    def key(self) -> str:
        """Under which its spectrum is stored: the contents of both sides, which are hashed where nobody has yet."""
        return spectrum_key(content_hash(self.base), content_hash(self.tuned))

    @property
    def is_hashed(self) -> bool:
        """Whether `key` is known without reading either side."""
        return is_hashed(self.base) and is_hashed(self.tuned)

    def find_spectrum(self, store: SpectrumStore, key: str | None = None) -> Spectrum | None:
        """Return its spectrum if it is in the store, under its key."""
        started = time.perf_counter()
        found = store.get(key or self.key)
        seconds = time.perf_counter() - started
        return None if found is None else dataclasses.replace(found, name=self.name, stored=True, seconds=seconds)

    @cached_property
    def _sides(self) -> tuple[TensorInfo, TensorInfo, MatrixLayout]:
        """Base, tuned and their layout; where vocabularies differ, of the rows that have the same token on both."""
        paired, index = self.tensor, self.index
        base, tuned = paired.base, paired.tuned
        if paired.rows is not None:
            tuned = pick_rows(tuned, paired.rows)
        if base is None or tuned is None or base.shape != tuned.shape:
            raise PairError(f"{paired.name!r} has no delta: {paired.reason}")
        for info in (base, tuned):
            if not info.is_floating or info.dtype.startswith("float8"):
                raise PairError(
                    f"{paired.name!r} is {info.dtype} in {info.file}: "
                    "only float64, float32, bfloat16 and float16 have a delta"
                )
        layout = matrix_layout(tuned.shape, paired.stacked)
        if layout is None:
            raise PairError(f"{paired.name!r} of shape {tuned.shape} is not a matrix: only matrices have a spectrum")
        if layout.stack is None and index is None:
            return base, tuned, layout
        if layout.stack is None or index is None or not 0 <= index < layout.stack:
            what = "one matrix, without an index" if layout.stack is None else f"a stack of {layout.stack} matrices"
            raise PairError(f"{paired.name!r} of shape {tuned.shape} is {what}: index {index} does not fit")
        return base.slice(index), tuned.slice(index), layout


def matrices_of(tensor: PairedTensor) -> list[Weight]:
    """Return the matrices of a tensor, in order: one, or those of a stack; none of a vector."""
    layout = tensor.layout
    if layout is None:
        return []
    return [Weight(tensor)] if layout.stack is None else [Weight(tensor, index) for index in range(layout.stack)]


def find_matrices(pair: CheckpointPair, name: str) -> list[Weight]:
    """Return the matrices that a name means: those of a tensor, or of ``NAME[3]`` that one of its stack.

    Raises
    ------
    PairError
        If there is no such tensor or matrix, or nothing of it is repaired.
    """
    found = re.fullmatch(r"(.*)\[(\d+)\]", name)
    name, index = (found[1], int(found[2])) if found else (name, None)
    tensor = pair[name]
    if tensor.action != "repair":
        raise PairError(f"{name!r} has no spectrum to show: {tensor.reason}")
    weights = matrices_of(tensor)
    if index is not None and index >= len(weights):
        raise PairError(f"{name!r} has {len(weights)} matrices: index {index} does not fit")
    return weights if index is None else weights[index : index + 1]


def find_weight(pair: CheckpointPair, name: str) -> Weight:
    """Return the one matrix that a name means.

    Raises
    ------
    PairError
        If it means none, or several.
    """
    weights = find_matrices(pair, name)
    if len(weights) > 1:
        raise PairError(f"{name} has {len(weights)} matrices: name one, as {name}[0]")
    return weights[0]


def weights_of(pair: CheckpointPair) -> list[Weight]:
    """Return every matrix of a pair that a repair may change, in the order of the checkpoint."""
    return [weight for tensor in pair.repairable for weight in matrices_of(tensor)]


def known_keys(weights: Iterable[Weight]) -> list[str | None]:
    """Return `Weight.key` of many matrices at once, reading no data: None where a content is not known yet."""
    hashes = iter(known_hashes([side for weight in weights for side in weight._sides[:2]]))
    return [spectrum_key(base, tuned) if base and tuned else None for base, tuned in zip(hashes, hashes, strict=True)]
