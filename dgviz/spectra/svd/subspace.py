"""Leading singular directions: the spikes to take out before squaring, and the triplets asked for afterwards.

The matrix is `tall` as in `dgviz.spectra.svd.products`, and costs are in GEMMs as in `dgviz.spectra.svd.gram`.
"""

import math
from functools import lru_cache

import torch

from dgviz.device import send
from dgviz.rmt.law import aspect_ratio, mp_median_sv
from dgviz.spectra.svd.gram import Spikes, no_spikes
from dgviz.spectra.svd.products import (
    converted_runs,
    inner_products,
    orthonormalise,
    sum_of_squares,
    times,
    transposed_times,
)

BLOCK = 32  # width of the first search: most updates have fewer spikes far above the bulk
STRONG = 14.0  # a spike this many times the median is taken out; below, float32 squares still resolve the bulk
# How far spikes that are not exactly invariant may shift bulk eigenvalues, in units of their mean: wanted, so that
# the spikes' own triplets are right to float32; and accepted, where products in float32 give no more.
_WANTED, _ACCEPTED = 1e-9, 1e-6
_LARGE_ENTRIES = 0.2  # s / (median sqrt(N p)) from which rounding after a float32 subtraction would move the median
_MAX_PASSES = 30
_PATIENCE = 0.3  # passes worth waiting for, in units of p / width (.6 GEMM)
_RESOLUTION = {torch.float32: 1e-6, torch.float64: 1e-14}  # share of the energy below which a difference is rounding
GUARD = 8  # directions carried beyond those wanted: a value nearly equal to the last wanted one is among them
_GAIN = math.log(2e7)  # the filter suppresses unwanted directions to float32 rounding
_RANGE = math.log(1e5)  # wanted directions may drift apart this much before they are told apart again
_OVERFLOW = 30.0  # log of the largest growth between two orthonormalisations: float32 ends at 88


def find_spikes(tall: torch.Tensor, energy: float) -> Spikes | None:
    """Return the spikes far above the bulk, so accurately that taking them out leaves the bulk unmoved.

    Block power iteration: each pass multiplies by A and by A' (``2 k / p`` GEMM for width k), rotates the block to
    its Ritz vectors, and so knows for each what it lacks to an invariant direction. Two passes when nothing stands
    out, as many as it takes otherwise. A block that stands out as a whole is doubled. Where float32 products are no
    longer enough, the last passes run in float64.
    """
    p = tall.shape[1]
    generator = torch.Generator().manual_seed(0)  # on the CPU, so that every device starts from the same block
    x = orthonormalise(send(torch.randn(p, min(BLOCK, p), generator=generator), tall.device))
    dtype = tall.dtype
    median_share = _median_share(aspect_ratio(tall.shape))
    coupling, fresh = math.inf, True
    for _ in range(_MAX_PASSES):
        x, found, lack, following = _ritz_pass(tall, x.to(dtype))
        width = x.shape[1]
        left = (energy - found.cumsum(0)).clamp_min(_RESOLUTION[dtype] * energy)
        # What the whole block leaves, taken as noise, gives the median.
        median = median_share * math.sqrt(float(left[-1]) / p)
        count = int((found > (STRONG * median) ** 2).sum())
        if fresh:  # one pass from random directions says nothing yet
            x, fresh = following, False
            continue
        if count == 0:
            return no_spikes(tall)
        previous, coupling = coupling, float(lack[:count].sum()) * p / float(left[count - 1])
        resolved = dtype == torch.float64 or float(left[-1]) > _RESOLUTION[dtype] * energy
        stalled = coupling > 0.8 * previous
        settled = coupling <= _WANTED or (coupling <= _ACCEPTED and stalled)
        if settled and resolved and count < width:
            # Subtracting rounds relative to the spikes' own entries: in float32 only while those stay small.
            exact = math.sqrt(float(found[:count].sum())) > _LARGE_ENTRIES * median * math.sqrt(tall.numel())
            return Spikes(x[:, :count].to(torch.float64 if exact else dtype), found[:count].sqrt(), coupling)
        # A pass divides the coupling by (weakest spike / end of the block)^4: too close, and a wider block pays.
        gain = 2 * math.log(float(found[count - 1]) / max(float(found[-1]), 1e-300))
        if count == width or math.log(max(coupling / _WANTED, 1.0)) > gain * _PATIENCE * p / width:
            if 2 * width > p // 16:
                return None
            more = send(torch.randn(p, width, generator=generator, dtype=torch.float64), tall.device)
            following = orthonormalise(torch.cat([following, more], dim=1))
            coupling, fresh = math.inf, True
        elif stalled and dtype != torch.float64:
            dtype, coupling, energy = torch.float64, math.inf, sum_of_squares(tall, torch.float64)
        x = following
    return None


