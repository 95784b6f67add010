"""Figures of a weight update that its singular values do not tell: its size, its zeros, and whether it can be noise.

The Marchenko-Pastur law describes noise whose entries are independent, of one variance, with moderate tails. Whether
a delta is of that kind shows in its entries: rows or columns of unequal variance, heavy tails and neighbours that
move together all push pure noise above a threshold. All sums run in float64, block of rows by block of rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

# Elements handled at once. On a CPU a block in float64 stays in the cache (2 MiB); a GPU wants few, large kernels.
_CPU_BLOCK, _GPU_BLOCK = 2**18, 2**24


@dataclass(frozen=True)
class Moments:
    """What a pass over the entries of a delta D (m x n) tells.

    The last five are of the *live* part of D: rows and columns that are zero throughout are left out, which changes
    no singular value but those that are zero. Its M rows and N columns hold x, the entries minus their mean. None
    where a figure is not defined: nothing left, one row or column, or no two different entries.

    Attributes
    ----------
    relative_size : float or None
        ``|D|_F / |W_base|_F``; None where the base is zero.
    zero_share : float
        Share of entries of D that are exactly zero.
    zero_row_share, zero_column_share : float
        Share of rows, of columns, that are zero throughout.
    live_rows, live_columns : int
        M and N: rows and columns that are not.
    row_variance_cv, column_variance_cv : float or None
        Standard deviation over mean of the rows' variances ``v_i = mean_j (x_ij - mean_j x_ij)^2``; of the columns'.
    kurtosis : float or None
        ``mean(x^4) / mean(x^2)^2``, which is 3 for Gaussian entries.
    row_autocorrelation : float or None
        Of entries one row apart, in one column: ``sum_ij x_ij x_(i+1)j / ((M - 1) N)`` over ``mean(x^2)``.
    column_autocorrelation : float or None
        Of entries one column apart, in one row: ``sum_ij x_ij x_i(j+1) / (M (N - 1))`` over ``mean(x^2)``.
    """

    relative_size: float | None
    zero_share: float
    zero_row_share: float
    zero_column_share: float
    live_rows: int
    live_columns: int
    row_variance_cv: float | None
    column_variance_cv: float | None
    kurtosis: float | None
    row_autocorrelation: float | None
    column_autocorrelation: float | None


def compute_moments(delta: torch.Tensor, base_norm: float) -> Moments:
    """Return the moments of a delta, from two passes over it.

    Parameters
    ----------
    delta : (m, n) tensor
        Floating, finite, on any device; not modified.
    base_norm : float
        Frobenius norm of the base weight, see `frobenius_norm`.
    """
    rows, columns = delta.shape
    nonzero_by_row = torch.empty(rows, dtype=torch.int64, device=delta.device)
    live_columns = torch.zeros(columns, dtype=torch.bool, device=delta.device)
    total = torch.zeros((), dtype=torch.float64, device=delta.device)
    for block in _blocks(rows, columns, delta.device):
        nonzero = delta[block] != 0
        nonzero_by_row[block] = nonzero.sum(dim=1)
        live_columns |= nonzero.any(dim=0)
        total += delta[block].sum(dtype=torch.float64)
    live_rows = nonzero_by_row > 0
    row_count, column_count = int(live_rows.sum()), int(live_columns.sum())
    shares = (
        1 - int(nonzero_by_row.sum()) / delta.numel(),
        1 - row_count / rows,
        1 - column_count / columns,
        row_count,
        column_count,
    )
    if row_count == 0:
        return Moments(0.0 if base_norm > 0 else None, *shares, None, None, None, None, None)
    mean = float(total) / (row_count * column_count)
    index = None if row_count == rows and column_count == columns else (live_rows.nonzero()[:, 0], live_columns)
    sums = _central_sums(delta, index, (row_count, column_count), mean)
    size = (sums.square + row_count * column_count * (mean / sums.unit) ** 2) ** 0.5 * sums.unit
    return Moments(size / base_norm if base_norm > 0 else None, *shares, *sums.figures())


@dataclass(frozen=True)
class _Sums:
    """Sums over the live entries x, in units of `unit`, the largest of them."""

    unit: float
    shape: tuple[int, int]
    square: float
    fourth: float
    along_rows: float
    along_columns: float
    row_variances: torch.Tensor
    column_variances: torch.Tensor

    def figures(self) -> tuple[float | None, ...]:
        """Return the last five of `Moments`."""
        rows, columns = self.shape
        variance = self.square / (rows * columns)
        if variance < 1e-28:  # of the largest entry squared: one value throughout, and the rounding of its mean
            return (None,) * 5
        down, across = self.along_rows / variance, self.along_columns / variance
        return (
            _variation(self.row_variances),
            _variation(self.column_variances),
            self.fourth / (rows * columns) / variance**2,
            down / ((rows - 1) * columns) if rows > 1 else None,
            across / (rows * (columns - 1)) if columns > 1 else None,
        )


def _central_sums(
    delta: torch.Tensor, index: tuple[torch.Tensor, torch.Tensor] | None, shape: tuple[int, int], mean: float
) -> _Sums:
    """Return the sums of the second pass; `index` are the live rows' numbers and a mask of columns, None for all."""
    rows, columns = shape
    unit = float(torch.linalg.vector_norm(delta, ord=float("inf"))) + abs(mean)  # fourth powers stay in range
    row_variances = torch.empty(rows, dtype=torch.float64, device=delta.device)
    column_sums = torch.zeros(2, columns, dtype=torch.float64, device=delta.device)
    sums = torch.zeros(4, dtype=torch.float64, device=delta.device)
    above = None  # last row of the block before: the pair across the border belongs to the correlation too
    for block in _blocks(rows, columns, delta.device):
        entries = delta[block] if index is None else delta[index[0][block]][:, index[1]]
        x = (entries.double() - mean).div_(unit)  # not in place: float64 entries are the delta's own
        square = x * x
        row_variances[block] = square.mean(dim=1) - x.mean(dim=1).square()
        column_sums[0] += x.sum(dim=0)
        column_sums[1] += square.sum(dim=0)
        flat, squares = x.flatten(), square.flatten()
        sums[0] += squares.sum()
        sums[1] += squares.dot(squares)
        sums[2] += flat[columns:].dot(flat[:-columns])  # row-major: one row down is `columns` further on
        sums[3] += flat[1:].dot(flat[:-1]) - x[1:, 0].dot(x[:-1, -1])  # without the pairs across row ends
        if above is not None:
            sums[2] += above.dot(x[0])
        above = x[-1].clone()
    column_variances = column_sums[1] / rows - (column_sums[0] / rows).square()
    square_sum, fourth, along_rows, along_columns = sums.tolist()
    return _Sums(unit, shape, square_sum, fourth, along_rows, along_columns, row_variances, column_variances)


