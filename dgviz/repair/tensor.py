"""Repair of one tensor: base plus what a method makes of its update.

``D = tuned - base``; DG-Hard decomposes it, keeps the singular values strictly above tau, and adds
``U_k diag(s_k) Vh_k`` to the base. Other methods scale, trim or mask D. The sum is formed in float32 (float64 for
float64 inputs) and rounded once into the output's dtype. Where nothing would change, bytes are copied instead of
recomputed, so that tau = 0 is tuned and tau = infinity is base, bit for bit.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dgviz.checkpoint import PairedTensor, TensorInfo, matrix_layout, read_tensor
from dgviz.errors import MethodError
from dgviz.repair.facts import ModelFacts, Squares, note_squares, squares_key
from dgviz.repair.kept import KeptDirections, as_dg_hard, keep_directions, reshape_update
from dgviz.repair.methods.edits import TensorUpdate, edit_tensor
from dgviz.repair.plan import RepairPlan
from dgviz.repair.report import RepairedTensor, TensorReport
from dgviz.repair.reshape import ReshapedSpectrum, scale_factor
from dgviz.repair.rounding import RoundedSum, UpdateBlock, add_rounded, cast
from dgviz.rmt.spectrum import effective_rank, norm_ratio
from dgviz.rmt.threshold import Threshold
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.svd.decompose import resolve_device
from dgviz.spectra.weight import Weight, matrices_of

_BY_MATRIX = ("dg_hard", "rank_r", "complement", "norm_matched")


@dataclass(frozen=True)
class _Piece:
    """One matrix of a tensor, or all of it; `summed` None means that `origin`'s values are taken as they are."""

    origin: str
    norm_kept: float
    summed: RoundedSum | None = None
    threshold: Threshold | None = None
    rank: int | None = None
    mp_fit: dict[str, float | None] | None = None
    removed_square: float | None = None
    route: str | None = None
    zero_share: float | None = None
    values: np.ndarray | None = None

    @property
    def noise_restored(self) -> float | None:
        """Length of the rounding over that of what was taken away, where that is known."""
        if self.summed is None or self.removed_square is None:
            return None
        return math.sqrt(self.summed.rounding_square / self.removed_square) if self.removed_square > 0 else 0.0

    @property
    def sparsity(self) -> float | None:
        """Share of entries that are the base's, where that was counted."""
        if self.summed is None:
            return 1.0 if self.origin == "base" else None
        return self.summed.unmoved / max(1, self.summed.tensor.numel())


def repair_tensor(
    paired: PairedTensor,
    plan: RepairPlan,
    device: str = "auto",
    store: SpectrumStore | None = None,
    facts: ModelFacts | None = None,
) -> RepairedTensor:
    """Return what the repaired checkpoint holds for one tensor."""
    return TensorRepairs(paired, [(plan, facts or ModelFacts())], resolve_device(device), store).repair(0)


class TensorRepairs:
    """One tensor under several plans: it is read and decomposed once, however many of them need that.

    Of a stack of matrices the results of all plans are held until they are fetched, because each matrix is decomposed
    for all of them; otherwise one result at a time is in memory.
    """

    def __init__(
        self,
        paired: PairedTensor,
        settings: Sequence[tuple[RepairPlan, ModelFacts]],
        device: str,
        store: SpectrumStore | None = None,
        squares: Squares | None = None,
    ) -> None:
        self.paired, self._settings, self._device = paired, settings, device
        self._store, self._squares = store or SpectrumStore(), squares
        self._matrix: OpenWeight | None = None
        self._update: TensorUpdate | None = None
        self._pieces: dict[int, list[_Piece]] = {}
        self.spectra: dict[int | None, np.ndarray] = {}
        """Singular values of every matrix that has been decomposed, by its place in the stack."""

    def repair(self, number: int) -> RepairedTensor:
        """Return the tensor under one of the plans."""
        started = time.perf_counter()
        plan, facts = self._settings[number]
        paired = self.paired
        if paired.action == "base_only":
            info = paired.base
            report = TensorReport(paired.name, "base_only", paired.reason, info.shape, info.dtype, "nothing")
            return RepairedTensor(None, None, report)
        dtype = plan.output_dtype(paired.tuned)
        if not plan.changes(paired):
            return _kept(paired, dtype)
        by_matrix = plan.method in _BY_MATRIX
        pieces = self._matrices(number) if by_matrix else [self._whole(plan, facts, dtype)]
        tensor, source, written = _assemble(paired, pieces, dtype)
        stacked = by_matrix and _stack(paired) is not None
        report = _report(paired, plan, stacked, pieces, dtype, written, time.perf_counter() - started)
        return RepairedTensor(tensor, source, report)

    def _matrices(self, number: int) -> list[_Piece]:
        """Return the matrices of the tensor under one plan; a stack is gone through once for all plans."""
        stack = _stack(self.paired)
        if stack is None:
            self._matrix = self._matrix or OpenWeight(Weight(self.paired), self._device, self._store)
            return [self._piece(self._matrix, number)]
        if number not in self._pieces:
            wanted = [at for at, (plan, _) in enumerate(self._settings) if at >= number and plan.method in _BY_MATRIX]
            self._pieces = {at: [] for at in wanted}
            for weight in matrices_of(self.paired):
                matrix = OpenWeight(weight, self._device, self._store)
                for at in wanted:
                    self._pieces[at].append(self._piece(matrix, at))
        return self._pieces.pop(number)

    def _piece(self, matrix: OpenWeight, number: int) -> _Piece:
        """Return one matrix under one plan."""
        plan, _ = self._settings[number]
        dtype = plan.output_dtype(self.paired.tuned)
        if plan.method == "norm_matched":
            return _scaled_matrix(matrix, plan, dtype, self._device)
        if plan.method == "complement":
            return _complement(matrix, plan, dtype, self._device)
        kept = keep_directions(matrix, plan)
        self.spectra[matrix.weight.index] = kept.s
        if self._squares is not None and plan.method == "dg_hard" and plan.method_params["alpha"] == 1:
            note_squares(self._squares, squares_key(matrix.weight, plan), kept)
        return _kept_directions(matrix, kept, dtype)

    def _whole(self, plan: RepairPlan, facts: ModelFacts, dtype: str) -> _Piece:
        """Return the tensor under a method that goes through its entries."""
        factor = scale_factor(plan, facts.depths.get(self.paired.name))
        factor = facts.factor if plan.method == "norm_matched_global" else factor
        if factor is None and plan.method in ("lines", "norm_matched_global"):
            raise MethodError(f"{plan.method} takes its factor from the whole model, which has not been looked at")
        if factor in (0, 1):
            return _Piece("tuned" if factor else "base", float(factor))
        self._update = self._update or TensorUpdate(self.paired, self._device)
        summed, square = edit_tensor(self._update, plan, dtype, facts.trim, factor)
        return _Piece("repaired", math.sqrt(summed.update_square / square) if square > 0 else 1.0, summed)


