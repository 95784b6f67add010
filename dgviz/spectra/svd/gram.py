"""Every singular value of a matrix from the Gram matrix of what is left after its strongest spikes are taken out.

The matrix is `tall` as in `products`. Costs are given in GEMMs: 2 N p^2 operations, one product A'A; a full SVD
costs about ten of them.

Squaring a matrix squares its range: in float32 the rounding of A'A is about 1e-7 s_1^2, which swamps the noise bulk
as soon as s_1 is a few hundred times the median. So the spikes far above the bulk (found in `subspace`) are
taken out first: the Gram matrix is that of ``A - (A V) V'``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from time import perf_counter

import torch

from dgviz.device import is_gpu
from dgviz.spectra.svd.products import converted_runs, empty_like_rows, run_elements, times

# Half-Gram recursion stops here: narrower products run below full speed.
_LEAF, _GPU_LEAF = 256, 2048
_BELOW = 0.01  # c, in units of the mean eigenvalue: far above rounding, and too small to disturb a filter


@cache
def gram_dtype(device: str) -> torch.dtype:
    """Return the precision in which a float32 matrix's Gram is formed on `device`, measured once per process.

    Float64 where its products run at half the speed of float32 or better on a GPU (data-centre cards: no rounding to
    worry about, at no cost), else float32. On a CPU the eigenvalues would cost twice as much as well: float32.
    """
    if not is_gpu(device):
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
    """Return the empty set of spikes of a matrix."""
    return Spikes(tall.new_empty(tall.shape[1], 0), torch.empty(0, dtype=torch.float64), 0.0)


def deflated_runs(tall: torch.Tensor, spikes: Spikes, dtype: torch.dtype) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield runs of rows of A1 = A - (A V) V' in `dtype`, subtracted in the spikes' precision (``2 r / p`` GEMM)."""
    if spikes.count == 0:
        yield from converted_runs(tall, dtype)
        return
    vectors = spikes.vectors
    buffer = None
    for rows, block in converted_runs(tall, vectors.dtype):
        if buffer is None:
            buffer = empty_like_rows(tall, block.shape[0], dtype)
        out = buffer[: block.shape[0]]
        shares = times(block, vectors)
        if vectors.dtype == dtype:
            # The transposed form writes along the axis the matrix is stored along.
            torch.addmm(block.T, vectors, shares.T, alpha=-1, out=out.T)
        else:
            out.copy_(block.addmm_(shares, vectors.T, alpha=-1))
        yield rows, out


def deflated_gram(tall: torch.Tensor, spikes: Spikes, dtype: torch.dtype) -> torch.Tensor:
    """Return the lower triangle of A1'A1 - c V V', A1 = A - (A V) V', in `dtype`: about .55 GEMM.

    What is above the diagonal is not defined. The directions taken out would have eigenvalue 0, where a square
    matrix has small ones of its own and rounding would mix them; a small negative one, -c, keeps them apart.
    """
    p = tall.shape[1]
    if p <= _leaf(tall) and spikes.count == 0 and tall.numel() <= run_elements(tall):
        converted = tall.to(dtype)
        return converted.T @ converted
    gram = torch.zeros(p, p, dtype=dtype, device=tall.device)
    if spikes.count == 0 and dtype == tall.dtype:
        _add_lower_gram(gram, tall)
        return gram
    for _, block in deflated_runs(tall, spikes, dtype):
        _add_lower_gram(gram, block)
    if spikes.count:
        vectors = spikes.vectors.to(dtype)
        gram.addmm_(vectors, vectors.T, alpha=-_BELOW * float(gram.diagonal().mean()))
    return gram


def _add_lower_gram(gram: torch.Tensor, block: torch.Tensor) -> None:
    """Add ``block' block`` to the lower triangle by recursive halving: half the work of a full product."""
    p = gram.shape[0]
    if p <= _leaf(gram):
        gram.addmm_(block.T, block)
        return
    half = p // 2
    first, second = block[:, :half], block[:, half:]
    _add_lower_gram(gram[:half, :half], first)
    _add_lower_gram(gram[half:, half:], second)
    gram[half:, :half].addmm_(second.T, first)


def _leaf(matrix: torch.Tensor) -> int:
    """Return the width from which products run at full speed where the matrix is."""
    return _GPU_LEAF if is_gpu(matrix.device) else _LEAF


def mirrored(gram: torch.Tensor) -> torch.Tensor:
    """Return the symmetric matrix of a lower triangle, in place."""
    p, step = gram.shape[0], _leaf(gram)
    for start in range(0, p, step):  # strips stay in cache, and no second p x p matrix exists
        stop = min(start + step, p)
        square = gram[start:stop, start:stop]
        square.copy_(square.tril() + square.tril(-1).T)
        gram[start:stop, stop:] = gram[stop:, start:stop].T
    return gram


def bulk_eigenvalues(gram: torch.Tensor, spikes: Spikes) -> torch.Tensor:
    """Return the p - r eigenvalues of a deflated Gram matrix, descending, CPU float64: .8 GEMM at 8192 x 3072."""
    return torch.linalg.eigvalsh(gram)[spikes.count :].flip(0).double().cpu()
