"""How a stored tensor is seen as one matrix, or as a stack of matrices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dgviz.checkpoint.derived import pick_rows
from dgviz.checkpoint.types import PairedTensor, TensorInfo
from dgviz.errors import PairError


@dataclass(frozen=True)
class MatrixLayout:
    """The matrices inside a tensor.

    Attributes
    ----------
    stack : int or None
        None: the tensor is one matrix. A number E: it is E matrices along its first (non-singleton) dimension.
    rows, cols : int
        Shape of each matrix.
    """

    stack: int | None
    rows: int
    cols: int


def matrix_layout(name: str, shape: Sequence[int]) -> MatrixLayout | None:
    """Return the matrices of a tensor, or None where it is none (one dimension or less after squeezing).

    Singleton dimensions are squeezed first. Three dimensions under a name with the component ``experts``
    (``model.layers.0.mlp.experts.gate_up_proj``) are a stack of independent matrices, one per expert. Every other
    tensor of more than two dimensions is a convolution kernel: its first dimension by all the rest.

    Parameters
    ----------
    name : str
        The tensor's name; only the components between dots are looked at.
    shape : sequence of int
        Its stored shape.

    Examples
    --------
    >>> matrix_layout("mlp.experts.down_proj", (8, 64, 32))
    MatrixLayout(stack=8, rows=64, cols=32)
    >>> matrix_layout("conv.weight", (16, 3, 4, 4))
    MatrixLayout(stack=None, rows=16, cols=48)
    >>> matrix_layout("norm.weight", (1, 64)) is None
    True
    """
    dims = [length for length in shape if length != 1]
    if len(dims) < 2 or 0 in dims:
        return None
    if len(dims) == 3 and "experts" in name.split("."):
        return MatrixLayout(*dims)
    return MatrixLayout(None, dims[0], math.prod(dims[1:]))


def select_matrix(paired: PairedTensor, index: int | None) -> tuple[TensorInfo, TensorInfo, MatrixLayout]:
    """Return both sides of one matrix of a pair, base first, and the layout it is part of.

    Where the vocabulary differs, both sides are the rows that have the same token on both.

    Parameters
    ----------
    paired : PairedTensor
        A weight that is in both checkpoints, repaired or not: an excluded matrix can be looked at.
    index : int or None
        Which matrix of a stack; None for a tensor that is one matrix.

    Raises
    ------
    PairError
        If a side lacks the tensor, shapes differ, it holds no floating-point matrix, or `index` does not fit it.
    """
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
    layout = matrix_layout(paired.name, tuned.shape)
    if layout is None:
        raise PairError(f"{paired.name!r} of shape {tuned.shape} is not a matrix: only matrices have a spectrum")
    if layout.stack is None and index is None:
        return base, tuned, layout
    if layout.stack is None or index is None or not 0 <= index < layout.stack:
        what = "one matrix, without an index" if layout.stack is None else f"a stack of {layout.stack} matrices"
        raise PairError(f"{paired.name!r} of shape {tuned.shape} is {what}: index {index} does not fit")
    return base.slice(index), tuned.slice(index), layout


def label(name: str, index: int | None) -> str:
    """Return a tensor's name, with the matrix of a stack in brackets."""
    return name if index is None else f"{name}[{index}]"
