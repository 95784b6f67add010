"""decompose(delta): every singular value of one weight update, and on demand its triplets and direction maps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch

from dgviz.device import is_gpu
from dgviz.errors import SpectrumError
from dgviz.spectra.svd.products import full_float32
from dgviz.spectra.svd.sketch import sketched_directions
from dgviz.spectra.svd.solve import Certificate, Solution, solve, solve_stack
from dgviz.spectra.svd.triplets import leading_triplets, pooled_products

_SKETCHED = 1536  # columns from which every direction of a matrix takes longer than is pleasant to wait
_STEEP, _FLAT = 30.0, 10.0  # what lies before the sketched directions over the first of them; that over the median
_SAFE = range(
    -30, 21
)  # exponents of the largest entry at which squares, and what a filter makes of them, fit float32


@dataclass(frozen=True)
class Device:
    """A place to compute on.

    Attributes
    ----------
    id : str
        What torch calls it: "cpu", "cuda:0".
    label : str
        What people call it.
    """

    id: str
    label: str


def list_devices() -> list[Device]:
    """Return the devices this machine can compute on: every CUDA device by name, then the CPU."""
    devices = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            devices.append(Device(f"cuda:{index}", f"{properties.name} ({properties.total_memory / 2**30:.0f} GiB)"))
    threads = torch.get_num_threads()
    devices.append(Device("cpu", f"CPU ({threads} thread{'' if threads == 1 else 's'})"))
    return devices


@cache
def resolve_device(device: str) -> str:
    """Return the id of the device to compute on; "auto" is the first CUDA device where there is one, else the CPU.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda" or "cuda:<index>".

    Raises
    ------
    SpectrumError
        If this machine has no such device.
    """
    known = [f"cuda:{index}" for index in range(torch.cuda.device_count())] + ["cpu"]
    if device == "auto":
        return known[0]
    wanted = "cuda:0" if device == "cuda" else device
    if wanted not in known:
        raise SpectrumError(f"device {device!r} is not available here: choose one of auto, {', '.join(known)}")
    return wanted


class Decomposition:
    """The factorisation of one weight update, owned by whoever looks at that weight.

    It holds the delta itself, not a copy (unless dtype, device, magnitude or strides ask for one: do not write into
    it meanwhile), a p x p Gram matrix or the directions that replace it, and the triplets asked for. While it works
    it adds a few p x p matrices and runs of a few MB, on every route: 151936 x 4096 in float32 peaks at 5 bytes per
    entry, 4 of them the delta's own.

    Attributes
    ----------
    name : str
        What errors call the matrix.
    shape : (int, int)
        Rows m and columns n of the delta; p = min(m, n).
    s : (p,) CPU float64 tensor
        All singular values, descending.
    certificate : Certificate
        How `s` was obtained.
    """

    def __init__(self, tall: torch.Tensor, wide: bool, shift: int, name: str, solution: Solution) -> None:
        self._tall, self._wide, self._shift = tall, wide, shift
        self.name = name
        self.shape = (tall.shape[1], tall.shape[0]) if wide else (tall.shape[0], tall.shape[1])
        self._solution = solution
        self.s = scale_by_power(self._solution.values, shift)
        self._kept: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def certificate(self) -> Certificate:
        """The route taken and every check made so far; triplets add theirs when they are first asked for."""
        return self._solution.certificate

    def triplets(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the `rank` strongest triplets as two factors whose product is the best approximation of that rank.

        Parameters
        ----------
        rank : int
            0 to p.

        Returns
        -------
        left : (m, rank) tensor
            Left singular vectors times their singular values, on the computing device.
        right : (rank, n) tensor
            Right singular vectors as rows.

        Raises
        ------
        ValueError
            If the rank lies outside 0 to p.
        SpectrumError
            If the device's products are so wrong that no route confirms the singular values.
        """
        m, n = self.shape
        if not 0 <= rank <= self.s.numel():
            raise ValueError(f"the rank of a {m} x {n} matrix lies in 0 to {self.s.numel()}; got {rank}")
        if rank == 0:
            return self._tall.new_zeros(m, 0), self._tall.new_zeros(0, n)
        if self._kept is None or self._kept[0].shape[1] < rank:
            with full_float32():
                try:
                    self._kept = leading_triplets(self._tall, self._solution, rank)
                except SpectrumError as error:
                    raise SpectrumError(f"{self.name}: {error}") from error
        product, vectors = (part[:, :rank] for part in self._kept)
        if not self._wide:
            return scale_by_power(product, self._shift).clone(), vectors.T.to(product.dtype, copy=True)
        norms = torch.linalg.vector_norm(product, dim=0, dtype=torch.float64)
        units = product * torch.where(norms > 0, 1 / norms, 0).to(product.dtype)
        return scale_by_power((vectors * norms).to(product.dtype), self._shift), units.T

    def direction_maps(self, rows: int, exact: int | None = None) -> torch.Tensor:
        """Return sigma_r |u_r[i]| of every direction r, rows i pooled by block maximum.

        Parameters
        ----------
        rows : int
            Row blocks wanted, at least 1; R = min(rows, m) are made. Block b holds the rows from ``floor(b m / R)``
            up to, not including, ``floor((b + 1) m / R)``, so none is empty.
        exact : int, optional
            How many leading directions are wanted one by one; all by default. The others are then sketched, where
            that can be done (`sketches`): their columns are random vectors of a neighbourhood of a sixteenth of them.

        Returns
        -------
        (R, p) CPU float32 tensor
            Column r is direction r in the order of `s`.

        Raises
        ------
        ValueError
            If `rows` is below 1.
        """
        if rows < 1:
            raise ValueError(f"direction maps need at least one row block; got {rows}")
        m, blocks = self.shape[0], min(rows, self.shape[0])
        edges = [b * m // blocks for b in range(blocks + 1)]
        if exact is not None and self.sketches(exact):
            return scale_by_power(self._sketched_maps(edges, exact), self._shift).float().cpu()
        with full_float32():
            vectors = self._solution.directions()
            if self._wide:
                pooled = vectors.abs()
                if blocks < m:
                    pooled = torch.stack([pooled[a:b].amax(dim=0) for a, b in pairwise(edges)])
                pooled *= self._solution.values.to(pooled)
            else:
                pooled = pooled_products(self._tall, self._solution, edges)
        return scale_by_power(pooled, self._shift).float().cpu()

    def sketches(self, exact: int) -> bool:
        """Return whether direction maps can be had without every direction, and whether that is worth it.

        Parameters
        ----------
        exact : int
            How many leading directions are wanted one by one.
        """
        values, spikes = self._solution.values, self._solution.spikes
        p = values.numel()
        if self._solution.gram is None or p < _SKETCHED or not spikes.count <= exact <= p // 8:
            return False
        # Beside far stronger ones the others would drown in the rounding of the Gram matrix, and weak ones in theirs.
        flat = float(values[exact]) < _FLAT * float(values[p // 2])
        return flat and float(values[spikes.count]) < _STEEP * float(values[exact])

    def _sketched_maps(self, edges: list[int], exact: int) -> torch.Tensor:
        """Return the direction maps with all but the leading directions sketched."""
        self.triplets(exact)
        with full_float32():
            if self._solution.gram is None:  # the triplets needed every direction
                return self.direction_maps(len(edges) - 1)
            nothing = self._tall.new_zeros(self._tall.shape[0], 0), self._tall.new_zeros(self._tall.shape[1], 0)
            product, vectors = (part[:, :exact] for part in self._kept or nothing)
            lead = vectors * self._solution.values[:exact].to(vectors) if self._wide else product
            lead = torch.stack([lead[a:b].abs().amax(dim=0) for a, b in pairwise(edges)])
            rest = sketched_directions(self._tall, self._solution, vectors, self._wide, edges)
        return torch.cat([lead.to(rest), rest], dim=1)


def decompose(delta: torch.Tensor, device: str = "auto", name: str = "delta") -> Decomposition:
    """Return the decomposition of one weight update.

    Parameters
    ----------
    delta : (m, n) tensor
        Any floating dtype; float64 is computed in float64, everything else in float32. It is not modified.
    device : str, default "auto"
        Where to compute, see `resolve_device`.
    name : str, default "delta"
        What error messages call the matrix.

    Raises
    ------
    SpectrumError
        If `delta` is not a non-empty floating matrix, holds a value that is not finite (the first one is named), or
        the device does not exist.

    Examples
    --------
    >>> decompose(torch.diag(torch.tensor([3.0, 4.0])), "cpu").s.tolist()
    [4.0, 3.0]
    """
    if delta.ndim != 2 or not delta.is_floating_point() or delta.numel() == 0:
        raise SpectrumError(
            f"{name}: a spectrum needs a non-empty floating matrix, got shape {tuple(delta.shape)} of {delta.dtype}"
        )
    ((work, shift),) = _prepared([delta], resolve_device(device), [name])
    if 1 not in work.stride():
        work = work.contiguous()  # else every product would copy it
    wide = work.shape[0] < work.shape[1]
    tall = work.T if wide else work
    with full_float32():
        return Decomposition(tall, wide, shift, name, solve(tall))


def decompose_stack(deltas: Sequence[torch.Tensor], device: str, names: Sequence[str]) -> list[Decomposition]:
    """Return the decompositions of matrices of one shape, such as the experts of a layer, batched on a GPU.

    Parameters
    ----------
    deltas : sequence of (m, n) tensors
        As `decompose` takes them; on a GPU all of them, and their Gram matrices in float64, are there at once.
    device : str
        Where to compute, see `resolve_device`.
    names : sequence of str
        What error messages call them.

    Raises
    ------
    SpectrumError
        As `decompose`, for the first matrix that is unusable.
    """
    device = resolve_device(device)
    if not is_gpu(device) or any(delta.dtype == torch.float64 for delta in deltas):
        return [decompose(delta, device, name) for delta, name in zip(deltas, names, strict=True)]
    works = _prepared(deltas, device, names)
    wide = works[0][0].shape[0] < works[0][0].shape[1]
    stack = torch.stack([work for work, _ in works])
    if wide:
        stack = stack.mT
    with full_float32():
        solutions = solve_stack(stack)
    return [
        Decomposition(tall, wide, shift, name, solution)
        for tall, (_, shift), name, solution in zip(stack, works, names, solutions, strict=True)
    ]


def _prepared(deltas: Sequence[torch.Tensor], device: str, names: Sequence[str]) -> list[tuple[torch.Tensor, int]]:
    """Return each delta in its working precision, scaled by ``2**-shift`` where its squares would leave float32."""
    works = [delta.detach().to(device) for delta in deltas]
    works = [work.to(torch.float64 if work.dtype == torch.float64 else torch.float32) for work in works]
    # One pass; both are NaN where any entry is. A GPU is waited for once.
    peaks = torch.stack([torch.stack(torch.aminmax(work)).abs().max().double() for work in works]).tolist()
    prepared = []
    for work, peak, name in zip(works, peaks, names, strict=True):
        if not math.isfinite(peak):
            raise SpectrumError(_first_bad_entry(work, name))
        exponent = math.frexp(peak)[1]
        shift = 0 if exponent in _SAFE else exponent
        prepared.append((scale_by_power(work, -shift), shift))
    return prepared


def scale_by_power(matrix: torch.Tensor, exponent: int) -> torch.Tensor:
    """Return ``matrix * 2**exponent``, exact wherever the result is a normal number; itself for exponent 0.

    Parameters
    ----------
    matrix : tensor
        Any floating tensor.
    exponent : int
        Power of two; done in two steps, since 2**130 itself is no float32.
    """
    if exponent == 0:
        return matrix
    half = exponent // 2
    return matrix * 2.0**half * 2.0 ** (exponent - half)


def _first_bad_entry(matrix: torch.Tensor, name: str) -> str:
    """Return the sentence that names the first entry, in row order, that is not finite."""
    rows = 1024  # at a time: the tests of a whole matrix would take memory of their own
    bad = (
        (start + row, column)
        for start in range(0, matrix.shape[0], rows)
        for row, column in (~torch.isfinite(matrix[start : start + rows])).nonzero()[:1].tolist()
    )
    row, column = next(bad)
    return (
        f"{name}: entry [{row}, {column}] of {tuple(matrix.shape)} is {float(matrix[row, column])}, "
        "but a spectrum needs finite values; check which of base and tuned holds it"
    )
