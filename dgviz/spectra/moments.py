"""Figures of a weight update that its singular values do not tell: its size, its zeros, and whether it can be noise.

The Marchenko-Pastur law describes noise whose entries are independent, of one variance, with moderate tails. Whether
a delta is of that kind shows in its entries: rows or columns of unequal variance, heavy tails and neighbours that
move together all push pure noise above a threshold. Directions far above the noise would show there too without being
noise, so they are taken out first. All sums run in float64, block of rows by block of rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from dgviz.device import block_elements

_CPU_BLOCK = 2**18  # elements handled at once on a CPU, where a block in float64 stays in the cache (2 MiB)


@dataclass(frozen=True)
class Moments:
    """What a pass over the entries of a delta D (m x n) tells.

    The last five are of the *nonzero block* of D: rows and columns that are zero throughout are left out, which
    changes no singular value but those that are zero. Its M rows and N columns hold x, the entries less the strong
    directions and less the mean of what is left. None where a figure is not defined: nothing left, one row or column,
    or no two different entries.

    Attributes
    ----------
    relative_size : float or None
        ``|D|_F / |W_base|_F``; None where the base is zero.
    zero_share : float
        Share of entries of D that are exactly zero.
    zero_row_share, zero_column_share : float
        Share of rows, of columns, that are zero throughout.
    live_rows, live_columns : int
        M and N: rows and columns of the nonzero block.
    strong : int
        Number of directions taken out before the last five were computed.
    strong_concentrated : int
        Those of them that have more than half their weight in one row or in one column.
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
    strong: int
    strong_concentrated: int
    row_variance_cv: float | None
    column_variance_cv: float | None
    kurtosis: float | None
    row_autocorrelation: float | None
    column_autocorrelation: float | None


