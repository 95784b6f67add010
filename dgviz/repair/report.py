"""What happened to one tensor, as rows: written by these functions for every format of output."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dgviz.checkpoint import PairedTensor, TensorInfo
from dgviz.files import json_number
from dgviz.repair.methods.method import Reshaped
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.spectrum import effective_rank

if TYPE_CHECKING:
    import torch

    from dgviz.repair.rounding import RoundedSum


@dataclass(frozen=True)
class MatrixReport:
    """Figures of one matrix of a tensor, or of the tensor as a whole under a method that goes through entries.

    D is the update, D' the method's, O what is written of it. What does not apply is None.

    Attributes
    ----------
    rank : int or None
        Directions that the method leaves; None where it keeps all of them.
    factor_rank : int or None
        Columns of the factors written, in a format of factors: all directions where D' is D.
    tau, sigma, edge : float or None
        The threshold.
    energy_kept, norm_kept : float
        ``|D'|^2 / |D|^2`` and its root.
    effective_rank : float or None
        Of D' (`dgviz.rmt.spectrum.effective_rank`), where its singular values are known.
    mp_fit : dict or None
        ``tuned``, ``repaired``, ``discarded``: fits to the noise law of the nonzero block, in percent.
    zero_share : float or None
        Share of D's entries that are exactly zero: rounding of the stored weights shows here.
    route : str or None
        How the spectrum was computed; ", from the store" when a scan had done it, and nothing was decomposed here.
    removed_square : float or None
        Sum of squares of what was taken away.
    gain : float or None
        ``<O, D'> / <D', D'>``: below 1, rounding ate the repair.
    noise_restored : float or None
        Norm of the rounding ``O - D'`` over the norm of what was taken away.
    update_square : float or None
        Sum of squares of D', the weight of `gain` in that of the whole model; `removed_square` is that of
        `noise_restored`.
    sparsity : float or None
        Share of the written entries that are the base's.
    override : str or None
        The override that decided it; None where the plan's default did.
    """

    rank: int | None = None
    factor_rank: int | None = None
    tau: Any = None
    sigma: Any = None
    edge: Any = None
    energy_kept: float | None = None
    norm_kept: float | None = None
    effective_rank: float | None = None
    mp_fit: Mapping[str, float | None] | None = None
    zero_share: float | None = None
    route: str | None = None
    removed_square: float | None = None
    gain: float | None = None
    noise_restored: float | None = None
    update_square: float | None = None
    sparsity: float | None = None
    override: str | None = None


@dataclass(frozen=True)
class Changes:
    """How many tensors an output has that are not tuned's.

    Attributes
    ----------
    repairable : int
        Those that could be.
    changed : int
        Those that are.
    at_base : int
        Those of them that are base's again: nothing of their update was kept.
    """

    repairable: int
    changed: int
    at_base: int

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> "Changes":
        """Return the counts of an output's rows, as `TensorReport.to_json` returns them."""
        repairable = [row for row in rows if row["action"] == "repair"]
        at_base = [_is_base(row) and not _equal(row) for row in repairable]
        changed = sum(
            back or row["written"] in ("repaired", "factors") for row, back in zip(repairable, at_base, strict=True)
        )
        return cls(len(repairable), changed, sum(at_base))

    @property
    def words(self) -> str:
        """The counts in words."""
        own = "all" if self.at_base == self.changed else str(self.at_base)
        back = f", {own} of them set back to base" if self.at_base else ""
        return f"{self.changed} of {self.repairable} repairable tensors changed{back}"


def _is_base(row: Mapping[str, Any]) -> bool:
    """Return whether every value written is base's: of a stack some matrices may never have been another."""
    if row["written"] in ("base bytes", "base, cast", "nothing"):
        return True
    own = [matrix.get("sparsity") == 1 or matrix.get("zero_share") == 1 for matrix in row["matrices"]]
    return row["written"] == "repaired" and bool(own) and all(own)


def _equal(row: Mapping[str, Any]) -> bool:
    """Return whether base and tuned have the same values, so that neither was left."""
    return bool(row["matrices"]) and all(matrix.get("zero_share") == 1 for matrix in row["matrices"])


