"""The triplets and direction maps of a solved matrix, with the checks that they pass."""

from bisect import bisect_left, bisect_right
from dataclasses import replace

import torch

from dgviz.device import is_gpu
from dgviz.errors import SpectrumError
from dgviz.spectra.svd.gram import deflated_runs, mirrored
from dgviz.spectra.svd.products import orthonormalise, times
from dgviz.spectra.svd.solve import RESOLVED, Check, Solution
from dgviz.spectra.svd.subspace import GUARD, leading_directions, rayleigh_ritz, residual, svd_float64

_NEAR = 1e-2  # relative gap at the cut below which triplets are separated in float64
_FAR = 100.0  # s_1 / s of the last triplet above which they are too, since float32 rounds relative to s_1
_AGREEMENT = 1e-4  # between Gram eigenvalues and products with the matrix; a missed direction shows as more
_MIXED = 1e-3  # the same for weak directions, in units of s_1: float32 mixes those, which moves no product of factors
_WRONG = 2e-3  # in units of s_1: what no float32 rounding does to a singular value
_RESIDUAL = 1e-4  # of a triplet, relative; tau cuts above the bulk edge, where gaps are 1e-2 and more
_ROWS_AT_ONCE = 2048  # of the product behind the direction maps, on a CPU
_CHECKED = 32  # triplets whose residual is computed: the weakest, which converge last


def leading_triplets(tall: torch.Tensor, solution: Solution, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``A V`` (N x rank, dtype of `tall`) and V (p x rank) of the strongest triplets, certified."""
    values = solution.values
    exact = solution.vectors is not None and solution.vectors.dtype == torch.float64
    if exact or rank > tall.shape[1] // 4:
        vectors = solution.directions()[:, :rank]
        left = times(tall, vectors).to(tall.dtype)
        if exact:
            return left, vectors
        norms = torch.linalg.vector_norm(left, dim=0, dtype=torch.float64).cpu()
        off = float((norms - values[:rank]).abs().max() / values[0])
        checks = [Check(f"values of {rank} triplets / s_1", off, _MIXED)]
    else:
        # Near-equal values around the cut, and weak ones beside strong, are told apart in float64.
        near = float(values[rank]) > (1 - _NEAR) * float(values[rank - 1])
        far = float(values[0]) > _FAR * float(values[rank - 1])
        basis = _leading_basis(solution, rank)
        left, vectors, ritz = rayleigh_ritz(tall, basis.to(torch.float64 if near or far else tall.dtype), rank)
        checks = _triplet_checks(tall, solution, left, vectors, ritz)
    solution.certificate = replace(solution.certificate, checks=(*solution.certificate.checks, *checks))
    if all(check.passed for check in checks):
        return left, vectors
    _fall_back(tall, solution, next(check for check in checks if not check.passed), rank)
    return leading_triplets(tall, solution, rank)


def _leading_basis(solution: Solution, rank: int) -> torch.Tensor:
    """Return an orthonormal float64 block whose span holds the `rank` leading directions."""
    if solution.vectors is not None:
        return orthonormalise(solution.vectors[:, : rank + GUARD])
    spikes = solution.spikes
    strong = spikes.vectors.double()
    if rank <= spikes.count:
        return strong
    bulk = torch.cat([solution.values[spikes.count :].square(), torch.zeros(spikes.count, dtype=torch.float64)])
    more = leading_directions(mirrored(solution.gram), bulk, rank - spikes.count)
    return orthonormalise(torch.cat([strong, more], dim=1))


def _triplet_checks(
    tall: torch.Tensor, solution: Solution, left: torch.Tensor, vectors: torch.Tensor, ritz: torch.Tensor
) -> list[Check]:
    """Return the checks of triplets: values against the spectrum's, and what the weakest lack to being exact."""
    eps = torch.finfo(tall.dtype).eps
    rank = int((ritz > RESOLVED * eps * ritz[0]).sum())  # of those below, not even the direction means anything
    weakest = slice(max(0, rank - _CHECKED), rank)
    lack = residual(tall, left[:, weakest], vectors[:, weakest], ritz[weakest])
    disagreement = (ritz[:rank] - solution.values[:rank]).abs() / ritz[:rank]
    allowed = _RESIDUAL + 2 * eps * float(ritz[0] / ritz[rank - 1])  # rounding in A' u is relative to s_1
    return [
        Check(f"values of {rank} triplets", float(disagreement.max()), _AGREEMENT),
        Check(f"residual of {rank} triplets", float(lack.max()), allowed),
    ]


def _fall_back(tall: torch.Tensor, solution: Solution, failed: Check, rank: int) -> None:
    """Replace a solution's directions by those of the last resort, and say why."""
    values, solution.vectors = svd_float64(tall)
    solution.gram = None
    reason = f"{solution.certificate.route}: {failed.name} is {failed.value:.3g}, accepted up to {failed.limit:.3g}"
    rejected = (*solution.certificate.rejected, reason)
    solution.certificate = replace(solution.certificate, route="svd64", rejected=rejected)
    off = float(((values - solution.values).abs() / values[0]).max())
    if off > _WRONG:
        raise SpectrumError(
            f"the {rank} triplets failed their checks ({reason}) and the singular values are off by {off:.2g} of the "
            "largest: this device's float32 products are not float32; choose another device"
        )


def pooled_products(tall: torch.Tensor, solution: Solution, edges: list[int]) -> torch.Tensor:
    """Return ``|A v|`` of every direction, rows pooled by maximum as they are computed (1 GEMM)."""
    vectors, spikes = solution.directions(), solution.spikes
    rest = vectors[:, spikes.count :].contiguous()
    out = vectors.new_zeros(len(edges) - 1, vectors.shape[1])
    strong = times(tall, spikes.vectors).to(vectors.dtype)
    # A weak direction is orthogonal to a strong one only up to rounding: its product is formed without them.
    for rows, run in deflated_runs(tall, spikes, vectors.dtype):
        at_once = len(run) if is_gpu(run.device) else _ROWS_AT_ONCE
        for offset in range(0, run.shape[0], at_once):
            block = run[offset : offset + at_once]
            start, stop = rows.start + offset, rows.start + offset + block.shape[0]
            products = torch.cat([strong[start:stop], block @ rest], dim=1).abs_()
            if len(edges) > tall.shape[0]:  # every row is a block of its own
                out[start:stop] = products
                continue
            for b in range(bisect_right(edges, start) - 1, bisect_left(edges, stop)):
                piece = products[max(edges[b], start) - start : min(edges[b + 1], stop) - start]
                out[b] = torch.maximum(out[b], piece.amax(dim=0))
    return out
