"""Tensors put together from stored ones without arithmetic: rows picked, experts fused, another file's place."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from dgviz.checkpoint.header import DTYPES
from dgviz.checkpoint.read import read_tensor
from dgviz.checkpoint.types import DerivedTensor, TensorInfo

if TYPE_CHECKING:
    import torch

_WIDTHS = dict(DTYPES.values())
_Derived = TypeVar("_Derived", bound=DerivedTensor)


def derive(
    kind: type[_Derived], like: TensorInfo, parts: tuple[TensorInfo, ...], *, shape: tuple[int, ...], **fields: Any
) -> _Derived:
    """Return a derived tensor with the name, file and dtype of `like`."""
    name, dtype = fields.pop("name", like.name), fields.pop("dtype", like.dtype)
    return kind(name, shape, dtype, like.file, 0, _WIDTHS[dtype] * math.prod(shape), parts, **fields)


def matrix_rows(info: TensorInfo, begin: int, end: int) -> TensorInfo:
    """Return consecutive rows (entries of dimension 0) of a tensor.

    Those of a stored tensor are a stored tensor again; those of a derived one are picked after it is computed.
    """
    shape = (end - begin, *info.shape[1:])
    if isinstance(info, DerivedTensor):
        return derive(PickedRows, info, (info,), shape=shape, ranges=((begin, end),))
    width = info.nbytes // info.shape[0] if info.shape[0] else 0
    return replace(info, shape=shape, start=info.start + begin * width, nbytes=(end - begin) * width)


def pick_rows(info: TensorInfo, ranges: tuple[tuple[int, int], ...]) -> TensorInfo:
    """Return the rows of several ranges (begin, end), one range after the other."""
    if len(ranges) == 1:
        return matrix_rows(info, *ranges[0])
    count = sum(end - begin for begin, end in ranges)
    return derive(PickedRows, info, (info,), shape=(count, *info.shape[1:]), ranges=ranges)


@dataclass(frozen=True)
class PickedRows(DerivedTensor):
    """Rows of one tensor; `ranges` are (begin, end) along dimension 0."""

    ranges: tuple[tuple[int, int], ...]

    @property
    def recipe(self) -> str:
        """The ranges."""
        return f"rows {self.ranges}"

    def compute(self) -> "torch.Tensor":
        """Read the whole tensor and copy its rows."""
        import torch

        whole = read_tensor(self.parts[0])
        return torch.cat([whole[begin:end] for begin, end in self.ranges]).reshape(self.shape)

    def entry(self, index: int) -> TensorInfo:
        """Return one row as a tensor of its own; only the first dimension is a stack here."""
        rows = [row for begin, end in self.ranges for row in range(begin, end)]
        return self.parts[0].slice(rows[index])


@dataclass(frozen=True)
class FusedExperts(DerivedTensor):
    """The experts of a layer as one stack, (experts, rows, columns).

    Entry e is the matrices ``parts[e * per_expert : (e + 1) * per_expert]`` below one another: transformers 5 fuses
    ``gate_proj`` and ``up_proj`` of Mixtral's kind this way (``MergeModulelist`` and ``Concatenate``).
    """

    per_expert: int

    @property
    def recipe(self) -> str:
        """How many parts make one expert."""
        return f"experts of {self.per_expert}"

    def compute(self) -> "torch.Tensor":
        """Read every expert."""
        import torch

        return torch.cat([read_tensor(part) for part in self.parts]).reshape(self.shape)

    def entry(self, index: int) -> TensorInfo:
        """Return one expert; only its own parts are read."""
        parts = self.parts[index * self.per_expert : (index + 1) * self.per_expert]
        if len(parts) == 1:
            return parts[0]
        return derive(FusedExperts, self, parts, shape=self.shape[1:], per_expert=self.per_expert)


@dataclass(frozen=True)
class PlacedTensor(DerivedTensor):
    """A stored tensor in the place of another: its bytes, under the other's name and file."""

    @property
    def recipe(self) -> str:
        """Nothing is computed."""
        return "as stored"

    def compute(self) -> "torch.Tensor":
        """Read it."""
        return read_tensor(self.parts[0])

    def slice(self, index: int) -> TensorInfo:
        """Return one entry of a stack."""
        return self.parts[0].slice(index)
