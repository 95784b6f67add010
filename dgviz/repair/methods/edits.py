"""Methods that change an update entry by entry: read both sides, decide, go through the tensor in blocks.

Entries are numbered as they are stored, so that what is drawn or trimmed depends on no device, shard or order.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from dgviz.checkpoint import PairedTensor, read_tensor
from dgviz.checkpoint.derived import pick_rows
from dgviz.checkpoint.lora.tensor import LoraTensor
from dgviz.command import option
from dgviz.errors import MethodError
from dgviz.repair.methods.trim import find_cut, magnitude_keys, score_keys
from dgviz.repair.plan import RepairPlan
from dgviz.repair.rounding import BLOCK_ELEMENTS, RoundedSum, add_rounded


@dataclass(frozen=True)
class Trim:
    """Which entries a trim leaves: those with a larger key, and the first so many of those with an equal one."""

    key: int
    equal: float


ALL = Trim(-1, 0)


class TensorUpdate:
    """Both sides of one tensor as stored, and blocks of its update."""

    def __init__(self, paired: PairedTensor, device: str) -> None:
        base, tuned = paired.base, paired.tuned
        tuned = tuned if paired.rows is None else pick_rows(tuned, paired.rows)
        self.name, self.device = paired.name, device
        self.work = torch.float64 if "float64" in (base.dtype, tuned.dtype) else torch.float32
        self.base, self.tuned = (read_tensor(info).reshape(-1) for info in (base, tuned))
        self._known = None
        if isinstance(tuned, LoraTensor) and tuned.parts[0] == base:
            self._known = tuned.compute_update(device).reshape(-1)

    @property
    def numel(self) -> int:
        """Number of entries."""
        return self.base.numel()

    def delta(self, block: slice, base: torch.Tensor) -> torch.Tensor:
        """Return tuned - base of some entries; equal values differ by zero, infinities too."""
        if self._known is not None:
            return self._known[block].to(self.work)
        tuned = self.wide(self.tuned, block)
        delta = tuned - base
        if not bool(torch.isfinite(delta).all()):
            delta = torch.where(tuned == base, 0.0, delta)
            if not bool(torch.isfinite(delta).all()):
                raise MethodError(
                    f"{self.name}: the update holds a value that is not finite; keep tuned's tensor by "
                    + option("--exclude", f"^{re.escape(self.name)}$")
                )
        return delta

    def wide(self, side: torch.Tensor, block: slice) -> torch.Tensor:
        """Return some entries of a side on the device, in the working dtype."""
        return side[block].to(self.device).to(self.work)

    def blocks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (base, delta) of every block, in order."""
        for start in range(0, self.numel, BLOCK_ELEMENTS):
            block = slice(start, min(start + BLOCK_ELEMENTS, self.numel))
            base = self.wide(self.base, block)
            yield base, self.delta(block, base)

    def magnitudes(self) -> Iterator[torch.Tensor]:
        """Yield the keys of |delta|, block by block."""
        for _, delta in self.blocks():
            yield magnitude_keys(delta)


def published_cut(total: int, density: float) -> int | None:
    """Return the place, counted from 1 in ascending order, of the smallest magnitude that TIES keeps; None: keep all.

    The released code keeps everything not below the (n - int(density n))-th smallest: one entry more than it says.
    """
    return None if density == 1 else total - int(total * density)


