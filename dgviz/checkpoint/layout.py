"""How a stored tensor is seen as one matrix, or as a stack of matrices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache


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


def matrix_layout(shape: Sequence[int], stacked: bool = False) -> MatrixLayout | None:
    """Return the matrices of a tensor, or None where it is none (one dimension or less after squeezing).

    Singleton dimensions are squeezed first. More than two dimensions are one matrix, the first dimension by all the
    rest, as a convolution's kernel is; or three are a stack of independent matrices, such as one per expert.

    Parameters
    ----------
    shape : sequence of int
        The stored shape.
    stacked : bool
        Whether three dimensions are a stack (`PairedTensor.stacked`).

    Examples
    --------
    >>> matrix_layout((8, 64, 32), stacked=True)
    MatrixLayout(stack=8, rows=64, cols=32)
    >>> matrix_layout((16, 3, 4, 4))
    MatrixLayout(stack=None, rows=16, cols=48)
    >>> matrix_layout((1, 64)) is None
    True
    """
    return _layout(tuple(shape), stacked)


@lru_cache(maxsize=1024)
def _layout(shape: tuple[int, ...], stacked: bool) -> MatrixLayout | None:
    """Return `matrix_layout` of a shape; few differ in all the tensors of a model."""
    dims = [length for length in shape if length != 1]
    if len(dims) < 2 or 0 in dims:
        return None
    if len(dims) == 3 and stacked:
        return MatrixLayout(*dims)
    return MatrixLayout(None, dims[0], math.prod(dims[1:]))


def label(name: str, index: int | None) -> str:
    """Return a tensor's name, with the matrix of a stack in brackets."""
    return name if index is None else f"{name}[{index}]"
