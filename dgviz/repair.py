"""Repair of one tensor: base plus the directions of its update that a threshold keeps.

``D = tuned - base`` is decomposed, the singular values strictly above tau are kept, and
``repaired = base + U_k diag(s_k) Vh_k`` is added up in float32 (float64 for float64 inputs) and rounded once into the
output's dtype. Where nothing would change, bytes are copied instead of recomputed, so that tau = 0 is tuned and
tau = infinity is base, bit for bit.
"""

import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dgviz.checkpoint import PairedTensor, TensorInfo, matrix_layout, read_tensor
from dgviz.errors import ExportError
from dgviz.kept import KeptDirections, keep_directions
from dgviz.plan import RepairPlan, json_number
from dgviz.spectrum import resolve_device
from dgviz.store import SpectrumStore
from dgviz.theory import mp_fit_triple
from dgviz.threshold import Threshold
from dgviz.verdict import energy_kept

# Rows are added up in blocks of at most so many entries. About ten temporaries of that size live at once: blocks near
# the cache's size took a quarter of the time of blocks sixteen times larger, and half a gigabyte less memory.
_CHUNK_ELEMENTS = 2**20


@dataclass(frozen=True)
class TensorReport:
    """What happened to one tensor; stacked tensors carry lists, one value per matrix.

    Attributes
    ----------
    action, reason : str
        Fate in the pair, and why.
    shape, dtype
        As written.
    written : str
        Where the bytes come from: ``"repaired"``, ``"tuned bytes"``, ``"base bytes"``, ``"tuned, cast"`` or
        ``"nothing"`` (base only).
    rank, tau, sigma, edge, energy_kept
        The threshold and what it keeps; None for tensors that are not repaired.
    mp_fit : dict or None
        ``tuned``, ``repaired``, ``discarded``.
    gain : float or None
        ``<O, D*> / <D*, D*>`` of the written update O against the exact one D*: below 1, rounding ate the repair.
    noise_restored : float or None
        Norm of the rounding ``O - D*`` over the norm of the noise removed.
    kept_energy, removed_energy : float or None
        Sums of squared singular values that D* keeps and that it leaves out: the weights of the two figures above in
        those of the whole model.
    zero_share : float or None
        Share of the update's entries that are exactly zero: rounding of the stored weights shows here.
    route : str or list or None
        How the spectrum was computed; ", from the store" when a scan had done it, and nothing was decomposed here.
    warnings : tuple of str
        What a user must know.
    seconds : float
        Time spent on this tensor.
    """

    name: str
    action: str
    reason: str
    shape: tuple[int, ...]
    dtype: str
    written: str
    rank: Any = None
    tau: Any = None
    sigma: Any = None
    edge: Any = None
    energy_kept: Any = None
    mp_fit: Any = None
    gain: Any = None
    noise_restored: Any = None
    kept_energy: Any = None
    removed_energy: Any = None
    zero_share: Any = None
    route: Any = None
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values, without the name and what does not apply."""
        row = dataclasses.asdict(self)
        del row["name"]
        row = {key: json_number(value) for key, value in row.items() if value is not None}
        return row | {"shape": list(self.shape), "warnings": list(self.warnings), "seconds": round(self.seconds, 4)}

    @classmethod
    def from_json(cls, name: str, row: Mapping[str, Any]) -> "TensorReport":
        """Return the report that `to_json` described; infinities stay the strings they have become.

        Parameters
        ----------
        name : str
            The tensor.
        row : mapping
            The JSON object.
        """
        return cls(name=name, **{**row, "shape": tuple(row["shape"]), "warnings": tuple(row["warnings"])})


@dataclass(frozen=True)
class RepairedTensor:
    """The bytes to write: a tensor, or a stored tensor to copy."""

    tensor: torch.Tensor | None
    source: TensorInfo | None
    report: TensorReport


@dataclass(frozen=True)
class _Slice:
    """One repaired matrix; `tensor` None means that `origin`'s values are taken as they are."""

    threshold: Threshold
    origin: str
    tensor: torch.Tensor | None
    energy_kept: float
    mp_fit: dict[str, float | None]
    gain: float | None
    noise_restored: float | None
    energies: tuple[float, float]
    route: str
    zero_share: float | None


