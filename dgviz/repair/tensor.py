"""Repair of one tensor under one or several plans: opened, changed, added and rounded once, reported.

``D = tuned - base``. A method of matrices gives D's singular values others, any other goes through its entries. The
sum with base is formed in float32 (float64 for float64 inputs) and rounded once into the output's dtype. Where
nothing would change, bytes are copied instead of recomputed, so that tau = 0 is tuned and tau = infinity is base, bit
for bit.
"""

import contextlib
import dataclasses
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dgviz.checkpoint import PairedTensor, TensorInfo, read_tensor
from dgviz.checkpoint.descent import entry_in_words
from dgviz.command import option
from dgviz.device import out_of_memory
from dgviz.errors import MethodError, SpectrumError
from dgviz.repair.methods import METHODS
from dgviz.repair.methods.method import Reshaped
from dgviz.repair.plan import RepairPlan
from dgviz.repair.report import (
    MatrixReport,
    RepairedTensor,
    TensorReport,
    report_matrix,
    report_rounding,
    report_tensor,
)
from dgviz.repair.rounding import RoundedSum, add_rounded, cast
from dgviz.repair.update import TensorUpdate, add_edited
from dgviz.repair.whole_model import Squares, note_squares
from dgviz.spectra.delta import is_finite
from dgviz.spectra.open_weight import OpenWeight, open_together
from dgviz.spectra.schedule import batch_size
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.svd.decompose import resolve_device
from dgviz.spectra.weight import matrices_of

Factors = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class _Piece:
    """One matrix of a tensor, or all of it; `summed` None means that `origin`'s values are taken as they are."""

    origin: str
    row: MatrixReport
    warnings: Sequence[str] = ()
    summed: RoundedSum | None = None


def repair_tensor(
    paired: PairedTensor,
    plan: RepairPlan,
    device: str = "auto",
    store: SpectrumStore | None = None,
    facts: Any = None,
) -> RepairedTensor:
    """Return what the repaired checkpoint holds for one tensor."""
    return TensorRepairs(paired, [(plan, facts)], resolve_device(device), store).repair(0)


class TensorRepairs:
    """One tensor under several plans: it is read and decomposed once, however many of them need that.

    Of a stack of matrices the results of all plans are held until they are fetched, because each matrix is decomposed
    for all of them; otherwise one result at a time is in memory.
    """

    def __init__(
        self,
        paired: PairedTensor,
        settings: Sequence[tuple[RepairPlan, Any]],
        device: str,
        store: SpectrumStore | None = None,
        squares: Squares | None = None,
        weight: OpenWeight | None = None,
    ) -> None:
        self.paired, self._settings, self._device = paired, settings, device
        self._store, self._squares = store or SpectrumStore(), squares
        self._weight = weight
        self._short: str | None = None
        self._update: TensorUpdate | None = None
        self._pieces: dict[int, list[_Piece]] = {}
        self.spectra: dict[int | None, np.ndarray] = {}
        """Singular values of every matrix that has been opened, by its place in the stack."""

    def repair(self, number: int) -> RepairedTensor:
        """Return the tensor under one of the plans; from the CPU where a GPU has no memory for it, which is said."""
        try:
            done = self._repaired(number)
        except torch.OutOfMemoryError:
            self._short, self._device = out_of_memory(self._device), "cpu"
            self._weight = self._update = None
            self._pieces = {}
            done = None
        done = done or self._repaired(number)
        if self._short is None:
            return done
        report = dataclasses.replace(done.report, warnings=(*done.report.warnings, self._short))
        return dataclasses.replace(done, report=report)

    def _repaired(self, number: int) -> RepairedTensor:
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
            return _kept(paired, plan, dtype)
        plans = plan.each(paired)
        own = plans[0] if len(plans) == 1 else plan.default
        if len(plans) == 1 and own.keep:
            pieces = [_copied(own.keep)]
        elif len(plans) > 1 or own.recipe.by_matrix:
            pieces = self._matrices(number)
        else:
            pieces = [self._whole(own, facts, dtype)]
        tensor, source, written = _assemble(paired, pieces, dtype)
        rows = [(piece.row, piece.warnings) for piece in pieces]
        report = report_tensor(paired, plan, rows, dtype, written, time.perf_counter() - started)
        return RepairedTensor(tensor, source, report)

    def _matrices(self, number: int) -> list[_Piece]:
        """Return the matrices of the tensor under one plan; a stack is gone through once for all plans."""
        weights = matrices_of(self.paired)
        if len(weights) == 1:
            self._weight = self._weight or OpenWeight(weights[0], self._device, self._store)
            return [self._piece(self._weight, number)]
        if number not in self._pieces:
            wanted = [at for at in range(number, len(self._settings)) if self._by_matrix(at)]
            self._pieces = {at: [] for at in wanted}
            size = batch_size(weights[0], self._device)
            for opened in open_together(weights, self._device, self._store, size):
                for at in wanted:
                    self._pieces[at].append(self._piece(opened, at))
        return self._pieces.pop(number)

    def _by_matrix(self, number: int) -> bool:
        """Return whether a plan goes through the tensor matrix by matrix."""
        plans = self._settings[number][0].each(self.paired)
        return len(plans) > 1 or (plans[0].recipe.by_matrix and not plans[0].keep)

    def _piece(self, weight: OpenWeight, number: int) -> _Piece:
        """Return one matrix of base plus what a method makes of its update."""
        plan, facts = self._settings[number]
        plan = plan.at(self.paired, weight.weight.index)
        if plan.keep:
            return _copied(plan.keep)
        reshaped = reshape_weight(weight, plan, facts)
        self.spectra[weight.weight.index] = reshaped.s
        if self._squares is not None and plan.recipe.thresholded and not plan.directions:
            note_squares(self._squares, weight, plan, reshaped.kept)
        if reshaped.origin != "repaired":
            row = report_matrix(reshaped, weight.zero_share, weight.route)
            return _Piece(reshaped.origin, row, reshaped.warnings)
        stored = weight.as_stored.base()
        rows = plan.recipe.update(reshaped, weight)
        summed = add_rounded(
            stored,
            lambda block, _: (rows(block), None),
            plan.output_dtype(self.paired.tuned),
            self._device,
            torch.float64 if weight.weight.is_double else torch.float32,
            self.paired.name,
            lambda: float(reshaped.values.max()),
            masked=not math.isfinite(float(stored.sum())),
        )
        row = report_matrix(reshaped, weight.zero_share, weight.route)  # the factors may have been computed here
        return _Piece("repaired", report_rounding(row, summed), reshaped.warnings, summed)

    def _whole(self, plan: RepairPlan, facts: Any, dtype: str) -> _Piece:
        """Return the tensor under a method that goes through its entries."""
        factor = plan.recipe.factor(plan.method_params, self.paired.name, facts)
        if factor in (0, 1):
            return _copied("tuned" if factor else "base")
        self._update = self._update or TensorUpdate(self.paired, self._device)
        summed, square = add_edited(self._update, plan, dtype, facts)
        norm = math.sqrt(summed.update_square / square) if square > 0 else 1.0
        row = MatrixReport(energy_kept=norm**2, norm_kept=norm)
        return _Piece("repaired", report_rounding(row, summed), summed=summed)


