"""The kept directions of several updates of one weight, compared two by two; torch.

A weight at a time: its kept factors come from the store where a scan has put them there, and are computed where not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import torch

from dgviz.analysis.family import SharedWeight
from dgviz.analysis.family.overlap import ComparedWeight, Overlap, SideOverlap, chance_overlap
from dgviz.errors import DgvizError
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.assess import kept_values
from dgviz.spectra.delta import compute_delta
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.svd.decompose import resolve_device

_TOGETHER = 2**30  # bytes of whole updates of one weight held at once; beyond it they are read again for every pair
_BLOCK = 2**22  # entries multiplied in float64 at once
_NO_ROW = 1e-6  # a row of the factors so much smaller than the largest is one that the update leaves at zero


@dataclass(frozen=True)
class _Kept:
    """The kept part of an update: ``left @ right``, and orthonormal bases of its columns and rows."""

    rank: int
    norm: float
    left: torch.Tensor
    right: torch.Tensor
    columns: torch.Tensor
    rows: torch.Tensor


def iter_compared(
    weights: Sequence[SharedWeight], plan: RepairPlan, device: str = "auto", store: SpectrumStore | None = None
) -> Iterator[ComparedWeight]:
    """Compare the updates of every weight two by two, yielding one result per weight."""
    place, store = resolve_device(device), store or SpectrumStore()
    for weight in weights:
        yield compare_weight(weight, plan, place, store)


def compare_weight(weight: SharedWeight, plan: RepairPlan, device: str, store: SpectrumStore) -> ComparedWeight:
    """Return what every two updates of one weight have in common."""
    kept: dict[int, _Kept | None] = {}
    errors: dict[int, str] = {}
    for model, own in enumerate(weight.sides):
        if own is None:
            continue
        try:
            kept[model] = _keep(OpenWeight(own, device, store), plan)
        except DgvizError as error:
            errors[model] = str(error)
    overlaps = {
        (one, other): _overlap(kept[one], kept[other], norms, cosine)
        for one, other, norms, cosine in _iter_whole(weight, list(kept), device)
    }
    found = [kept.get(model) for model in range(len(weight.sides))]
    ranks = [None if model not in kept else own.rank if own else 0 for model, own in enumerate(found)]
    return ComparedWeight(weight, tuple(ranks), overlaps, errors)


def _keep(weight: OpenWeight, plan: RepairPlan) -> _Kept | None:
    """Return the kept part of one update; None where nothing is kept.

    Where the median measures no noise the rank is the numerical one: the directions that a merged LoRA has at all.
    """
    plan = plan.at(weight.weight.tensor, weight.weight.index)
    threshold = weight.threshold(plan.rule, plan.params)
    kept = kept_values(weight.measured, threshold, plan.directions)
    if not kept.any():
        return None
    left, right = weight.factors(kept, weight.measured.nonzero_s)
    columns, rows = _basis(left), _basis(right.T)
    norms = torch.linalg.vector_norm(left, dim=0, dtype=torch.float64)
    return _Kept(left.shape[1], float(torch.linalg.vector_norm(norms)), left, right, columns, rows)


def _basis(directions: torch.Tensor) -> torch.Tensor:
    """Return an orthonormal basis of the span of columns that are nearly orthogonal, of any lengths."""
    lengths = torch.linalg.vector_norm(directions, dim=0, dtype=torch.float64)
    return torch.linalg.qr(directions / lengths.to(directions.dtype)).Q


def _overlap(one: _Kept | None, other: _Kept | None, norms: tuple[float, float], cosine: float | None) -> Overlap:
    """Return what two updates have in common."""
    ranks = tuple(0 if kept is None else kept.rank for kept in (one, other))
    lengths = tuple(0.0 if kept is None else kept.norm for kept in (one, other))
    if one is None or other is None:
        return Overlap(ranks, None, None, lengths, norms, None, cosine)
    # <L1 R1, L2 R2> = sum of (L1' L2) * (R1 R2'), with the lengths taken out against overflow.
    by_left = (one.left / one.norm).T.double() @ (other.left / other.norm).double()
    by_right = one.right.double() @ other.right.T.double()
    kept_cosine = float(torch.sum(by_left * by_right))
    sides = _side(one.columns, other.columns), _side(one.rows, other.rows)
    return Overlap(ranks, *sides, lengths, norms, kept_cosine, cosine)


def _side(one: torch.Tensor, other: torch.Tensor) -> SideOverlap:
    """Return the overlap of the spans of two orthonormal bases, (m, k1) and (m, k2)."""
    ranks = one.shape[1], other.shape[1]
    shared = float(torch.linalg.vector_norm(one.T @ other, dtype=torch.float64)) ** 2
    used = [_used(basis) for basis in (one, other)]
    lengths = [int(rows.sum()) for rows in used]
    chance, spread = chance_overlap(ranks, lengths, int((used[0] & used[1]).sum()))
    return SideOverlap(min(1.0, shared / min(ranks)), chance, spread)


def _used(basis: torch.Tensor) -> torch.Tensor:
    """Return which coordinates a subspace reaches."""
    reach = torch.linalg.vector_norm(basis, dim=1)
    return reach > _NO_ROW * reach.max()


def _iter_whole(
    weight: SharedWeight, models: list[int], device: str
) -> Iterator[tuple[int, int, tuple[float, float], float | None]]:
    """Yield every two models, the Frobenius norms of their updates and their cosine, None where one is zero.

    Updates are read when they are needed, and held where all of them together are small.
    """
    # Of one matrix of a stack less; a float64 update is twice as large, and still well within memory.
    hold = 4 * sum(weight.sides[model].base.numel for model in models) <= _TOGETHER

    @lru_cache(maxsize=None if hold else 0)
    def read(model: int) -> torch.Tensor:
        return compute_delta(weight.sides[model], device).flatten()

    lengths: dict[int, float] = {}
    for one, other in combinations(models, 2):
        deltas = {one: read(one), other: read(other)}
        for model in deltas.keys() - lengths.keys():
            lengths[model] = _norm(deltas[model])
        norms = lengths[one], lengths[other]
        yield one, other, norms, _inner(deltas[one], deltas[other], norms) if min(norms) > 0 else None
        del deltas  # before the next two are read


def _norm(delta: torch.Tensor) -> float:
    unit = float(delta.abs().max())
    return unit * _inner(delta, delta, (unit, unit)) ** 0.5 if unit > 0 else 0.0


def _inner(left: torch.Tensor, right: torch.Tensor, units: tuple[float, float]) -> float:
    """Return the inner product of two vectors in the given units, summed in float64."""
    total = 0.0
    for start in range(0, left.numel(), _BLOCK):
        run = slice(start, start + _BLOCK)
        total += float(torch.dot(left[run].double() / units[0], right[run].double() / units[1]))
    return total