def repair_tensor(
    paired: PairedTensor, plan: RepairPlan, device: str = "auto", store: SpectrumStore | None = None
) -> RepairedTensor:
    """Return what the repaired checkpoint holds for one tensor.

    Parameters
    ----------
    paired : PairedTensor
        The tensor on both sides, with its fate.
    plan : RepairPlan
        Rule and output dtype.
    device : str
        Where to compute.
    store : SpectrumStore, optional
        Where a scan has put spectra and kept factors, which are then not computed again; default: the user's own.

    Returns
    -------
    RepairedTensor
        The tensor on the CPU in its output dtype, or the stored tensor whose bytes are to be copied, and the report.

    Raises
    ------
    SpectrumError
        If the update holds a value that is not finite.
    CheckpointError
        If a file vanished or shrank.
    """
    started = time.perf_counter()
    if paired.action == "base_only":
        info = paired.base
        report = TensorReport(paired.name, "base_only", paired.reason, info.shape, info.dtype, "nothing")
        return RepairedTensor(None, None, report)
    dtype = plan.output_dtype(paired.tuned)
    if paired.action == "keep":
        return _kept(paired, dtype)
    device = resolve_device(device)
    layout = matrix_layout(paired.name, paired.tuned.shape)
    indices = [None] if layout.stack is None else list(range(layout.stack))
    store = store or SpectrumStore()
    slices = [_repair_slice(paired, index, plan, dtype, device, store) for index in indices]
    tensor, source, written = _assemble(paired, layout.stack is not None, slices, dtype)
    report = _report(paired, layout.stack is not None, slices, dtype, written, time.perf_counter() - started)
    return RepairedTensor(tensor, source, report)


def _kept(paired: PairedTensor, dtype: str) -> RepairedTensor:
    """Return tuned's bytes, or tuned cast where the plan asks for another dtype."""
    info = paired.tuned
    same = dtype == info.dtype
    tensor = None if same else _cast(read_tensor(info), dtype, paired.name)
    written = "tuned bytes" if same else "tuned, cast"
    report = TensorReport(paired.name, "keep", paired.reason, info.shape, dtype, written)
    return RepairedTensor(tensor, info if same else None, report)


def _cast(tensor: torch.Tensor, dtype: str, name: str) -> torch.Tensor:
    """Return a tensor in another dtype; a finite value that would become infinite is an error."""
    cast = tensor.to(getattr(torch, dtype))
    if cast.is_floating_point() and tensor.dtype != cast.dtype:
        lost = int((torch.isfinite(tensor) & ~torch.isfinite(cast)).sum())
        if lost:
            raise ExportError(_overflow(name, lost, float(tensor.abs().nan_to_num(0, 0).max()), dtype))
    return cast


def _overflow(name: str, count: int, largest: float, dtype: str) -> str:
    """Return the sentence about values that a dtype cannot hold."""
    limit = torch.finfo(getattr(torch, dtype)).max
    return (
        f"{name}: {count} values do not fit {dtype} (largest {largest:.3g}, limit {limit:.3g}); "
        "choose --dtype float32 or bfloat16"
    )


def _repair_slice(
    paired: PairedTensor, index: int | None, plan: RepairPlan, dtype: str, device: str, store: SpectrumStore
) -> _Slice:
    """Find what the threshold keeps of one matrix of a tensor, and add it to the base."""
    kept = keep_directions(paired, index, plan, device, store)
    threshold = kept.threshold
    fit = mp_fit_triple(kept.s, threshold.rank, threshold.sigma, kept.shape)
    energy = energy_kept(kept.s, threshold.rank)
    count = {"repaired": threshold.rank, "base": 0, "tuned": len(kept.s)}[kept.origin]
    squares = float(np.sum(kept.s[:count] ** 2)), float(np.sum(kept.s[count:] ** 2))
    if kept.factors is None:
        return _Slice(threshold, kept.origin, None, energy, fit, None, None, squares, kept.route, kept.zero_share)
    tensor, gain, restored = _add_kept(paired.base, index, kept, dtype)
    return _Slice(threshold, kept.origin, tensor, energy, fit, gain, restored, squares, kept.route, kept.zero_share)


