"""How coarsely a weight is stored: the step between neighbouring numbers of its format, entry by entry.

Fine-tuning computes in float32 and stores in bfloat16 or float16; each entry is then rounded to a multiple of its own
step, and the update holds that rounding error beside what was learned. `rounding_noise` tells how much
of an update's bulk it is.
"""

from collections import Counter
from dataclasses import dataclass

import torch

from dgviz.device import block_elements, count_below, is_gpu
from dgviz.spectra.moments import NonzeroBlock, spread, variation

_FORMATS = {"bfloat16": (7, -126), "float16": (10, -14)}
"""Fraction bits, and the exponent of the smallest normal number, below which the step stays the same."""

_FLOAT32_BIAS, _EXPONENTS, _EXPONENT_BITS = 127, 256, 0x7F800000
_BLOCK = 2**18  # entries at once on a CPU
_NEGLIGIBLE = 1e-9  # of the sum of squared steps: entries near zero have steps of no account


@dataclass(frozen=True)
class Steps:
    """The steps of the side of a pair that is stored more coarsely, in the nonzero block of the update.

    The step of a number x of ``2^e <= |x| < 2^(e + 1)`` is ``2^(e - 7)`` in bfloat16, ``2^(e - 10)`` in float16.

    Attributes
    ----------
    format : str
        ``"bfloat16"`` or ``"float16"``: what every value fits, whatever the file's own dtype is.
    side : str
        ``"tuned"``, or ``"base"`` where tuned is stored more finely.
    stored : str
        The dtype of tuned in its file, which a repair writes unless told otherwise.
    on_grid : bool
        Whether every number of base is one of that format too, as where fine-tuning started from it.
    classes : tuple of (int, int)
        Every size of step, as its power of two, with the number of entries that have it.
    row_variance_cv, column_variance_cv : float
        Standard deviation over mean of the rows' mean squared steps; of the columns'.
    """

    format: str
    side: str
    stored: str
    on_grid: bool
    classes: tuple[tuple[int, int], ...]
    row_variance_cv: float
    column_variance_cv: float


def measure_steps(base: torch.Tensor, tuned: torch.Tensor, nonzero: NonzeroBlock) -> Steps | None:
    """Return the steps of a pair's coarser side, None where both are float32 or finer and use it."""
    own, origin = _format_of(tuned), _format_of(base)
    if nonzero.shape[0] == 0 or own is origin is None:
        return None
    side, kind = ("tuned", own) if own is not None else ("base", origin)
    values = tuned if side == "tuned" else base
    sums = _class_sums(values, nonzero, kind)
    on_grid = side == "tuned" and (origin == own or _fits(base, getattr(torch, kind)))
    dtype = str(tuned.dtype).removeprefix("torch.")
    return Steps(kind, side, dtype, on_grid, *sums)


def _format_of(values: torch.Tensor) -> str | None:
    """Return the 16-bit format that holds every value, None where there is none."""
    if values.dtype in (torch.bfloat16, torch.float16):
        return str(values.dtype).removeprefix("torch.")
    return next((name for name in _FORMATS if _fits(values, getattr(torch, name))), None)


def _fits(values: torch.Tensor, dtype: torch.dtype) -> bool:
    """Return whether every value is a number of a dtype; a file of float32 may hold nothing finer than bfloat16."""
    flat = values.reshape(-1)
    if is_gpu(flat.device):
        blocks = flat.split(block_elements(flat.device, _BLOCK))
        return bool(torch.stack([(block.to(dtype).to(block.dtype) == block).all() for block in blocks]).all())
    return all(torch.equal(block.to(dtype).to(block.dtype), block) for block in flat.split(_BLOCK))


def _class_sums(
    values: torch.Tensor, nonzero: NonzeroBlock, kind: str
) -> tuple[tuple[tuple[int, int], ...], float, float]:
    """Return the classes of `Steps` and the two figures of its evenness, from one pass."""
    bits, smallest = _FORMATS[kind]
    rows, columns = nonzero.shape
    device = values.device
    powers = torch.arange(_EXPONENTS, device=device).sub_(_FLOAT32_BIAS).clamp_min_(smallest).sub_(bits)
    squares = torch.exp2(2.0 * powers.double())
    counts = torch.zeros(_EXPONENTS, dtype=torch.int64, device=device)
    by_row = torch.empty(rows, dtype=torch.float64, device=device)
    by_column = torch.zeros(columns, dtype=torch.float64, device=device)
    for block in nonzero.blocks(block_elements(device, _BLOCK)):
        fields = nonzero.take(values, block).float().view(torch.int32).bitwise_and(_EXPONENT_BITS)
        fields.masked_fill_(fields == _EXPONENT_BITS, 0)  # an infinity, which did not move
        counts += count_below(fields.bitwise_right_shift(23), _EXPONENTS)
        # Without its fraction a number is as many steps large as any other: in proportion to its step.
        own = fields.view(torch.float32).double().clamp_min_(2.0**smallest).square_()
        by_row[block] = own.mean(dim=1)
        by_column += own.sum(dim=0)
    shares = counts * squares
    spreads = torch.cat([spread(by_row), spread(by_column), shares.sum()[None]])
    found = torch.cat([torch.stack([powers.double(), counts.double(), shares]).flatten(), spreads])
    *found, row_mean, row_std, column_mean, column_std, total = found.tolist()  # a GPU is waited for once
    classes: Counter[int] = Counter()
    for place in range(_EXPONENTS):
        power, count, share = found[place::_EXPONENTS]
        if share > _NEGLIGIBLE * total:
            classes[int(power)] += int(count)
    uneven = variation(row_mean, row_std) or 0.0, variation(column_mean, column_std) or 0.0
    return tuple(sorted(classes.items())), *uneven