@dataclass(frozen=True)
class NonzeroBlock:
    """Rows and columns of a delta that hold a nonzero entry.

    Attributes
    ----------
    full_shape, shape : (int, int)
        Of the delta, and of its nonzero block.
    rows, columns : tensor
        Which they are: masks over the delta's rows and columns.
    entries : int
        Number of entries that are not zero.
    total : float
        Sum of all entries.
    """

    full_shape: tuple[int, int]
    shape: tuple[int, int]
    rows: torch.Tensor
    columns: torch.Tensor
    entries: int
    total: float

    def figures(self) -> dict[str, float | int]:
        """Return the first figures of `Moments` that it tells."""
        rows, columns = self.full_shape
        return {
            "zero_share": 1 - self.entries / (rows * columns),
            "zero_row_share": 1 - self.shape[0] / rows,
            "zero_column_share": 1 - self.shape[1] / columns,
            "live_rows": self.shape[0],
            "live_columns": self.shape[1],
        }

    @cached_property
    def _index(self) -> torch.Tensor | None:
        return None if self.shape == self.full_shape else self.rows.nonzero()[:, 0]

    def take(self, matrix: torch.Tensor, block: slice) -> torch.Tensor:
        """Return some nonzero rows of a matrix of the delta's shape, nonzero columns only; a view where all are."""
        return matrix[block] if self._index is None else matrix[self._index[block]][:, self.columns]

    def blocks(self, elements: int) -> Iterator[slice]:
        """Yield runs of nonzero rows of about so many elements."""
        rows, columns = self.shape
        step = max(1, elements // max(1, columns))
        for start in range(0, rows, step):
            yield slice(start, min(start + step, rows))


def find_nonzero(delta: torch.Tensor) -> NonzeroBlock:
    """Return which rows and columns of a delta are not zero throughout."""
    rows, columns = delta.shape
    nonzero_by_row = torch.empty(rows, dtype=torch.float64, device=delta.device)
    nonzero_by_column = torch.zeros(columns, dtype=delta.dtype, device=delta.device)
    total = torch.zeros((), dtype=torch.float64, device=delta.device)
    exact = torch.float64 if columns > 2**24 else delta.dtype  # sums of so many ones
    step = max(1, _block_elements(delta.device) // columns)
    for start in range(0, rows, step):
        block = delta[start : start + step]
        nonzero = block.sign().abs_()  # ones: a processor makes them in a third of the time of a mask
        nonzero_by_row[start : start + step] = nonzero.sum(dim=1, dtype=exact)
        nonzero_by_column += nonzero.sum(dim=0)
        total += block.sum(dtype=torch.float64)  # exact: whether all entries are one value is told by it
    in_row, in_column = nonzero_by_row > 0, nonzero_by_column > 0
    counts = torch.stack([in_row.sum(), in_column.sum(), nonzero_by_row.sum()]).double()  # exact up to 2^53
    *shape, entries, entire = torch.cat([counts, total[None]]).tolist()  # a GPU is waited for once
    return NonzeroBlock((rows, columns), tuple(map(int, shape)), in_row, in_column, int(entries), entire)


def compute_moments(
    delta: torch.Tensor,
    base_norm: float,
    nonzero: NonzeroBlock | None = None,
    strong: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Moments:
    """Return the moments of a delta, from two passes over it."""
    nonzero = nonzero or find_nonzero(delta)
    shares = (*nonzero.figures().values(), 0 if strong is None else strong[0].shape[1])
    if nonzero.shape[0] == 0:
        concentrated = 0 if strong is None else int(_count_concentrated(*strong))
        return Moments(0.0 if base_norm > 0 else None, *shares, concentrated, None, None, None, None, None)
    sums = _central_sums(delta, nonzero, strong)
    size = sums.energy**0.5 * sums.unit
    return Moments(size / base_norm if base_norm > 0 else None, *shares, sums.concentrated, *sums.figures())


def _count_concentrated(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return how many directions have more than half their weight in one row or in one column."""
    weights = left.double().square(), right.double().square().T
    peaks = [weight.amax(dim=0) / weight.sum(dim=0).clamp_min(torch.finfo(torch.float64).tiny) for weight in weights]
    return (torch.maximum(*peaks) > 0.5).sum()


@dataclass(frozen=True)
class _Sums:
    """Sums over the nonzero block's x, in units of `unit`, the largest of them; `energy` is of D's own entries."""

    shape: tuple[int, int]
    unit: float
    square: float
    fourth: float
    along_rows: float
    along_columns: float
    energy: float
    concentrated: int
    row_variation: float | None
    column_variation: float | None

    def figures(self) -> tuple[float | None, ...]:
        """Return the last five of `Moments`."""
        rows, columns = self.shape
        variance = self.square / (rows * columns)
        if variance < 1e-28:  # of the largest entry squared: one value throughout, and the rounding of its mean
            return (None,) * 5
        down, across = self.along_rows / variance, self.along_columns / variance
        return (
            self.row_variation,
            self.column_variation,
            self.fourth / (rows * columns) / variance**2,
            down / ((rows - 1) * columns) if rows > 1 else None,
            across / (rows * (columns - 1)) if columns > 1 else None,
        )


def _central_sums(
    delta: torch.Tensor, nonzero: NonzeroBlock, strong: tuple[torch.Tensor, torch.Tensor] | None
) -> _Sums:
    """Return the sums of the second pass, over the nonzero block less the strong directions and their mean.

    A GPU is waited for at the end only: numbers that others are made from stay there.
    """
    rows, columns = nonzero.shape
    # The mean of what is left of the entries: that of the delta's and of the directions' own.
    taken = concentrated = delta.new_zeros((), dtype=torch.float64)
    if strong is not None:
        taken = strong[0].double().sum(dim=0) @ strong[1].double().sum(dim=1)
        concentrated = _count_concentrated(*strong).double()
    mean = (nonzero.total - taken) / (rows * columns)
    unit = torch.linalg.vector_norm(delta, ord=float("inf")).double() + mean.abs()  # fourth powers stay in range
    row_variances = torch.empty(rows, dtype=torch.float64, device=delta.device)
    column_sums = torch.zeros(2, columns, dtype=torch.float64, device=delta.device)
    sums = torch.zeros(5, dtype=torch.float64, device=delta.device)
    left, right = (None, None) if strong is None else strong
    if strong is not None:
        whole = nonzero.shape == nonzero.full_shape  # to know how many a mask selects a GPU would be waited for
        left = left.contiguous() if whole else left[nonzero.rows]
        right = right.contiguous() if whole else right[:, nonzero.columns]
    above = None  # last row of the block before: the pair across the border belongs to the correlation too
    for block in nonzero.blocks(_block_elements(delta.device)):
        entries = nonzero.take(delta, block).double()
        sums[4] += torch.linalg.vector_norm(entries / unit).square()
        if left is not None:
            entries = entries - left[block] @ right
        x = (entries - mean).div_(unit)  # not in place: float64 entries are the delta's own
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
    spreads = [spread(variances.clamp_min(0)) for variances in (row_variances, column_variances)]
    unit, *found, concentrated, row_mean, row_std, column_mean, column_std = torch.cat(
        [unit[None], sums, concentrated[None], *spreads]
    ).tolist()
    row, column = variation(row_mean, row_std), variation(column_mean, column_std)
    return _Sums(nonzero.shape, unit, *found, int(concentrated), row, column)


def spread(values: torch.Tensor) -> torch.Tensor:
    """Return mean and standard deviation, on the device."""
    return torch.stack([values.mean(), values.std(correction=0)])


def variation(mean: float, std: float) -> float | None:
    """Return standard deviation over mean of non-negative numbers; None where all are zero."""
    return std / mean if mean > 0 else None


def _block_elements(device: torch.device) -> int:
    """Return how many elements one pass handles well."""
    return block_elements(device, _CPU_BLOCK)


def frobenius_norm(tensor: torch.Tensor) -> float:
    """Return the Frobenius norm of a tensor of any floating dtype, accumulated in float64 without a float64 copy."""
    blocks = tensor.reshape(-1).split(_block_elements(tensor.device))
    # One block of scratch: the heap does not take back a fresh one per block, which adds up to the whole in float64.
    scratch = torch.empty(len(blocks[0]), dtype=torch.float64, device=tensor.device)
    norms = torch.empty(len(blocks), dtype=torch.float64, device=tensor.device)
    for number, block in enumerate(blocks):
        norms[number] = torch.linalg.vector_norm(scratch[: len(block)].copy_(block))
    return float(torch.linalg.vector_norm(norms))
