"""Every singular value of a matrix from the Gram matrix of what is left after its strongest spikes are taken out.

All functions take the matrix as `tall`, an N x p view with N >= p (the transpose where the delta is wide; nothing is
copied). Costs are given in GEMMs, 2 N p^2 operations, one product A'A; a full SVD costs about ten of them.

Squaring a matrix squares its range: in float32 the rounding of A'A is about 1e-7 s_1^2, which swamps the noise bulk
as soon as s_1 is a few hundred times the median. So the spikes far above the bulk (found in `dgviz.subspace`) are
taken out first: the Gram matrix is that of ``A - (A V) V'``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from time import perf_counter

import torch

_LEAF = 256  # half-Gram recursion stops here: narrower products run below full speed
_CHUNK_BYTES = 1 << 26  # rows converted or deflated at a time; large enough for full GEMM speed


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep float32 products in float32 inside the block (no TF32, no bfloat16 passes), whatever the process set."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def gram_dtype(device: str) -> torch.dtype:
    """Return the precision in which a float32 matrix's Gram is formed on `device`, measured once per process.

    Float64 where its products run at half the speed of float32 or better on a GPU (data-centre cards: no rounding to
    worry about, at no cost), else float32. On a CPU the eigenvalues would cost twice as much as well: float32.

    Parameters
    ----------
    device : str
        A torch device.
    """
    if torch.device(device).type != "cuda":
        return torch.float32
    seconds = {}
    for dtype in (torch.float32, torch.float64):
        probe = torch.ones(2048, 2048, dtype=dtype, device=device)
        for repeat in range(4):  # the first run loads kernels and is not counted
            if repeat == 1:
                torch.cuda.synchronize(device)
                start = perf_counter()
            probe @ probe
        torch.cuda.synchronize(device)
        seconds[dtype] = perf_counter() - start
    return torch.float64 if seconds[torch.float64] <= 2.2 * seconds[torch.float32] else torch.float32


def row_slices(tall: torch.Tensor) -> Iterator[slice]:
    """Yield runs of rows small enough to be converted or deflated without holding a second matrix.

    Parameters
    ----------
    tall : (N, p) tensor
        The matrix.
    """
    rows, columns = tall.shape
    step = max(columns, _CHUNK_BYTES // (8 * columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def times(tall: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return ``tall @ x`` in the precision of `x`, converting the matrix run by run where it differs.

    Parameters
    ----------
    tall : (N, p) tensor
        The matrix.
    x : (p, k) tensor
        Right factor, float32 or float64.
    """
    if x.dtype == tall.dtype:
        return tall @ x
    out = x.new_empty(tall.shape[0], x.shape[1])
    for rows in row_slices(tall):
        torch.matmul(tall[rows].to(x.dtype), x, out=out[rows])
    return out