def _add_kept(
    base: TensorInfo, index: int | None, kept: KeptDirections, dtype: str
) -> tuple[torch.Tensor, float, float]:
    """Return base + D* rounded once into `dtype`, with the gain and the share of noise that rounding put back.

    Works block of rows by block of rows, so that no float32 copy of the result exists; sums stay on the device until
    the end.
    """
    left, right = kept.factors
    rows, columns = kept.shape
    out_dtype = getattr(torch, dtype)
    stored = read_tensor(base, index).reshape(rows, columns)
    out = torch.empty((rows, columns), dtype=out_dtype)
    sums = torch.zeros(3, dtype=torch.float64, device=left.device)
    step = max(1, _CHUNK_ELEMENTS // columns)
    for start in range(0, rows, step):
        block = slice(start, min(start + step, rows))
        origin = stored[block].to(left.device).to(left.dtype)
        update = left[block] @ right
        rounded = (origin + update).to(out_dtype)
        out[block] = rounded.cpu()
        moved = rounded.to(left.dtype) - origin
        products = (moved * update, update * update, (moved - update) ** 2)
        sums += torch.stack([product.sum(dtype=torch.float64) for product in products])
    overlap, kept_square, rounding_square = sums.tolist()
    if not math.isfinite(rounding_square) and (lost := int((~torch.isfinite(out)).sum())):
        largest = float(stored.float().abs().max()) + float(kept.s[0])
        raise ExportError(_overflow(base.name, lost, largest, dtype))
    removed_square = float(np.sum(kept.s[kept.threshold.rank :] ** 2))
    gain = overlap / kept_square if kept_square > 0 else 1.0
    return out, gain, math.sqrt(rounding_square / removed_square) if removed_square > 0 else 0.0


def _assemble(
    paired: PairedTensor, stacked: bool, slices: list[_Slice], dtype: str
) -> tuple[torch.Tensor | None, TensorInfo | None, str]:
    """Return the tensor to write, or the stored one to copy, and the words for it."""
    origins = {piece.origin for piece in slices}
    if paired.rows is not None and origins != {"tuned"}:
        return _among_tuned_rows(paired, slices[0], dtype), None, "repaired"
    for origin, info in (("tuned", paired.tuned), ("base", paired.base)):
        if origins == {origin}:
            if info.dtype == dtype and info.shape == paired.tuned.shape:
                return None, info, f"{origin} bytes"
            return _cast(read_tensor(info), dtype, paired.name).reshape(paired.tuned.shape), None, f"{origin}, cast"
    if not stacked:
        return slices[0].tensor.reshape(paired.tuned.shape), None, "repaired"
    layout = matrix_layout(paired.name, paired.tuned.shape)
    out = torch.empty((layout.stack, layout.rows, layout.cols), dtype=getattr(torch, dtype))
    for index, piece in enumerate(slices):
        if piece.tensor is None:
            stored = paired.tuned if piece.origin == "tuned" else paired.base
            out[index] = _cast(read_tensor(stored, index), dtype, paired.name).reshape(layout.rows, layout.cols)
        else:
            out[index] = piece.tensor
    return out.reshape(paired.tuned.shape), None, "repaired"


def _among_tuned_rows(paired: PairedTensor, piece: _Slice, dtype: str) -> torch.Tensor:
    """Return tuned with the rows that base has too replaced; see `PairedTensor.rows`."""
    out = _cast(read_tensor(paired.tuned), dtype, paired.name)
    rows = _cast(read_tensor(paired.base), dtype, paired.name) if piece.tensor is None else piece.tensor
    rows = rows.reshape(-1, *out.shape[1:])
    done = 0
    for begin, end in paired.rows:
        out[begin:end] = rows[done : done + end - begin]
        done += end - begin
    return out


def _report(
    paired: PairedTensor, stacked: bool, slices: list[_Slice], dtype: str, written: str, seconds: float
) -> TensorReport:
    """Gather the slices' figures into one row: plain values for a matrix, lists for a stack."""

    def values(get: Any) -> Any:
        """Return one value, or one per matrix of a stack."""
        return [get(piece) for piece in slices] if stacked else get(slices[0])

    warnings = dict.fromkeys(warning for piece in slices for warning in piece.threshold.warnings)
    return TensorReport(
        name=paired.name,
        action="repair",
        reason=paired.reason,
        shape=paired.tuned.shape,
        dtype=dtype,
        written=written,
        rank=values(lambda piece: piece.threshold.rank),
        tau=values(lambda piece: piece.threshold.tau),
        sigma=values(lambda piece: piece.threshold.sigma),
        edge=values(lambda piece: piece.threshold.edge),
        energy_kept=values(lambda piece: piece.energy_kept),
        mp_fit={key: values(lambda piece, key=key: piece.mp_fit[key]) for key in ("tuned", "repaired", "discarded")},
        gain=values(lambda piece: piece.gain),
        noise_restored=values(lambda piece: piece.noise_restored),
        kept_energy=values(lambda piece: piece.energies[0]),
        removed_energy=values(lambda piece: piece.energies[1]),
        zero_share=values(lambda piece: piece.zero_share),
        route=values(lambda piece: piece.route),
        warnings=tuple(warnings),
        seconds=seconds,
    )
