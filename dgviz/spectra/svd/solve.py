"""Which route gives a matrix's singular values, what they are checked by, and what is fallen back to."""

from dataclasses import dataclass, replace

import torch

from dgviz.spectra.svd.gram import Spikes, bulk_eigenvalues, deflated_gram, gram_dtype, no_spikes
from dgviz.spectra.svd.products import sum_of_squares
from dgviz.spectra.svd.subspace import all_directions, find_spikes, svd_float64

ROUTES = {
    "zero": "nothing to decompose: every entry is zero",
    "gram32": "eigenvalues of the float32 Gram matrix, strong spikes taken out before squaring",
    "gram64": "eigenvalues of the float64 Gram matrix",
    "svd64": "float64 QR, then a float64 SVD of the triangular factor",
}
# Below _FULL one float64 eigh costs less than anything cleverer; up to _SMALL the float64 Gram is fast enough.
_FULL, _SMALL = 160, 640
# Largest value left in the Gram over the median: its square times the rounding unit shifts the median. Worst measured
# in float32: 5e-7 at 17 with 300 spikes, with one spike only at 100; in float64 the same comes 2e4 times later.
_SPREAD = {torch.float32: 20.0, torch.float64: 1e6}
RESOLVED = 8.0  # rounding units of s_1 below which values only tell how the entries were rounded
_SHIFT = 1e-5  # bound on the relative shift of one eigenvalue; the median moves by about 1/p of it
_SPREAD_OF_VECTORS = 100.0  # up to which eigenvectors above the bulk are right to 1e-5 from a float32 Gram
_ENERGY = 1e-5  # between the sums of squares of values and of entries: products that are not float32 show here


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
    """Return all singular values by the cheapest route whose checks pass."""
    p = tall.shape[1]
    energy = sum_of_squares(tall, tall.dtype)
    if energy == 0:
        identity = torch.eye(p, dtype=torch.float64, device=tall.device)
        return Solution(torch.zeros(p, dtype=torch.float64), Certificate("zero"), no_spikes(tall), vectors=identity)
    rejected: tuple[str, ...] = ()
    for dtype in _precisions(tall):
        try:
            outcome = _from_gram(tall, dtype, energy)
        except torch.linalg.LinAlgError as error:  # an eigenvalue that does not converge
            outcome = str(error)
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


def _from_gram(tall: torch.Tensor, dtype: torch.dtype, energy: float) -> Solution | str:
    """Return the solution from a Gram matrix in `dtype`, or the reason why it cannot be trusted."""
    spikes = find_spikes(tall, energy) if dtype == torch.float32 else no_spikes(tall)
    if spikes is None:
        return "too many values far above the bulk, or none that settle"
    gram = deflated_gram(tall, spikes, dtype)
    if tall.shape[1] <= _FULL:
        eigenvalues, vectors = torch.linalg.eigh(gram)
        return _checked(tall, energy, spikes, gram, eigenvalues.flip(0).cpu(), vectors.flip(1))
    return _checked(tall, energy, spikes, gram, bulk_eigenvalues(gram, spikes))


def _checked(
    tall: torch.Tensor,
    energy: float,
    spikes: Spikes,
    gram: torch.Tensor,
    bulk: torch.Tensor,
    vectors: torch.Tensor | None = None,
) -> Solution | str:
    """Return the solution that a Gram matrix and its eigenvalues give, or the first check that fails, in words."""
    p, dtype = tall.shape[1], gram.dtype
    values = torch.cat([spikes.values, bulk.clamp_min(0).sqrt()])
    found = values.numpy()  # single numbers are read from it ten times as fast
    strongest, largest, median = float(found[0]), float(found[spikes.count]), float(found[p // 2])
    rounding = (4 * torch.finfo(dtype).eps) ** 0.5 * largest  # below it a value is only a bound
    spread = Check("largest bulk value / median", largest / median if median > 0 else float("inf"), _SPREAD[dtype])
    checks = (
        Check("energy", abs(float(found @ found) / energy - 1), _ENERGY),
        _shift_by_spikes(spikes, bulk),
        spread,
        Check("values lost to rounding", int((found < rounding).sum()), 4 + p // 100 if dtype == tall.dtype else p),
    )
    resolution = RESOLVED * torch.finfo(tall.dtype).eps
    if max(median, rounding) <= resolution * strongest:
        # Numerically low rank: the bulk is below what the entries resolve, and is known to be.
        checks = (*checks[:2], Check("bulk / s_1", max(median, rounding) / strongest, resolution))
    for check in checks:
        if not check.passed:
            return f"{check.name} is {check.value:.3g}, accepted up to {check.limit:.3g}"
    if vectors is not None:
        return Solution(values, Certificate(_route(dtype), checks), spikes, vectors=vectors)
    if spread.value <= _SPREAD_OF_VECTORS:
        gram = gram.to(tall.dtype)
    return Solution(values, Certificate(_route(dtype), checks), spikes, gram=gram)


def solve_stack(stack: torch.Tensor) -> list[Solution]:
    """Return all singular values of every matrix of a stack: on a GPU from one batch of Gram matrices.

    Experts are many and small: one by one they leave a GPU waiting for its next kernel. Batched are products and
    eigenvalues where the device's float64 is worth it (`gram_dtype`), so that nothing has to be deflated;
    elsewhere, and for a matrix that fails a check, this is `solve` for one after the other.
    """
    batched = stack.is_cuda and stack.dtype == torch.float32 and _precisions(stack[0]) == [torch.float64]
    return solve_batch(stack) if batched else [solve(tall) for tall in stack]


def solve_batch(stack: torch.Tensor) -> list[Solution]:
    """Return what `solve` does for every matrix of a stack, from one batch of float64 Gram matrices."""
    wide = stack.double()
    grams = wide.mT @ wide
    energies = wide.square_().sum(dim=(1, 2))
    del wide
    if stack.shape[2] <= _SMALL:  # vectors too: asked for one by one they would keep a GPU waiting
        bulks, vectors = torch.linalg.eigh(grams)
        vectors = list(vectors.flip(2))
    else:
        bulks, vectors = torch.linalg.eigvalsh(grams), [None] * len(stack)
    found = torch.cat([energies[:, None], bulks.flip(1)], dim=1).cpu()
    solutions = []
    for tall, (energy, *_), bulk, gram, own in zip(stack, found.tolist(), found[:, 1:], grams, vectors, strict=True):
        outcome = _checked(tall, energy, no_spikes(tall), gram.clone(), bulk, own) if energy > 0 else "zero"
        solutions.append(outcome if isinstance(outcome, Solution) else solve(tall))
    return solutions


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