def transposed_times(tall: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return ``tall' @ y`` in the precision of `y`, converting the matrix run by run where it differs.

    Parameters
    ----------
    tall : (N, p) tensor
        The matrix.
    y : (N, k) tensor
        Right factor, float32 or float64.
    """
    if y.dtype == tall.dtype:
        return tall.T @ y
    out = y.new_zeros(tall.shape[1], y.shape[1])
    for rows in row_slices(tall):
        out.addmm_(tall[rows].to(y.dtype).T, y[rows])
    return out


def inner_products(y: torch.Tensor) -> torch.Tensor:
    """Return ``y' y`` accumulated in float64, run by run.

    Parameters
    ----------
    y : (N, k) tensor
        Any floating matrix.
    """
    out = torch.zeros(y.shape[1], y.shape[1], dtype=torch.float64, device=y.device)
    step = max(1, _CHUNK_BYTES // (8 * y.shape[1]))
    for start in range(0, y.shape[0], step):
        block = y[start : start + step].double()
        out.addmm_(block.T, block)
    return out


def orthonormalise(x: torch.Tensor) -> torch.Tensor:
    """Return an orthonormal basis of the columns of a p x k block, by Householder QR in float64.

    Parameters
    ----------
    x : (p, k) tensor
        Block with k <= p; zero and dependent columns are replaced by arbitrary orthonormal ones.
    """
    return torch.linalg.qr(x.double()).Q


def sum_of_squares(tall: torch.Tensor) -> float:
    """Return the sum of squared entries, accumulated in float64, run by run.

    Parameters
    ----------
    tall : (N, p) tensor
        The matrix.
    """
    parts = [torch.linalg.vector_norm(tall[rows], dtype=torch.float64) for rows in row_slices(tall)]
    return float(torch.stack(parts).square().sum())


@dataclass(frozen=True)
class Spikes:
    """Right singular directions far above the bulk.

    Attributes
    ----------
    vectors : (p, r) tensor
        Orthonormal columns; their dtype is the precision in which they must be taken out.
    values : (r,) float64 tensor
        Their singular values, descending, on the CPU.
    coupling : float
        Bound on the relative shift of a bulk eigenvalue caused by the vectors' own error: the sum of
        ``|A' u - s v|^2``, in units of the mean eigenvalue left.
    """

    vectors: torch.Tensor
    values: torch.Tensor
    coupling: float

    @property
    def count(self) -> int:
        """Number of spikes r."""
        return self.values.numel()


def no_spikes(tall: torch.Tensor) -> Spikes:
    """Return the empty set of spikes of a matrix.

    Parameters
    ----------
    tall : (N, p) tensor
        The matrix.
    """
    return Spikes(tall.new_empty(tall.shape[1], 0), torch.empty(0, dtype=torch.float64), 0.0)


def deflated(block: torch.Tensor, spikes: Spikes) -> torch.Tensor:
    """Return rows of ``A - (A V) V'`` in the spikes' precision; the rows themselves when there are none.

    Parameters
    ----------
    block : (rows, p) tensor
        Some rows of A.
    spikes : Spikes
        What to take out.
    """
    if spikes.count == 0:
        return block
    work = block.to(spikes.vectors.dtype)
    return torch.addmm(work, work @ spikes.vectors, spikes.vectors.T, alpha=-1)


def deflated_gram(tall: torch.Tensor, spikes: Spikes, dtype: torch.dtype) -> torch.Tensor:
    """Return the lower triangle of A1'A1, A1 = A - (A V) V', in `dtype`: about .55 GEMM; above it is not defined.

    Parameters
    ----------
    tall : (N, p) tensor
        The matrix A.
    spikes : Spikes
        What to take out; ``2 r / p`` GEMM more.
    dtype : torch.dtype
        Precision of products and sums.
    """
    p = tall.shape[1]
    gram = torch.zeros(p, p, dtype=dtype, device=tall.device)
    whole = spikes.count == 0 and dtype == tall.dtype
    for rows in [slice(None)] if whole else row_slices(tall):
        _add_lower_gram(gram, deflated(tall[rows], spikes).to(dtype))
    return gram


def _add_lower_gram(gram: torch.Tensor, block: torch.Tensor) -> None:
    """Add ``block' block`` to the lower triangle by recursive halving: half the work of a full product."""
    p = gram.shape[0]
    if p <= _LEAF:
        gram.addmm_(block.T, block)
        return
    half = p // 2
    first, second = block[:, :half], block[:, half:]
    _add_lower_gram(gram[:half, :half], first)
    _add_lower_gram(gram[half:, half:], second)
    gram[half:, :half].addmm_(second.T, first)


def mirrored(gram: torch.Tensor) -> torch.Tensor:
    """Return the symmetric matrix of a lower triangle, in place.

    Parameters
    ----------
    gram : (p, p) tensor
        Valid on and below its diagonal.
    """
    p, step = gram.shape[0], 1024
    for start in range(0, p, step):  # strips, so that no second p x p matrix exists
        stop = min(start + step, p)
        square = gram[start:stop, start:stop]
        square.copy_(square.tril() + square.tril(-1).T)
        gram[start:stop, stop:] = gram[stop:, start:stop].T
    return gram


def bulk_eigenvalues(gram: torch.Tensor, spikes: Spikes) -> torch.Tensor:
    """Return the p - r eigenvalues of a deflated Gram matrix, descending, CPU float64: .8 GEMM at 8192 x 3072.

    Parameters
    ----------
    gram : (p, p) tensor
        Lower triangle.
    spikes : Spikes
        What was taken out: as many eigenvalues, the smallest, are rounded zeros and are dropped.
    """
    return torch.linalg.eigvalsh(gram)[spikes.count :].flip(0).double().cpu()
