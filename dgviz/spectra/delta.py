"""Both sides of one weight and tuned - base, as matrices on the computing device."""

import math
from collections.abc import Sequence

import torch

from dgviz.checkpoint import TensorInfo, read_tensor
from dgviz.checkpoint.lora.tensor import LoraTensor
from dgviz.device import is_gpu
from dgviz.spectra.weight import Weight

BLOCK_ELEMENTS = 2**20


class Sides:
    """Base and tuned of one weight as stored: on a GPU sent once and kept, on the CPU read whenever asked for."""

    def __init__(self, weight: Weight, device: str) -> None:
        self._weight, self._device = weight, device
        self._kept: dict[TensorInfo, torch.Tensor] = {}

    def base(self) -> torch.Tensor:
        """Return the entries before fine-tuning."""
        return self._side(self._weight.base)

    def tuned(self) -> torch.Tensor:
        """Return the entries after fine-tuning."""
        return self._side(self._weight.tuned)

    def forget(self) -> None:
        """Make room on the device."""
        self._kept.clear()

    def _side(self, info: TensorInfo) -> torch.Tensor:
        if info in self._kept:
            return self._kept[info]
        side = read_tensor(info, device=self._device).reshape(self._weight.shape)
        if is_gpu(self._device):
            self._kept[info] = side
        return side


def compute_delta(
    weight: Weight, device: str, block: int = BLOCK_ELEMENTS, sides: Sides | None = None
) -> torch.Tensor:
    """Return ``tuned - base`` of one weight, subtracted in float32, or float64 where either side is float64.

    Both sides travel to the device as stored and are widened there, so that a bfloat16 pair sends half the bytes.
    Peak memory for N elements: the result (4N or 8N bytes) and one side as stored; tuned is released before base is
    read, and base is widened by blocks of rows. Equal entries differ by zero, infinities (of a mask, say) too; other
    non-finite values pass through: `decompose` names them.

    The update of a LoRA adapter is not subtracted but multiplied out from its factors: it has exactly their rank.
    """
    (delta,) = compute_deltas([weight], device, [sides or Sides(weight, device)], block)
    return delta


def compute_deltas(
    weights: Sequence[Weight], device: str, sides: Sequence[Sides], block: int = BLOCK_ELEMENTS
) -> list[torch.Tensor]:
    """Return `compute_delta` of several weights; a GPU is waited for once."""
    deltas = [_subtract(weight, device, own, block) for weight, own in zip(weights, sides, strict=True)]
    sums = torch.stack([delta.sum().double() for delta in deltas]).tolist()
    for at, (weight, total) in enumerate(zip(weights, sums, strict=True)):
        if not math.isfinite(total) and not is_factored(weight):
            deltas[at] = _zero_where_equal(deltas[at], weight)
    return deltas


def is_finite(values: torch.Tensor) -> bool:
    """Return whether all entries are finite: a sum tells it in a fifth of the time that a look at each takes."""
    total = values.sum(dtype=torch.float64 if values.dtype == torch.float64 else torch.float32)
    return math.isfinite(float(total)) or bool(torch.isfinite(values).all())


def is_factored(weight: Weight) -> bool:
    """Return whether the update is multiplied out from an adapter's factors, and tuned stored nowhere."""
    return isinstance(weight.tuned, LoraTensor) and weight.tuned.parts[0] == weight.base


def _subtract(weight: Weight, device: str, sides: Sides, block: int) -> torch.Tensor:
    """Return tuned - base, NaN where both are the same infinity."""
    base, tuned, shape = weight.base, weight.tuned, weight.shape
    if is_factored(weight):
        return tuned.compute_update(device).reshape(shape)
    dtype = torch.float64 if weight.is_double else torch.float32
    if is_gpu(device):
        return sides.tuned().to(dtype, copy=True).sub_(sides.base())
    # The buffer just read belongs to nobody else, so where nothing has to be widened it becomes the result.
    delta = read_tensor(tuned).reshape(shape).to(dtype)
    other = read_tensor(base).reshape(shape)
    if other.dtype == dtype:
        delta.sub_(other)
    else:
        # One block of scratch, allocated once: a fresh one per block leaves up to twice as much behind in the heap.
        step = min(shape[0], max(1, block // shape[1]))
        scratch = torch.empty((step, shape[1]), dtype=dtype)
        for start in range(0, shape[0], step):
            rows = other[start : start + step]
            delta[start : start + step].sub_(scratch[: len(rows)].copy_(rows))
    return delta


def _zero_where_equal(delta: torch.Tensor, weight: Weight) -> torch.Tensor:
    """Return the delta with zeros where both sides are the same; everywhere if they are, bit for bit."""
    base, tuned = (read_tensor(side).reshape(weight.shape) for side in (weight.base, weight.tuned))
    if base.dtype == tuned.dtype and torch.equal(base.view(torch.uint8), tuned.view(torch.uint8)):
        return delta.zero_()
    return delta.masked_fill_((base == tuned).to(delta.device), 0.0)


def difference(after: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Return ``after - before``, where equal entries differ by zero, infinities too."""
    return torch.where(after == before, 0.0, after - before)
