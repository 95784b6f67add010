"""Edits that see whole rows of a matrix, though a tensor is gone through in blocks of entries."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from dgviz.repair.methods.method import Edit, Update

if TYPE_CHECKING:
    import torch

RowsEdit = Callable[[int, "torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Gives something of the same shape for whole rows of base and delta of one matrix, told by its place in a stack."""


def by_rows(update: Update, change: RowsEdit) -> Edit:
    """Return an edit of blocks made from one of rows; rows that a block holds in part are fetched whole."""
    import torch

    _, rows, columns = update.shape
    place = 0

    def edit(base: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """Return what is made of the next block."""
        nonlocal place
        start, place = place, place + delta.numel()
        first, last = start // columns, -(-place // columns)
        if last * columns - first * columns > delta.numel():
            base, delta = update.entries(slice(first * columns, last * columns))
        base, delta = base.reshape(-1, columns), delta.reshape(-1, columns)
        parts = []
        while first < last:
            matrix = first // rows
            count = min(last, (matrix + 1) * rows) - first
            done = base.shape[0] - (last - first)
            parts.append(change(matrix, base[done : done + count], delta[done : done + count]))
            first += count
        skipped = start % columns
        return torch.cat(parts).reshape(-1)[skipped : skipped + place - start]

    return edit