def factor_tensor(
    paired: PairedTensor, plan: RepairPlan, device: str, store: SpectrumStore | None = None
) -> tuple[list[Factors | None], TensorReport]:
    """Return the factors of the repaired update of every matrix, float32 on the CPU, and the report.

    There are none where nothing is kept, and where the repair takes tuned's values they are of all of the update.
    Where a GPU has no memory for it, the CPU makes them, which is said.
    """
    with contextlib.suppress(torch.OutOfMemoryError):
        return _factored(paired, plan, device, store)
    factors, report = _factored(paired, plan, "cpu", store)
    return factors, dataclasses.replace(report, warnings=(*report.warnings, out_of_memory(device)))


def _factored(
    paired: PairedTensor, plan: RepairPlan, device: str, store: SpectrumStore | None
) -> tuple[list[Factors | None], TensorReport]:
    """Return the factors and the report, all of it from one device."""
    for own in plan.each(paired):
        if not own.keep and not own.recipe.has_factors:
            known = ", ".join(method.name for method in METHODS.values() if method.has_factors)
            raise MethodError(f"{own.method} keeps no directions, so there are no factors; choose one of {known}")
    started = time.perf_counter()
    factors: list[Factors | None] = []
    rows = []
    matrices = matrices_of(paired)
    size = batch_size(matrices[0], device) if matrices else 1
    for weight in open_together(matrices, device, store or SpectrumStore(), size):
        reshaped = reshape_weight(weight, plan.at(paired, weight.weight.index))
        found = None
        if reshaped.values.any():
            left, right = weight.factors(reshaped.values, reshaped.s)
            found = left.to("cpu", torch.float32).contiguous(), right.to("cpu", torch.float32).contiguous()
        row = report_matrix(reshaped, weight.zero_share, weight.route)
        factors.append(found)
        row = dataclasses.replace(row, factor_rank=0 if found is None else found[0].shape[1])
        rows.append((row, reshaped.warnings))
    written = "factors" if any(pair is not None for pair in factors) else "nothing"
    return factors, report_tensor(paired, plan, rows, "float32", written, time.perf_counter() - started)


def reshape_weight(weight: OpenWeight, plan: RepairPlan, facts: Any = None) -> Reshaped:
    """Return what a plan's method makes of a weight's singular values, without computing any factor."""
    name = weight.weight.tensor.name
    try:
        return plan.reshape(weight.measured, facts, name, lambda: weight.delta)
    except SpectrumError as error:
        keep = option("--exclude", f"^{re.escape(name)}$")
        raise SpectrumError(f"{error}, or keep tuned's tensor by {keep}") from None


def _copied(side: str) -> _Piece:
    """Return one side's values, of which nothing is computed."""
    kept = float(side == "tuned")
    return _Piece(side, MatrixReport(energy_kept=kept, norm_kept=kept, sparsity=None if kept else 1.0))


def _kept(paired: PairedTensor, plan: RepairPlan, dtype: str) -> RepairedTensor:
    """Return tuned's bytes, or tuned cast where the plan asks for another dtype."""
    info = paired.tuned
    same = dtype == info.dtype
    tensor = None if same else cast(read_tensor(info), dtype, paired.name)
    written = "tuned bytes" if same else "tuned, cast"
    override = plan.override_of(paired) if paired.action == "repair" else None
    reason = f"Kept by the override {str(override)!r}." if override else paired.reason
    warnings = _broken(info) if info.is_floating else ()
    report = TensorReport(paired.name, "keep", reason, info.shape, dtype, written, warnings=warnings)
    return RepairedTensor(tensor, info if same else None, report)


def _broken(info: TensorInfo) -> tuple[str, ...]:
    """Say which entries of a tensor that is copied are no numbers."""
    values = read_tensor(info)
    if not info.dtype.startswith("float8") and is_finite(values):
        return ()
    wrong = ~torch.isfinite(values.float()).reshape(-1)
    count = int(wrong.sum())
    if not count:
        return ()
    first = int(wrong.nonzero()[0])
    more = f", the first of {count}" if count > 1 else ""
    where = entry_in_words(first, info.shape)
    return (f"tuned holds {float(values.reshape(-1)[first])} at {where}{more}, copied as it is",)


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
    layout = paired.layout
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