def _stack(paired: PairedTensor) -> int | None:
    """Return how many matrices a tensor holds, or None for one."""
    layout = matrix_layout(paired.name, paired.tuned.shape)
    return None if layout is None else layout.stack


def _kept(paired: PairedTensor, dtype: str) -> RepairedTensor:
    """Return tuned's bytes, or tuned cast where the plan asks for another dtype."""
    info = paired.tuned
    same = dtype == info.dtype
    tensor = None if same else cast(read_tensor(info), dtype, paired.name)
    written = "tuned bytes" if same else "tuned, cast"
    report = TensorReport(paired.name, "keep", paired.reason, info.shape, dtype, written)
    return RepairedTensor(tensor, info if same else None, report)


def _add(matrix: OpenWeight, update: UpdateBlock, dtype: str, device: str, largest: float) -> RoundedSum:
    """Return one matrix of the base plus an update."""
    weight = matrix.weight
    stored = read_tensor(weight.base).reshape(weight.shape)
    work = torch.float64 if weight.is_double else torch.float32
    finite = math.isfinite(float(stored.sum()))
    return add_rounded(stored, update, dtype, device, work, weight.tensor.name, lambda: largest, masked=not finite)


def _kept_directions(matrix: OpenWeight, kept: KeptDirections, dtype: str) -> _Piece:
    """Return one matrix of base plus the directions kept of its update."""
    reshaped = ReshapedSpectrum(kept.threshold, kept.s, kept.values)
    common = {
        "norm_kept": reshaped.norm_kept,
        "threshold": kept.threshold,
        "rank": kept.threshold.rank,
        "mp_fit": reshaped.mp_fits(kept.nonzero_shape),
        "route": kept.route,
        "zero_share": kept.zero_share,
        "values": kept.values,
    }
    if kept.factors is None:
        return _Piece(kept.origin, **common)
    left, right = kept.factors
    device = str(left.device)
    summed = _add(matrix, lambda block, _: (left[block] @ right, None), dtype, device, float(kept.values[0]))
    return _Piece("repaired", summed=summed, removed_square=_removed_square(reshaped), **common)


def _removed_square(reshaped: ReshapedSpectrum) -> float:
    """Return the sum of squares of what was taken away of an update."""
    return float(np.sum((reshaped.s - reshaped.values) ** 2))


def _scaled_matrix(matrix: OpenWeight, plan: RepairPlan, dtype: str, device: str) -> _Piece:
    """Return one matrix of base plus the update scaled to the length of what DG-Hard keeps of it."""
    kept = reshape_update(matrix, as_dg_hard(plan))
    factor = norm_ratio(kept.values, kept.s)
    common = {"threshold": kept.threshold, "route": matrix.route, "values": factor * kept.s}
    if kept.origin != "repaired":
        return _Piece(kept.origin, factor, **common)
    delta = matrix.delta
    summed = _add(matrix, lambda block, _: (factor * delta[block], None), dtype, device, factor * float(kept.s[0]))
    return _Piece("repaired", factor, summed, **common)