@dataclass(frozen=True)
class TensorReport:
    """What happened to one tensor.

    Attributes
    ----------
    action, reason : str
        What the pair says is to be done, and why.
    shape, dtype
        As written.
    written : str
        Where the bytes come from: ``"repaired"``, ``"factors"``, ``"tuned bytes"``, ``"base bytes"``,
        ``"tuned, cast"``, ``"base, cast"`` or ``"nothing"`` (base only, or no factors because the method keeps
        nothing).
    method : str or None
        What changed it; None for tensors that are tuned's because no method applies.
    matrices : tuple of MatrixReport
        One per matrix: one of a plain tensor, one per entry of a stack; one for the whole tensor under a method that
        goes through entries; none where no method applies.
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
    method: str | None = None
    matrices: tuple[MatrixReport, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values, without the name and what does not apply."""
        row = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del row["name"]
        row |= {"shape": list(self.shape), "warnings": list(self.warnings), "seconds": round(self.seconds, 4)}
        row["matrices"] = [
            {key: json_number(value) for key, value in vars(matrix).items() if value is not None}
            for matrix in self.matrices
        ]
        return {key: value for key, value in row.items() if value is not None}

    @classmethod
    def from_json(cls, name: str, row: Mapping[str, Any]) -> "TensorReport":
        """Return the report that `to_json` described; infinities stay the strings they have become."""
        matrices = tuple(MatrixReport(**matrix) for matrix in row["matrices"])
        known = {"shape": tuple(row["shape"]), "warnings": tuple(row["warnings"]), "matrices": matrices}
        return cls(name=name, **{**row, **known})


@dataclass(frozen=True)
class RepairedTensor:
    """The bytes to write: a tensor, or a stored tensor to copy."""

    tensor: "torch.Tensor | None"
    source: TensorInfo | None
    report: TensorReport


def report_matrix(reshaped: Reshaped, zero_share: float | None, route: str) -> MatrixReport:
    """Return what a method made of one matrix, whatever is written of it."""
    cut = reshaped.threshold
    chosen = reshaped.rank is not None
    return MatrixReport(
        rank=reshaped.rank,
        tau=cut and cut.tau,
        sigma=cut and cut.sigma,
        edge=cut and cut.edge,
        energy_kept=reshaped.norm_kept**2,
        norm_kept=reshaped.norm_kept,
        effective_rank=effective_rank(reshaped.values),
        mp_fit=reshaped.mp_fit if chosen else None,
        zero_share=zero_share,
        route=route,
        removed_square=float((reshaped.removed**2).sum()) if chosen else None,
        sparsity=1.0 if reshaped.origin == "base" else None,
    )


def report_rounding(row: MatrixReport, summed: "RoundedSum") -> MatrixReport:
    """Return the figures of a matrix with what adding it to base and rounding did to it."""
    restored, removed = None, row.removed_square
    if removed is not None:
        restored = math.sqrt(summed.rounding_square / removed) if removed > 0 else 0.0
    return dataclasses.replace(
        row,
        gain=summed.gain,
        noise_restored=restored,
        update_square=summed.update_square,
        sparsity=summed.unmoved / max(1, summed.tensor.numel()),
    )


def report_tensor(
    paired: PairedTensor,
    plan: RepairPlan,
    rows: Sequence[tuple[MatrixReport, Sequence[str]]],
    dtype: str,
    written: str,
    seconds: float,
) -> TensorReport:
    """Return the report of a tensor that a plan has changed, from the figures and warnings of its matrices."""
    plans = plan.each(paired)
    own = plans[0] if len(plans) == 1 else plan.default
    reason = paired.reason
    if paired.action != "repair" and not own.keep:
        reason = f"Changed because {own.recipe.title} acts on every tensor; methods for matrices keep it. {reason}"
    deciding = [plan.override_of(paired, None if len(rows) == 1 else index) for index in range(len(rows))]
    named = [
        row if by is None else dataclasses.replace(row, override=str(by))
        for (row, _), by in zip(rows, deciding, strict=True)
    ]
    return TensorReport(
        paired.name,
        "repair",
        reason,
        paired.tuned.shape,
        dtype,
        written,
        None if own.keep else own.method,
        tuple(named),
        tuple(dict.fromkeys(warning for _, warnings in rows for warning in warnings)),
        seconds,
    )