def _variation(variances: torch.Tensor) -> float | None:
    """Return standard deviation over mean of non-negative numbers; None where all are zero."""
    variances = variances.clamp_min(0)  # a difference of sums: rounding may leave -1e-17
    mean = float(variances.mean())
    return float(variances.std(correction=0)) / mean if mean > 0 else None


def _blocks(rows: int, columns: int, device: torch.device) -> Iterator[slice]:
    """Yield runs of rows of about as many elements as one pass handles well."""
    step = max(1, (_CPU_BLOCK if device.type == "cpu" else _GPU_BLOCK) // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def frobenius_norm(tensor: torch.Tensor) -> float:
    """Return the Frobenius norm of a tensor of any floating dtype, accumulated in float64 without a float64 copy.

    Parameters
    ----------
    tensor : tensor
        Any shape.
    """
    blocks = tensor.reshape(-1).split(_CPU_BLOCK if tensor.device.type == "cpu" else _GPU_BLOCK)
    # One block of scratch: the heap does not take back a fresh one per block, which adds up to the whole in float64.
    scratch = torch.empty(len(blocks[0]), dtype=torch.float64, device=tensor.device)
    norms = torch.empty(len(blocks), dtype=torch.float64, device=tensor.device)
    for number, block in enumerate(blocks):
        norms[number] = torch.linalg.vector_norm(scratch[: len(block)].copy_(block))
    return float(torch.linalg.vector_norm(norms))
