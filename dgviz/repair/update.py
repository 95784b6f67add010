"""One tensor's update entry by entry: both sides are read once and gone through in blocks.

Entries are numbered as they are stored, so that what is drawn or trimmed depends on no device, shard or order.
"""

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch

from dgviz.checkpoint import PairedTensor, read_tensor
from dgviz.checkpoint.derived import pick_rows
from dgviz.checkpoint.lora.tensor import LoraTensor
from dgviz.command import option
from dgviz.device import block_elements, is_gpu, sum_double
from dgviz.errors import MethodError
from dgviz.repair import rounding
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.delta import is_finite


class TensorUpdate:
    """Both sides of one tensor as stored, and blocks of its update."""

    def __init__(self, paired: PairedTensor, device: str) -> None:
        base, tuned = paired.base, paired.tuned
        tuned = tuned if paired.rows is None else pick_rows(tuned, paired.rows)
        self.name, self.device, self._layout = paired.name, device, paired.layout
        self.work = torch.float64 if "float64" in (base.dtype, tuned.dtype) else torch.float32
        self.base, self.tuned = (read_tensor(info, device=device).reshape(-1) for info in (base, tuned))
        self._known = None
        if isinstance(tuned, LoraTensor) and tuned.parts[0] == base:
            self._known = tuned.compute_update(device).reshape(-1)

    @property
    def numel(self) -> int:
        """Number of entries."""
        return self.base.numel()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Matrices, and rows and columns of each; of a vector one row."""
        if self._layout is None:
            return 1, 1, self.numel
        count, columns = self._layout.stack or 1, self._layout.cols
        return count, self.numel // (count * columns), columns

    def base_matrix(self, index: int) -> torch.Tensor:
        """Return one of base's matrices; zeros where an entry is infinite."""
        _, rows, columns = self.shape
        size = rows * columns
        matrix = self.wide(self.base, slice(index * size, (index + 1) * size)).reshape(rows, columns)
        return matrix.masked_fill(matrix.isinf(), 0.0)

    def delta(self, block: slice, base: torch.Tensor) -> torch.Tensor:
        """Return tuned - base of some entries; equal values differ by zero, infinities too."""
        if self._known is not None:
            return self._known[block].to(self.work)
        tuned = self.wide(self.tuned, block)
        delta = tuned - base
        if not (self._finite or is_finite(delta)):
            delta = torch.where(tuned == base, 0.0, delta)
            if not is_finite(delta):
                raise MethodError(
                    f"{self.name}: the update holds a value that is not finite; keep tuned's tensor by "
                    + option("--exclude", f"^{re.escape(self.name)}$")
                )
        return delta

    @cached_property
    def _finite(self) -> bool:
        """Whether a GPU has found all of the update finite, so that no block of it has to be waited for."""
        sides = ((self.wide(side, block) for side in (self.base, self.tuned)) for block in self.slices())
        return is_gpu(self.device) and bool(
            torch.stack([torch.isfinite(tuned - base).all() for base, tuned in sides]).all()
        )

    @property
    def signed_zeros(self) -> bool:
        """Whether either side holds a zero of negative sign, which is the least whole number of its size."""
        whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
        views = [side.view(whole[side.element_size()]) for side in (self.base, self.tuned)]
        return any(int(view.min()) == torch.iinfo(view.dtype).min for view in views if view.numel())

    def wide(self, side: torch.Tensor, block: slice) -> torch.Tensor:
        """Return some entries of a side in the working dtype."""
        return side[block].to(self.work)

    def slices(self) -> Iterator[slice]:
        """Yield the places of every block, in order."""
        step = block_elements(self.device, rounding.BLOCK_ELEMENTS)
        for start in range(0, self.numel, step):
            yield slice(start, min(start + step, self.numel))

    def blocks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Return (base, delta) of every block, in order."""
        return map(self.entries, self.slices())

    def entries(self, block: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (base, delta) of some entries."""
        base = self.wide(self.base, block)
        return base, self.delta(block, base)


def edited_blocks(update: TensorUpdate, plan: RepairPlan, facts: Any = None) -> Iterator[torch.Tensor]:
    """Yield what a method that goes through entries makes of every block of an update, not rounded."""
    edit = plan.recipe.edit(plan.method_params, update, facts)
    return (edit(base, delta) for base, delta in update.blocks())


def add_edited(
    update: TensorUpdate, plan: RepairPlan, dtype: str, facts: Any = None
) -> tuple[rounding.RoundedSum, float]:
    """Return one tensor as a method that goes through entries leaves it, flat, and the square of |D|.

    An entry whose update stays as it was gets tuned's own value, bit for bit.
    """
    edit = plan.recipe.edit(plan.method_params, update, facts)
    square = torch.zeros((), dtype=torch.float64, device=update.device)
    # Where all entries are multiplied by a number other than one, only those stay as they were that are equal on both
    # sides, and base plus zero is their value: on a CPU it saves a third of the time not to pick them out.
    plain = not is_gpu(update.device) and _is_scaled(update, plan, facts) and not update.signed_zeros

    def change(block: slice, base: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the edited update of a block, and its result where that is not their sum."""
        nonlocal square
        delta = update.delta(block, base)
        square = square + sum_double(delta * delta)
        edited = edit(base, delta)
        if plain:
            return edited, None
        finite = torch.where(edited == 0, base, base + edited)  # base may be infinite where nothing was trained
        return edited, torch.where(edited == delta, update.wide(update.tuned, block), finite)

    def largest() -> float:
        """Return the size of the largest edited entry."""
        return max((float(block.abs().max()) for block in edited_blocks(update, plan, facts)), default=0.0)

    masked = not is_finite(update.base)
    summed = rounding.add_rounded(
        update.base, change, dtype, update.device, update.work, update.name, largest, masked
    )
    return summed, float(square)


def _is_scaled(update: TensorUpdate, plan: RepairPlan, facts: Any) -> bool:
    """Return whether every entry is multiplied by one number, which is not one in the working dtype."""
    factor = plan.recipe.factor(plan.method_params, update.name, facts)
    return factor is not None and float(torch.tensor(factor, dtype=update.work)) != 1
