"""Base plus an update, added up block by block and rounded once, with what the rounding did to it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dgviz.device import block_elements, fetch, sum_double
from dgviz.errors import ExportError

# On a CPU entries are added up in blocks of at most so many. About ten temporaries of that size live at once: where
# they stay in a core's own cache a model's average took half the time that it took with blocks four times larger.
BLOCK_ELEMENTS = 2**18

UpdateBlock = Callable[[slice, torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]
"""Gives the update of a block of rows, and the block's result where that is not simply base plus update."""


@dataclass(frozen=True)
class RoundedSum:
    """A tensor as it will be written, and how far it is from what it should be.

    Attributes
    ----------
    tensor : tensor
        In the output's dtype, on the CPU, of the shape of the stored base.
    gain : float
        ``<O, D'> / <D', D'>`` of the written update O against the exact one D'.
    update_square, rounding_square, moved_square, base_square : float
        Sums of squares of D', of O - D', of O and of the base.
    unmoved : int
        Number of entries that are the base's.
    """

    tensor: torch.Tensor
    gain: float
    update_square: float
    rounding_square: float
    moved_square: float
    base_square: float
    unmoved: int


def add_rounded(
    stored: torch.Tensor,
    update: UpdateBlock,
    dtype: str,
    device: str,
    work: torch.dtype,
    name: str,
    largest: Callable[[], float],
    masked: bool = False,
) -> RoundedSum:
    """Return base + update, rounded once into `dtype`; `stored` is base, on the device.

    Works block of rows by block of rows, in order, so that no float32 copy of the result exists; sums and result stay
    on the device until the end.
    """
    out_dtype = getattr(torch, dtype)
    out = torch.empty(stored.shape, dtype=out_dtype, device=device)
    sums = torch.zeros(5, dtype=torch.float64, device=device)
    rows = stored.shape[0]
    step = max(1, block_elements(device, BLOCK_ELEMENTS) // max(1, stored[:1].numel()))
    for start in range(0, rows, step):
        block = slice(start, min(start + step, rows))
        origin = stored[block].to(work)
        change, result = update(block, origin)
        rounded = (origin + change if result is None else result).to(out_dtype)
        out[block] = rounded
        moved = rounded.to(work) - origin
        if masked:
            infinite = ~torch.isfinite(origin)
            moved, origin = moved.masked_fill(infinite, 0), origin.masked_fill(infinite, 0)
        sums += torch.stack(
            [  # one product at a time: several at once leave the cache
                sum_double(moved * change),
                sum_double(change * change),
                sum_double((moved - change).square_()),
                sum_double(origin * origin),
                sum_double(moved.sign().abs_()),
            ]
        )
    out = fetch(out)
    overlap, update_square, rounding_square, base_square, moved_count = sums.tolist()
    if not math.isfinite(rounding_square) and (lost := int((~torch.isfinite(out)).sum())):
        raise ExportError(overflow_message(name, lost, float(stored.abs().max()) + largest(), dtype))
    gain = overlap / update_square if update_square > 0 else 1.0
    moved_square = max(0.0, rounding_square + 2 * overlap - update_square)
    unmoved = stored.numel() - int(moved_count)
    return RoundedSum(out, gain, update_square, rounding_square, moved_square, base_square, unmoved)


def cast(tensor: torch.Tensor, dtype: str, name: str) -> torch.Tensor:
    """Return a tensor in another dtype."""
    changed = tensor.to(getattr(torch, dtype))
    if changed.is_floating_point() and tensor.dtype != changed.dtype:
        lost = int((torch.isfinite(tensor) & ~torch.isfinite(changed)).sum())
        if lost:
            raise ExportError(overflow_message(name, lost, float(tensor.abs().nan_to_num(0, 0).max()), dtype))
    return changed


def overflow_message(name: str, count: int, largest: float, dtype: str) -> str:
    """Return the sentence about values that a dtype cannot hold."""
    limit = torch.finfo(getattr(torch, dtype)).max
    return (
        f"{name}: {count} values do not fit {dtype} (largest {largest:.3g}, limit {limit:.3g}); "
        "choose --dtype float32 or bfloat16"
    )