def _ritz_pass(tall: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Multiply an orthonormal p x k block by A and by A', in its own precision.

    Returns the block rotated to Ritz vectors v (float64), their s^2 and ``|A' u - s v|^2`` (CPU float64, strongest
    first), and the block for the next pass: an orthonormal basis of all A'u.
    """
    y = times(tall, x)
    squares, rotation = torch.linalg.eigh(inner_products(y))
    squares, rotation = squares.flip(0).clamp_min(0), rotation.flip(1)
    s = squares.sqrt()
    inverse = torch.where(s > 0, 1 / s, 0)
    ritz = x.double() @ rotation
    z = transposed_times(tall, y @ (rotation * inverse).to(y.dtype)).double()
    lack = (z - ritz * s).square().sum(dim=0)
    squares, lack = torch.stack([squares, lack]).cpu()
    return ritz, squares, lack, orthonormalise(z * inverse)


@lru_cache(maxsize=256)
def _median_share(beta: float) -> float:
    """Return the median singular value of noise over its root mean square; cached, for models repeat few shapes."""
    return mp_median_sv(beta)


def filter_plan(eigenvalues: torch.Tensor, count: int) -> tuple[int, int, int] | None:
    """Return width, degree and number of runs of the cheapest filter for `count` directions.

    The Chebyshev polynomial of degree d that is at most 1 on ``[0, cut]`` is ``cosh(d acosh(2 e / cut - 1))`` above
    it. A wider block lowers the cut, hence the degree; the spectrum is known, so both can be computed.
    """
    p = eigenvalues.numel()
    top, weakest = float(eigenvalues[0]), float(eigenvalues[count - 1])
    best, cheapest = None, 12.0 * p**3 + 1500.0 * p**2  # a full eigh, in operations of a fast product, measured
    for share in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8):
        width = count + GUARD + math.ceil(share * count)
        cut = float(eigenvalues[width]) if width < p else 0.0
        if not 0 < cut < weakest:
            continue
        growth, fastest = math.acosh(2 * weakest / cut - 1), math.acosh(2 * top / cut - 1)
        longest = max(1, int(min(_RANGE / (fastest - growth + 1e-9), _OVERFLOW / fastest)))
        for degree in range(1, min(longest, 40) + 1):
            # At least two runs: what rounding leaves after the first is filtered by the second.
            runs = max(2, math.ceil(_GAIN / math.log(math.cosh(degree * growth))))
            # Narrow products below full speed, QR and eigh in float64, and what a run costs however small.
            cost = runs * ((degree + 1) * 3.0 * p * p * width + 16.0 * p * width**2 + 36.0 * width**3 + 2e7)
            if cost < cheapest:
                best, cheapest = (width, degree, runs), cost
    return best


def leading_directions(gram: torch.Tensor, eigenvalues: torch.Tensor, count: int) -> torch.Tensor:
    """Return an orthonormal block whose span holds the `count` leading eigenvectors of a Gram matrix.

    Chebyshev-filtered subspace iteration (Zhou, Saad, Tiago & Chelikowsky 2006, J. Comput. Phys. 219), all
    eigenvectors where those are cheaper.
    """
    plan = filter_plan(eigenvalues, count)
    if plan is None:
        return torch.linalg.eigh(gram).eigenvectors[:, -(count + GUARD) :].flip(1).double()
    width, degree, runs = plan
    cut = float(eigenvalues[width])
    generator = torch.Generator().manual_seed(1)
    x = orthonormalise(send(torch.randn(gram.shape[0], width, generator=generator), gram.device))
    for _ in range(runs):
        x = orthonormalise(_chebyshev(gram, x.to(gram.dtype), cut, degree))
        # Told apart, each column is led by one direction and rounds relative to that; a mixture would round relative
        # to its strongest, and lose the weakest.
        x = x @ torch.linalg.eigh(x.T @ (gram @ x.to(gram.dtype)).double()).eigenvectors.flip(1)
    return x


def _chebyshev(gram: torch.Tensor, x: torch.Tensor, cut: float, degree: int) -> torch.Tensor:
    """Return ``T_degree(2 gram / cut - 1) x`` by the three-term recurrence, one product per degree."""
    before, now = x, torch.addmm(x, gram, x, beta=-1, alpha=2 / cut)
    for _ in range(degree - 1):
        before, now = now, torch.addmm(before, gram, now, beta=-1, alpha=4 / cut).sub_(now, alpha=2)
    return now


def rayleigh_ritz(
    tall: torch.Tensor, basis: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the best `count` singular triplets within a subspace, from products with the matrix itself."""
    product = times(tall, basis)
    squares, rotation = torch.linalg.eigh(inner_products(product))
    rotation = rotation.flip(1)[:, :count]
    left = tall.new_empty(tall.shape[0], count)
    for rows, block in converted_runs(product, product.dtype):
        left[rows] = block @ rotation.to(product.dtype)
    return left, basis.double() @ rotation, squares.flip(0)[:count].clamp_min(0).sqrt().cpu()


def residual(tall: torch.Tensor, left: torch.Tensor, vectors: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return ``|A' u - s v| / s`` of each triplet, CPU float64: 0 for an exact one (``k / p`` GEMM)."""
    s = send(values, tall.device)
    lack = transposed_times(tall, left).double() / s - vectors * s
    return torch.linalg.vector_norm(lack, dim=0).cpu() / values


def all_directions(gram: torch.Tensor, spikes: Spikes) -> torch.Tensor:
    """Return every right singular direction, strongest first: the spikes, then all eigenvectors (1.8 GEMM)."""
    vectors = torch.linalg.eigh(gram).eigenvectors.flip(1)
    if spikes.count == 0:
        return vectors
    strong = spikes.vectors.to(gram.dtype)
    vectors = vectors[:, : vectors.shape[1] - spikes.count]
    # The weakest are orthogonal to the strong ones only to 1e-3: enough of a spike's energy to show in them.
    return torch.cat([strong, vectors - strong @ (strong.T @ vectors)], dim=1)


def svd_float64(tall: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all singular values and right vectors by backward-stable float64 steps: the last resort.

    The matrix is reduced to its triangular factor run by run (sequential TSQR: Demmel, Grigori, Hoemmen & Langou
    2012, SIAM J. Sci. Comput. 34), so that a few p x p float64 matrices are all it holds.
    """
    factor = tall.new_empty(0, tall.shape[1], dtype=torch.float64)
    for _, block in converted_runs(tall, torch.float64, at_least=2 * tall.shape[1]):
        factor = torch.linalg.qr(torch.cat([factor, block]), mode="r").R
    _, values, vectors_h = torch.linalg.svd(factor, full_matrices=False)
    return values.cpu(), vectors_h.T
