"""What a checkpoint and a pair of checkpoints are made of; plain values that pickle and import no torch."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgviz.checkpoint.layout import MatrixLayout, matrix_layout
from dgviz.checkpoint.lone import stands_alone
from dgviz.errors import ExportError, PairError
from dgviz.words import near

if TYPE_CHECKING:
    import torch

REPAIR, KEEP, BASE_ONLY = ACTIONS = ("repair", "keep", "base_only")
BLOCKS, WARNING, INFO = SEVERITIES = ("blocks", "warning", "info")
_FORCED = ("unrelated", "shape_mismatch", "float8")


def is_floating(dtype: str) -> bool:
    """Return whether a dtype, in torch's words, is one of real floating-point numbers (of any width)."""
    return dtype.startswith(("float", "bfloat"))


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies, read from a header; no data.

    Attributes
    ----------
    name : str
        Its name in the checkpoint.
    shape : tuple of int
        Its shape as stored.
    dtype : str
        Its dtype in torch's words: ``"float32"``, ``"bfloat16"``, ``"int64"``, ...
    file : Path
        The file that holds it.
    start : int
        Absolute offset of its first byte in `file`.
    nbytes : int
        Its size in bytes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    start: int
    nbytes: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def files(self) -> frozenset[Path]:
        """Every file that it is read from."""
        return frozenset([self.file])

    @property
    def is_floating(self) -> bool:
        """Whether the elements are real floating-point numbers (of any width)."""
        return is_floating(self.dtype)

    def slice(self, index: int) -> "TensorInfo":
        """Return one entry of a stack as a tensor of its own; its bytes are contiguous.

        The stack is the first dimension longer than one (dimension 0, unless that is a singleton). It and the
        singletons before it are gone from the result.

        Raises
        ------
        IndexError
            If there is no such dimension, or `index` is not in it.
        """
        dim = next((dim for dim, length in enumerate(self.shape) if length > 1), None)
        if dim is None or not 0 <= index < self.shape[dim]:
            raise IndexError(f"no slice {index} in {self.name!r}, whose shape is {self.shape}")
        nbytes = self.nbytes // self.shape[dim]
        return replace(self, shape=self.shape[dim + 1 :], start=self.start + index * nbytes, nbytes=nbytes)


@dataclass(frozen=True)
class DerivedTensor(TensorInfo):
    """A tensor that no file holds as it is: computed from stored ones whenever it is read, and hashed by them.

    Everything that takes a `TensorInfo` takes this too. `file` is that of the tensor whose place it takes, `start` is
    0, `dtype` and `nbytes` are those of the computed values. Subclasses are plain values that say what to compute.

    Attributes
    ----------
    parts : tuple of TensorInfo
        The tensors it is computed from.
    """

    parts: tuple[TensorInfo, ...]

    @property
    def files(self) -> frozenset[Path]:
        """Every file that its parts are read from."""
        return frozenset().union(*(part.files for part in self.parts))

    @property
    def recipe(self) -> str:
        """What is computed from the parts, as text: with the parts' contents it decides every value."""
        raise NotImplementedError

    def compute(self) -> "torch.Tensor":
        """Return the values, in `dtype` and `shape`, on the CPU and in memory of their own."""
        raise NotImplementedError

    def slice(self, index: int) -> "TensorInfo":
        """Return one entry along the first dimension, computed on its own; see `TensorInfo.slice`."""
        if not 0 <= index < self.shape[0]:
            raise IndexError(f"no slice {index} in {self.name!r}, whose shape is {self.shape}")
        return self.entry(index)

    def entry(self, index: int) -> "TensorInfo":
        """Return an entry that is there."""
        raise NotImplementedError


@dataclass(frozen=True)
class Notice:
    """Something about a pair that its user should know before anything is computed.

    Attributes
    ----------
    code : str
        What it is, in one word, for programs.
    severity : str
        ``"blocks"`` (nothing is written while it stands), ``"warning"`` or ``"info"``.
    message : str
        What was found, in a sentence.
    remedy : str
        What to do about it, in a sentence.
    tensors : tuple of str
        The tensors it is about.
    exclude : str
        The regular expression that names the exception, where there can be one.
    """

    code: str
    severity: str
    message: str
    remedy: str
    tensors: tuple[str, ...] = ()
    exclude: str = ""

    @property
    def sentence(self) -> str:
        """Message and remedy in one line, as an error says them."""
        joint = ". " if self.remedy[:1].isupper() else ": "
        return f"{self.message.rstrip('.')}{joint}{self.remedy}"


@dataclass(frozen=True)
class Checkpoint:
    """A directory of weights, opened by its headers.

    Attributes
    ----------
    path : Path
        The directory, absolute.
    tensors : mapping of str to TensorInfo
        Every tensor, in natural order of names (``layers.2`` before ``layers.10``).
    config : mapping
        Its ``config.json``; empty where there is none.
    shards : tuple of str
        File names of the weights inside `path`, sorted.
    fingerprint : str
        Changes when a header, a file's size, times or inode, the index or the config changes.
    is_adapter : bool
        True: `path` holds an adapter, and tensors, config and shards are those of its base, the weights it changes
        derived from them.
    notices : tuple of Notice
        What opening it found that its user should know.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]
    config: Mapping[str, Any]
    shards: tuple[str, ...]
    fingerprint: str
    is_adapter: bool = False
    notices: tuple[Notice, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of all tensors, in bytes."""
        return sum(info.nbytes for info in self.tensors.values())