def _complement(matrix: OpenWeight, plan: RepairPlan, dtype: str, device: str) -> _Piece:
    """Return one matrix of base plus what DG-Hard drops of its update."""
    kept = keep_directions(matrix, as_dg_hard(plan))
    dropped = np.abs(kept.s - kept.values)
    reshaped = ReshapedSpectrum(kept.threshold, kept.s, dropped)
    common = {
        "norm_kept": reshaped.norm_kept,
        "threshold": kept.threshold,
        "rank": int(np.count_nonzero(dropped)),
        "mp_fit": reshaped.mp_fits(kept.nonzero_shape),
        "route": kept.route,
        "zero_share": kept.zero_share,
        "values": dropped,
    }
    if kept.factors is None:
        return _Piece({"tuned": "base", "base": "tuned"}[kept.origin], **common)
    left, right = kept.factors
    delta = matrix.delta
    summed = _add(
        matrix, lambda block, _: (delta[block] - left[block] @ right, None), dtype, device, float(kept.s[0])
    )
    return _Piece("repaired", summed=summed, removed_square=_removed_square(reshaped), **common)


def _assemble(
    paired: PairedTensor, pieces: list[_Piece], dtype: str
) -> tuple[torch.Tensor | None, TensorInfo | None, str]:
    """Return the tensor to write, or the stored one to copy, and the words for it."""
    origins = {piece.origin for piece in pieces}
    if paired.rows is not None and origins != {"tuned"}:
        return _among_tuned_rows(paired, pieces[0], dtype), None, "repaired"
    for origin, info in (("tuned", paired.tuned), ("base", paired.base)):
        if origins == {origin}:
            if info.dtype == dtype and info.shape == paired.tuned.shape:
                return None, info, f"{origin} bytes"
            return cast(read_tensor(info), dtype, paired.name).reshape(paired.tuned.shape), None, f"{origin}, cast"
    if len(pieces) == 1:
        return pieces[0].summed.tensor.reshape(paired.tuned.shape), None, "repaired"
    layout = matrix_layout(paired.name, paired.tuned.shape)
    out = torch.empty((layout.stack, layout.rows, layout.cols), dtype=getattr(torch, dtype))
    for index, piece in enumerate(pieces):
        if piece.summed is None:
            stored = paired.tuned if piece.origin == "tuned" else paired.base
            out[index] = cast(read_tensor(stored, index), dtype, paired.name).reshape(layout.rows, layout.cols)
        else:
            out[index] = piece.summed.tensor
    return out.reshape(paired.tuned.shape), None, "repaired"


def _among_tuned_rows(paired: PairedTensor, piece: _Piece, dtype: str) -> torch.Tensor:
    """Return tuned with the rows that base has too replaced; see `PairedTensor.rows`."""
    out = cast(read_tensor(paired.tuned), dtype, paired.name)
    rows = cast(read_tensor(paired.base), dtype, paired.name) if piece.summed is None else piece.summed.tensor
    rows = rows.reshape(-1, *out.shape[1:])
    done = 0
    for begin, end in paired.rows:
        out[begin:end] = rows[done : done + end - begin]
        done += end - begin
    return out


def _report(
    paired: PairedTensor,
    plan: RepairPlan,
    stacked: bool,
    pieces: list[_Piece],
    dtype: str,
    written: str,
    seconds: float,
) -> TensorReport:
    """Gather the pieces' figures into one row: plain values for a matrix, lists for a stack."""

    def values(get: Any) -> Any:
        """Return one value, or one per matrix of a stack; None where no piece has one."""
        found = [get(piece) for piece in pieces]
        if all(value is None for value in found):
            return None
        return found if stacked else found[0]

    fits = pieces[0].mp_fit
    reason = paired.reason
    if paired.action != "repair":
        reason = f"Changed because {plan.recipe.title} acts on every tensor; methods for matrices keep it. {reason}"
    cuts = [piece.threshold for piece in pieces if piece.threshold is not None]
    return TensorReport(
        name=paired.name,
        action="repair",
        reason=reason,
        shape=paired.tuned.shape,
        dtype=dtype,
        written=written,
        method=plan.method,
        rank=values(lambda piece: piece.rank),
        **{
            name: values(lambda piece, name=name: piece.threshold and getattr(piece.threshold, name))
            for name in ("tau", "sigma", "edge")
        },
        energy_kept=values(lambda piece: piece.norm_kept**2),
        mp_fit=fits and {key: values(lambda piece, key=key: piece.mp_fit[key]) for key in fits},
        gain=values(lambda piece: piece.summed and piece.summed.gain),
        noise_restored=values(lambda piece: piece.noise_restored),
        update_square=values(lambda piece: piece.summed and piece.summed.update_square),
        removed_square=values(lambda piece: piece.removed_square),
        norm_kept=values(lambda piece: piece.norm_kept),
        sparsity=values(lambda piece: piece.sparsity),
        effective_rank=values(lambda piece: None if piece.values is None else effective_rank(piece.values)),
        zero_share=values(lambda piece: piece.zero_share),
        route=values(lambda piece: piece.route),
        warnings=tuple(dict.fromkeys(warning for cut in cuts for warning in cut.warnings)),
        seconds=seconds,
    )
