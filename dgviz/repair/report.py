"""What happened to one tensor: the row that every output carries."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dgviz.checkpoint import TensorInfo
from dgviz.files import json_number

if TYPE_CHECKING:
    import torch


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
        Where the bytes come from: ``"repaired"``, ``"factors"``, ``"tuned bytes"``, ``"base bytes"``,
        ``"tuned, cast"`` or ``"nothing"`` (base only, or no factors because the method keeps nothing).
    method : str or None
        What changed it; None for tensors that are tuned's because no method applies.
    rank, tau, sigma, edge
        The threshold; None for tensors and methods without one. A method that keeps all directions has no rank.
    energy_kept : float or list or None
        Share of the update's sum of squares that the result's update has: the square of `norm_kept`.
    mp_fit : dict or None
        ``tuned``, ``repaired``, ``discarded``.
    gain : float or None
        ``<O, D'> / <D', D'>`` of the written update O against the exact one D': below 1, rounding ate the repair.
    noise_restored : float or None
        Norm of the rounding ``O - D'`` over the norm of what was taken away.
    update_square, removed_square : float or None
        Sums of squares of D' and of what was taken away: the weights of the two figures above in those of the whole
        model.
    norm_kept : float or None
        ``|D'| / |D|``: length of the exact result's update over the update's own.
    sparsity : float or None
        Share of the written tensor's entries that are the base's.
    effective_rank : float or None
        Of the exact result's update (`dgviz.rmt.spectrum.effective_rank`), where its singular values are known.
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
    method: str | None = None
    rank: Any = None
    tau: Any = None
    sigma: Any = None
    edge: Any = None
    energy_kept: Any = None
    mp_fit: Any = None
    gain: Any = None
    noise_restored: Any = None
    update_square: Any = None
    removed_square: Any = None
    norm_kept: Any = None
    sparsity: Any = None
    effective_rank: Any = None
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
        """Return the report that `to_json` described; infinities stay the strings they have become."""
        return cls(name=name, **{**row, "shape": tuple(row["shape"]), "warnings": tuple(row["warnings"])})


@dataclass(frozen=True)
class RepairedTensor:
    """The bytes to write: a tensor, or a stored tensor to copy."""

    tensor: "torch.Tensor | None"
    source: TensorInfo | None
    report: TensorReport
