"""Which route gives a matrix's singular values, what it is checked by, and what it falls back to."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace

import torch

from dgviz.gram import (
    Spikes,
    bulk_eigenvalues,
    deflated_gram,
    deflated_runs,
    gram_dtype,
    mirrored,
    no_spikes,
)
from dgviz.products import orthonormalise, times
from dgviz.subspace import (
    all_directions,
    find_spikes,
    leading_directions,
    rayleigh_ritz,
    residual,
    svd_float64,
)

ROUTES = {
    "zero": "nothing to decompose: every entry is zero",
    "gram32": "eigenvalues of the float32 Gram matrix, strong spikes taken out before squaring",
    "gram64": "eigenvalues of the float64 Gram matrix",
    "svd64": "float64 QR, then a float64 SVD of the triangular factor",
}
# Below _FULL one float64 eigh costs less than anything cleverer; up to _SMALL the float64 Gram is fast enough.
_FULL, _SMALL = 256, 640
# Largest value left in the Gram over the median: its square times the rounding unit shifts the median. Measured
# in float32: 5e-7 at 100, 9e-5 at 1000; in float64 the same shift comes 2e4 times later.
_SPREAD = {torch.float32: 20.0, torch.float64: 1e6}
_SHIFT = 1e-5  # bound on the relative shift of one eigenvalue; the median moves by about 1/p of it
_SPREAD_OF_VECTORS = 100.0  # up to which eigenvectors above the bulk are right to 1e-5 from a float32 Gram
_NEAR = 1e-2  # relative gap at the cut below which triplets are separated in float64
_FAR = 100.0  # s_1 / s of the last triplet above which they are too, since float32 rounds relative to s_1
_AGREEMENT = 1e-4  # between Gram eigenvalues and products with the matrix; a missed direction shows as more
_RESIDUAL = 1e-4  # of a triplet, relative; tau cuts above the bulk edge, where gaps are 1e-2 and more
_ROWS_AT_ONCE = 2048  # of the product behind the direction maps
_CHECKED = 32  # triplets whose residual is computed: the weakest, which converge last


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes
    ----------
    name : str
        What, in a word or three.
    value : float
        The value measured.
    limit : float
        The largest value accepted.
    """

    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the value is a number within its limit."""
        return self.value <= self.limit


@dataclass(frozen=True)
class Certificate:
    """How a decomposition was obtained, and the measured value of everything that was checked.

    Attributes
    ----------
    route : str
        The route that passed, a key of `ROUTES`.
    checks : tuple of Check
        In the order made.
    rejected : tuple of str
        One sentence for each route tried before and refused, with its reason.
    """

    route: str
    checks: tuple[Check, ...] = ()
    rejected: tuple[str, ...] = ()


@dataclass
class Solution:
    """All singular values of a tall matrix and what its vectors can be had from.

    Attributes
    ----------
    values : (p,) float64 tensor
        Descending, on the CPU.
    certificate : Certificate
        How.
    spikes : Spikes
        Directions taken out before squaring.
    gram : (p, p) tensor or None
        Lower triangle of the deflated Gram matrix.
    vectors : (p, p) tensor or None
        All right singular vectors, once they have been needed.
    """

    values: torch.Tensor
    certificate: Certificate
    spikes: Spikes
    gram: torch.Tensor | None = None
    vectors: torch.Tensor | None = None

    def directions(self) -> torch.Tensor:
        """Return all right singular vectors as columns, strongest first; computed once."""
        if self.vectors is None:
            self.vectors = all_directions(self.gram, self.spikes)
            self.gram = None
        return self.vectors


def solve(tall: torch.Tensor) -> Solution:
    """Return all singular values by the cheapest route whose checks pass.

    Parameters
    ----------
    tall : (N, p) tensor
        Finite, float32 or float64, N >= p, largest entry not far from 1.
    """
    p = tall.shape[1]
    if not tall.any():
        identity = torch.eye(p, dtype=tall.dtype, device=tall.device)
        return Solution(torch.zeros(p, dtype=torch.float64), Certificate("zero"), no_spikes(tall), vectors=identity)
    rejected: tuple[str, ...] = ()
    for dtype in _precisions(tall):
        outcome = _from_gram(tall, dtype)
        if isinstance(outcome, Solution):
            outcome.certificate = replace(outcome.certificate, rejected=rejected)
            return outcome
        rejected += (f"{_route(dtype)}: {outcome}",)
    values, vectors = svd_float64(tall)
    return Solution(values, Certificate("svd64", (), rejected), no_spikes(tall), vectors=vectors)


def _precisions(tall: torch.Tensor) -> list[torch.dtype]:
    """Return the precisions in which a Gram matrix is worth trying, best first."""
    small = tall.shape[1] <= _SMALL
    if tall.dtype == torch.float64:
        return [] if small else [torch.float64]
    if small or gram_dtype(str(tall.device)) == torch.float64:
        return [torch.float64]
    return [torch.float32, torch.float64]


def _route(dtype: torch.dtype) -> str:
    return "gram32" if dtype == torch.float32 else "gram64"


def _from_gram(tall: torch.Tensor, dtype: torch.dtype) -> Solution | str:
    """Return the solution from a Gram matrix in `dtype`, or the reason why it cannot be trusted."""
    p = tall.shape[1]
    spikes = find_spikes(tall) if dtype == torch.float32 else no_spikes(tall)
    if spikes is None:
        return "too many values far above the bulk, or none that settle"
    gram = deflated_gram(tall, spikes, dtype)
    if p <= _FULL:
        eigenvalues, vectors = torch.linalg.eigh(gram)
        bulk, vectors = eigenvalues.flip(0).cpu(), vectors.flip(1)
    else:
        bulk, vectors = bulk_eigenvalues(gram, spikes), None
    values = torch.cat([spikes.values, bulk.clamp_min(0).sqrt()])
    strongest, largest, median = float(values[0]), float(values[spikes.count]), float(values[p // 2])
    rounding = (4 * torch.finfo(dtype).eps) ** 0.5 * largest  # below it a value is only a bound
    spread = Check("largest bulk value / median", largest / median if median > 0 else float("inf"), _SPREAD[dtype])
    checks = (
        _shift_by_spikes(spikes, bulk),
        spread,
        Check("values lost to rounding", int((values < rounding).sum()), 4 + p // 100 if dtype == tall.dtype else p),
    )
    resolution = 8 * torch.finfo(tall.dtype).eps  # of the entries themselves, in units of s_1
    if max(median, rounding) <= resolution * strongest:
        # Numerically low rank: the bulk is below what the entries resolve, and is known to be.
        checks = (checks[0], Check("bulk / s_1", max(median, rounding) / strongest, resolution))
    for check in checks:
        if not check.passed:
            return f"{check.name} is {check.value:.3g}, accepted up to {check.limit:.3g}"
    if vectors is not None:
        return Solution(values, Certificate(_route(dtype), checks), spikes, vectors=vectors)
    if spread.value <= _SPREAD_OF_VECTORS:
        gram = gram.to(tall.dtype)
    return Solution(values, Certificate(_route(dtype), checks), spikes, gram=gram)


def _shift_by_spikes(spikes: Spikes, bulk: torch.Tensor) -> Check:
    """Return the check of how far inexact spikes move an eigenvalue of the bulk, as a share of that eigenvalue.

    By second-order perturbation an eigenvalue e moves by at most ``coupling / (1 - e / s^2)``, s the weakest spike:
    the mean one by its coupling, the largest by more, since it may lie next to that spike.
    """
    if spikes.count == 0:
        return Check("shift by spikes", 0.0, _SHIFT)
    mean, largest = float(bulk.mean()), float(bulk[0])
    gap = 1 - largest / float(spikes.values[-1]) ** 2
    if gap <= 0:
        return Check("shift by spikes", float("inf"), _SHIFT)
    return Check("shift by spikes", spikes.coupling * max(2.0, mean / (largest * gap) if mean > 0 else 0.0), _SHIFT)


def leading_triplets(tall: torch.Tensor, solution: Solution, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``A V`` (N x rank, dtype of `tall`) and V (p x rank) of the strongest triplets, certified.

    Parameters
    ----------
    tall : (N, p) tensor
        The matrix A.
    solution : Solution
        What `solve` returned for it; checks, and where they fail a new route, are added to its certificate.
    rank : int
        Triplets wanted, 1 to p.
    """
    p = tall.shape[1]
    values, spikes = solution.values, solution.spikes
    if solution.vectors is None and rank <= p // 4:
        basis = spikes.vectors.double()
        if rank > spikes.count:
            eigenvalues = torch.cat([values[spikes.count :].square(), values.new_zeros(spikes.count)])
            more = leading_directions(mirrored(solution.gram), eigenvalues, rank - spikes.count)
            basis = orthonormalise(torch.cat([basis, more], dim=1))
        gap = 1 - float(values[rank] / values[rank - 1]) if values[rank - 1] > 0 else 0.0
        exact = gap < _NEAR or float(values[0]) > _FAR * float(values[rank - 1])
        dtype = torch.float64 if exact else tall.dtype
        left, vectors, ritz = rayleigh_ritz(tall, basis.to(dtype), rank)
        weakest = slice(max(0, rank - _CHECKED), rank)
        lack = residual(tall, left[:, weakest], vectors[:, weakest], ritz[weakest])
        # Rounding in A' u is relative to s_1.
        allowed = _RESIDUAL + 2 * torch.finfo(tall.dtype).eps * float(ritz[0] / ritz[-1])
        checks = (
            Check(f"values of {rank} triplets", float(((ritz - values[:rank]) / ritz).abs().max()), _AGREEMENT),
            Check(f"residual of {rank} triplets", float(lack.max()), allowed),
        )
        solution.certificate = replace(solution.certificate, checks=solution.certificate.checks + checks)
        if all(check.passed for check in checks):
            return left, vectors
        _refuse(solution, checks, tall)
    vectors = solution.directions()[:, :rank]
    left = times(tall, vectors).to(tall.dtype)
    return left, vectors