@dataclass(frozen=True)
class Descent:
    """What became of base's entries in tuned; of a tensor over two vocabularies, of the rows in common.

    Attributes
    ----------
    ratio : float
        ``|tuned - base| / |base|``, Frobenius norms.
    correlation : float
        Of the entries of base and tuned (Pearson's).
    sampled : bool
        Whether only a sample of the entries was looked at.
    permutation : str
        In words, where tuned has base's rows or columns in another order; else empty.
    """

    ratio: float
    correlation: float
    sampled: bool
    permutation: str = ""


@dataclass(frozen=True)
class PairedTensor:
    """One tensor of a pair and what is done with it.

    Attributes
    ----------
    name : str
        Its name in tuned; in base where `action` is ``"base_only"``.
    base, tuned : TensorInfo or None
        Its two sides; None where a side lacks it.
    action : str
        ``"repair"``, ``"keep"`` (tuned's bytes) or ``"base_only"`` (not written).
    reason : str
        Why, in a sentence.
    rows : tuple of (int, int), optional
        Where the vocabulary differs: the ranges (begin, end) of tuned's rows that base's rows belong to, in order.
        `base` then has just these rows; tuned's other rows are copied. None: all rows.
    cause : str
        The reason as one of `dgviz.checkpoint.actions.CAUSES`, to count by.
    via : str
        How the two sides were found to belong together where their names differ: ``"wrapped"``, ``"renamed"``,
        ``"experts"`` or ``"tied"``; empty for equal names.
    aliases : tuple of str
        Other names of the same tensor, which a model ties.
    descent : Descent or None
        How the entries of both sides compare; None where a side is constant, or tuned is base with an adapter.
    stacked : bool
        Whether three dimensions are a stack of matrices (`dgviz.checkpoint.stacks`).
    """

    name: str
    base: TensorInfo | None
    tuned: TensorInfo | None
    action: str
    reason: str
    rows: tuple[tuple[int, int], ...] | None = None
    cause: str = ""
    via: str = ""
    aliases: tuple[str, ...] = ()
    descent: Descent | None = None
    stacked: bool = False

    def compared(self, descent: Descent | None) -> "PairedTensor":
        """Return it with how the entries of both sides compare, made by hand: `replace` takes five times as long."""
        row = object.__new__(type(self))
        vars(row).update(vars(self), descent=descent)
        return row

    @property
    def layout(self) -> MatrixLayout | None:
        """The matrices it is made of; None for a vector."""
        return matrix_layout((self.tuned or self.base).shape, self.stacked)


@dataclass(frozen=True)
class CheckpointPair:
    """Two checkpoints and the action on every tensor of both, tuned's first, in natural order of names.

    Attributes
    ----------
    base, tuned : Checkpoint
        The two sides.
    tensors : tuple of PairedTensor
        One row for every tensor of both.
    notices : tuple of Notice
        What pairing found: what blocks a repair, and what could not be asked. `read_preflight` adds the rest.
    """

    base: Checkpoint
    tuned: Checkpoint
    tensors: tuple[PairedTensor, ...]
    notices: tuple[Notice, ...] = ()

    @property
    def blockers(self) -> tuple[Notice, ...]:
        """What stands in the way of a repair."""
        return tuple(notice for notice in self.notices if notice.severity == BLOCKS)

    def refuse_blocked(self) -> None:
        """Raise where something blocks a repair of this pair.

        Raises
        ------
        PairError
            With the first blocking notice and its remedy.
        """
        blockers = self.blockers
        if blockers:
            more = " (and more stands in the way: see inspect)" if len(blockers) > 1 else ""
            raise PairError(blockers[0].sentence + more)

    def refuse_output(self, path: Path) -> None:
        """Raise where a file or folder to be written is, or lies inside, one of both sides.

        A weight file by itself in a folder of anything is only that file.

        Parameters
        ----------
        path : Path
            Where; it need not be there.

        Raises
        ------
        ExportError
            With the side.
        """
        # A link is replaced where it lies, and written to where it leads.
        places = Path(os.path.realpath(path)), Path(os.path.realpath(path.parent), path.name)
        for name, side in (("base", self.base), ("tuned", self.tuned)):
            source = side.path.resolve()
            for place in places:
                weights = place.parent == source and place.name in side.shards
                if place == source or weights or (source in place.parents and not stands_alone(side)):
                    relation = "is" if place == source else "lies inside"
                    what = f"the output {path} {relation} the {name} checkpoint {side.path}"
                    raise ExportError(f"{what}; choose another place")

    def forced(self) -> "CheckpointPair":
        """Return the pair with everything as a warning that leaves something to repair: the rest stays tuned's."""
        found = (replace(item, severity=WARNING) if item.code in _FORCED else item for item in self.notices)
        return replace(self, notices=tuple(found))

    def counts(self) -> dict[str, int]:
        """Count the tensors of each action; all three are always there."""
        return {action: sum(paired.action == action for paired in self.tensors) for action in ACTIONS}

    @cached_property
    def repairable(self) -> tuple[PairedTensor, ...]:
        """The tensors that a repair changes."""
        return tuple(paired for paired in self.tensors if paired.action == REPAIR)

    @cached_property
    def _by_name(self) -> dict[str, PairedTensor]:
        return {paired.name: paired for paired in self.tensors}

    def __getitem__(self, name: str) -> PairedTensor:
        """Look one tensor up by name.

        Raises
        ------
        PairError
            If neither side has a tensor of that name.
        """
        if name not in self._by_name:
            where = f"{self.base.path} and {self.tuned.path}{near(name, self._by_name)}"
            raise PairError(f"no tensor {name!r} among the {len(self.tensors)} of {where}")
        return self._by_name[name]
