"""tuned - base of one weight, as a matrix on the computing device."""

import math

import torch

from dgviz.checkpoint import read_tensor
from dgviz.checkpoint.lora.tensor import LoraTensor
from dgviz.spectra.weight import Weight

BLOCK_ELEMENTS = 2**20


def compute_delta(weight: Weight, device: str, block: int = BLOCK_ELEMENTS) -> torch.Tensor:
    """Return ``tuned - base`` of one weight, subtracted in float32, or float64 where either side is float64.

    Both sides travel to the device as stored and are widened there, so that a bfloat16 pair sends half the bytes.
    Peak memory for N elements: the result (4N or 8N bytes) and one side as stored; tuned is released before base is
    read, and base is widened by blocks of rows. Equal entries differ by zero, infinities (of a mask, say) too; other
    non-finite values pass through: `decompose` names them.

    The update of a LoRA adapter is not subtracted but multiplied out from its factors: it has exactly their rank.
    """
    base, tuned, shape = weight.base, weight.tuned, weight.shape
    if isinstance(tuned, LoraTensor) and tuned.parts[0] == base:
        return tuned.compute_update(device).reshape(shape)
    dtype = torch.float64 if weight.is_double else torch.float32
    # The buffer just read belongs to nobody else, so where nothing has to be widened it becomes the result.
    delta = read_tensor(tuned).reshape(shape).to(device).to(dtype)
    other = read_tensor(base).reshape(shape).to(device)
    if other.dtype == dtype:
        delta.sub_(other)
    else:
        # One block of scratch, allocated once: a fresh one per block leaves up to twice as much behind in the heap.
        step = min(shape[0], max(1, block // shape[1]))
        scratch = torch.empty((step, shape[1]), dtype=dtype, device=other.device)
        for start in range(0, shape[0], step):
            rows = other[start : start + step]
            delta[start : start + step].sub_(scratch[: len(rows)].copy_(rows))
    del other
    return delta if math.isfinite(float(delta.sum())) else _zero_where_equal(delta, weight)


def _zero_where_equal(delta: torch.Tensor, weight: Weight) -> torch.Tensor:
    """Return the delta with zeros where both sides are the same; everywhere if they are, bit for bit."""
    base, tuned = (read_tensor(side).reshape(weight.shape) for side in (weight.base, weight.tuned))
    if base.dtype == tuned.dtype and torch.equal(base.view(torch.uint8), tuned.view(torch.uint8)):
        return delta.zero_()
    return delta.masked_fill_((base == tuned).to(delta.device), 0.0)


def difference(after: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Return ``after - before``, where equal entries differ by zero, infinities too."""
    return torch.where(after == before, 0.0, after - before)