def edit_tensor(
    update: TensorUpdate, plan: RepairPlan, dtype: str, trim: Trim | None = None, factor: float | None = None
) -> tuple[RoundedSum, float]:
    """Return one tensor as a method that works on entries leaves it, flat, and the square of the update's length.

    An entry whose update stays as it was gets tuned's own value, bit for bit.
    """
    edit = _edit(update, plan, trim, factor)
    square = torch.zeros((), dtype=torch.float64, device=update.device)

    def change(block: slice, base: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the edited update of a block, and its result."""
        nonlocal square
        delta = update.delta(block, base)
        square = square + (delta * delta).sum(dtype=torch.float64)
        edited = edit(base, delta)
        finite = torch.where(edited == 0, base, base + edited)  # base may be infinite where nothing was trained
        return edited, torch.where(edited == delta, update.wide(update.tuned, block), finite)

    def largest() -> float:
        """Return a bound of the edited entries."""
        most = max((float(delta.abs().max()) for _, delta in update.blocks()), default=0.0)
        return most * max(1.0, *(abs(value) for value in (factor or 1.0, *_factors(plan))))

    masked = not bool(torch.isfinite(update.base).all())
    summed = add_rounded(update.base, change, dtype, update.device, update.work, update.name, largest, masked)
    return summed, float(square)


def edited_update(update: TensorUpdate, plan: RepairPlan, trim: Trim | None = None) -> torch.Tensor:
    """Return what a method that works on entries makes of the update of one tensor, flat and not rounded."""
    edit = _edit(update, plan, trim, None)
    return torch.cat([edit(base, delta) for base, delta in update.blocks()])


def _factors(plan: RepairPlan) -> list[float]:
    """Return what a method may multiply entries by."""
    params = plan.method_params
    return [params.get("scale", 1.0), 1 / (1 - params.get("p", 0.0))]


def _edit(
    update: TensorUpdate, plan: RepairPlan, trim: Trim | None, factor: float | None
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the function of base and delta that a method is, for blocks in order."""
    params = plan.method_params
    if factor is not None:
        return lambda base, delta: delta if factor == 1 else delta * factor
    if plan.method == "dare":
        return _Drop(update.name, params["p"], int(params["seed"]))
    if plan.method == "fapm":
        return _forgetting_trim(update, params["density"])
    if plan.method == "magnitude":
        trim = _magnitude_trim(update, params["density"])
    elif plan.method == "ties_per_tensor":
        trim = _largest(update.magnitudes, update.numel, params["density"], least=1)
    elif plan.method != "ties" or trim is None:
        raise MethodError(f"{plan.method} takes its cut from the whole model, which has not been looked at")
    return _Trimmed(trim, lambda base, delta: magnitude_keys(delta), params.get("scale", 1.0))


class _Trimmed:
    """A trim at work: it counts the entries that equal the cut, block after block."""

    def __init__(
        self, trim: Trim, keys: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], scale: float = 1.0
    ) -> None:
        self._trim, self._keys, self._scale = trim, keys, scale
        self._left = trim.equal

    def __call__(self, base: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """Return the trimmed delta."""
        keys = self._keys(base, delta)
        kept = keys > self._trim.key
        if self._left > 0:
            equal = keys == self._trim.key
            if math.isfinite(self._left):
                equal &= equal.cumsum(0) <= self._left
                self._left -= int(equal.sum())
            kept |= equal
        return torch.where(kept, delta if self._scale == 1 else delta * self._scale, 0.0)


class _Drop:
    """DARE's mask: 32 random bits for every entry, from a stream that the seed and the tensor's name begin."""

    def __init__(self, name: str, p: float, seed: int) -> None:
        key = hashlib.sha256(f"{seed}\n{name}".encode()).digest()
        self._bits = np.random.Philox(key=int.from_bytes(key[:16], "little"))
        self._limit = round((1 - p) * 2**32)
        self._keep = 1 - p

    def __call__(self, base: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """Return the masked and rescaled delta. Blocks but the last are even, so that the stream never shifts."""
        drawn = self._bits.random_raw((delta.numel() + 1) // 2).view(np.uint32)[: delta.numel()]
        kept = torch.from_numpy(drawn.astype(np.int64)).to(delta.device) < self._limit
        return torch.where(kept, delta if self._keep == 1 else delta / self._keep, 0.0)


def _magnitude_trim(update: TensorUpdate, density: float) -> Trim:
    """Return MergeLM's cut: everything up to the smallest floor((1 - density) n) goes, and what equals the last."""
    gone = math.floor(round(update.numel * (1 - density), 6))  # 10 (1 - 0.9) is one entry, not none
    return Trim(find_cut(update.magnitudes, gone).key, 0) if gone else ALL


def _largest(keys: Callable[[], Iterator[torch.Tensor]], total: int, density: float, least: int = 0) -> Trim:
    """Return the cut that leaves exactly the floor(density n) largest, or `least`; of equal ones the first."""
    count = max(least, int(total * density)) if density > 0 else 0
    if count == total:
        return ALL
    if count == 0:
        return Trim(2**32, 0)
    cut = find_cut(keys, total - count + 1)
    return Trim(cut.key, count - cut.above)


def _forgetting_trim(update: TensorUpdate, density: float) -> _Trimmed:
    """Return FAPM's trim.

    The penalty of an entry is ``mean|W0| |D| / |W0|``. Where the whole base is zero there is nothing to forget and no
    penalty; where one entry of it is, changing that entry is the worst there is, and leaving it costs nothing.
    """
    total = sum(float(base.abs().sum(dtype=torch.float64)) for base, _ in update.blocks())
    mean = total / max(1, update.numel)

    def keys(base: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """Return the keys of the scores."""
        size = delta.abs()
        if mean == 0 or not math.isfinite(mean):
            return score_keys(size)
        penalty = torch.where(size == 0, 0.0, mean * (size / base.abs()))
        return score_keys(size - penalty)

    blocks = lambda: (keys(base, delta) for base, delta in update.blocks())  # noqa: E731
    return _Trimmed(_largest(blocks, update.numel, density), keys)