def _refuse(solution: Solution, checks: tuple[Check, ...], tall: torch.Tensor) -> None:
    """Replace a solution's directions by those of the last resort, and say why."""
    failed = next(check for check in checks if not check.passed)
    reason = f"{solution.certificate.route}: {failed.name} is {failed.value:.3g}, accepted up to {failed.limit:.3g}"
    solution.certificate = replace(
        solution.certificate, route="svd64", rejected=(*solution.certificate.rejected, reason)
    )
    _, solution.vectors = svd_float64(tall)
    solution.gram = None


def pooled_products(tall: torch.Tensor, solution: Solution, edges: list[int]) -> torch.Tensor:
    """Return ``|A v|`` of every direction, rows pooled by maximum as they are computed (1 GEMM).

    Parameters
    ----------
    tall : (N, p) tensor
        The matrix A.
    solution : Solution
        What `solve` returned for it.
    edges : list of int
        Ends of the R row blocks: block b is ``[edges[b], edges[b + 1])``.

    Returns
    -------
    (R, p) tensor
        In the dtype of the directions; no N x p result is ever held.
    """
    vectors, spikes = solution.directions(), solution.spikes
    rest = vectors[:, spikes.count :].contiguous()
    out = vectors.new_zeros(len(edges) - 1, vectors.shape[1])
    strong = times(tall, spikes.vectors).to(vectors.dtype)
    # A weak direction is orthogonal to a strong one only up to rounding: its product is formed without them.
    for rows, run in deflated_runs(tall, spikes, vectors.dtype):
        for offset in range(0, run.shape[0], _ROWS_AT_ONCE):
            block = run[offset : offset + _ROWS_AT_ONCE]
            start, stop = rows.start + offset, rows.start + offset + block.shape[0]
            products = torch.cat([strong[start:stop], block @ rest], dim=1).abs_()
            for b in range(bisect_right(edges, start) - 1, bisect_left(edges, stop)):
                piece = products[max(edges[b], start) - start : min(edges[b + 1], stop) - start]
                out[b] = torch.maximum(out[b], piece.amax(dim=0))
    return out
