"""Tensors worked on ahead of whoever asks for them in order, wherever that is done.

On a GPU those of one shape that come next go together: experts stored one by one are many and small, and a GPU that
is given one at a time waits most of the time. While it computes, the processor hashes what comes after:
one process does; several hash for themselves.
"""

import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from dgviz.checkpoint import PairedTensor, TensorInfo, content_hash
from dgviz.checkpoint.read import expect
from dgviz.device import is_gpu
from dgviz.errors import CheckpointError
from dgviz.jobs.executor import Executor, Task
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.schedule import batch_size, estimate_bytes, memory_budget
from dgviz.spectra.weight import Weight, matrices_of

_ALIKE = 256  # tensors looked at: of a layer's experts every third has the same shape
_ENTRIES_BYTES = 2**25  # what going through entries block by block needs at most


class Ahead:
    """What a task makes of tensors that are asked for in order; some may be passed over.

    Parameters
    ----------
    executor : Executor
        Where the task is carried out.
    task : callable
        Given a device and tensors, it returns a result for each.
    tensors : sequence of PairedTensor
        In the order in which they are asked for.
    plans : sequence of RepairPlan
        Under which: by them memory is estimated.
    """

    def __init__(
        self, executor: Executor, task: Task, tensors: Sequence[PairedTensor], plans: Sequence[RepairPlan]
    ) -> None:
        self._executor, self._task, self._tensors, self._plans = executor, task, tensors, plans
        self._places = {paired.name: place for place, paired in enumerate(tensors)}
        self._asked = self._next = 0  # tensors that have been asked for, or passed over; and those submitted
        self._found: dict[str, tuple[Future, int]] = {}
        self._held: dict[Future, int] = {}  # bytes of what is worked on or waits
        self._hashing: dict[str, threading.Thread] = {}
        # On a cluster small results wait, and it knows itself what its nodes have room for.
        self._budget = math.inf if executor.spread else memory_budget(executor.count)

    def __call__(self, paired: PairedTensor) -> Any:
        """Return the result for a tensor."""
        place = self._places[paired.name]
        for passed in self._tensors[self._asked : place]:
            self._found.pop(passed.name, None)
            self._hashing.pop(passed.name, None)
        self._asked, self._next = max(self._asked, place + 1), max(self._next, place + 1)
        waiting = {future for future, _ in self._found.values()}
        self._held = {future: memory for future, memory in self._held.items() if future in waiting}
        if paired.name not in self._found:
            self._submit(place)
        future, number = self._found.pop(paired.name)
        self._submit_more()
        return future.result()[number]

    def _submit_more(self) -> None:
        """Submit the tensors that come next while there is room for them."""
        while self._next < len(self._tensors) and len(self._held) < self._executor.ahead:
            tensor = self._tensors[self._next]
            if tensor.name not in self._found:
                if sum(self._held.values()) + self._memory(tensor) > self._budget:
                    return
                self._submit(self._next)
            self._next += 1

    def _submit(self, place: int) -> None:
        """Submit a tensor, and those that are to be worked on with it; have the next ones read meanwhile."""
        tensors = self._together(place)
        for tensor in tensors:
            if (thread := self._hashing.pop(tensor.name, None)) is not None:
                thread.join()  # or it would be hashed twice
        memory = sum(map(self._memory, tensors))
        future = self._executor.submit(self._task, tensors, memory=memory)
        self._held[future] = memory
        self._found |= {tensor.name: (future, number) for number, tensor in enumerate(tensors)}
        if self._executor.spread:
            return
        if is_gpu(self._executor.device) and self._executor.count == 1:
            self._hash_after(place, len(tensors))
            return
        for tensor in self._tensors[place + self._executor.count : place + self._executor.count + 1]:
            for side in filter(None, (tensor.base, tensor.tuned)):
                expect(side)

    def _hash_after(self, place: int, count: int) -> None:
        """Have as many tensors read and hashed as are submitted at once, of those that come next."""
        known = self._found.keys() | self._hashing.keys()
        new = [tensor for tensor in self._tensors[place + 1 : place + 1 + _ALIKE] if tensor.name not in known][:count]
        if new:
            sides = [side for tensor in new for side in self._sides(tensor)]
            thread = threading.Thread(target=_hash, args=(sides,), name="dgviz-hash-ahead", daemon=True)
            self._hashing |= dict.fromkeys((tensor.name for tensor in new), thread)
            thread.start()

    def _sides(self, tensor: PairedTensor) -> list[TensorInfo]:
        """Return what of a tensor is asked for its hash: what decides it, and the matrices of a stack."""
        weights = matrices_of(tensor) if decomposed(tensor, self._plans) else []
        deciding = {side: info for plan in self._plans for side, info in plan.inputs(tensor).items()}
        sides = [*deciding.values(), *(side for own in weights for side in (own.base, own.tuned))]
        return [side for side in sides if side is not None]

    def _together(self, place: int) -> list[PairedTensor]:
        """Return a tensor and the next ones of its shape that a GPU decomposes with it."""
        tensor = self._tensors[place]
        weight = self._matrix(tensor) if is_gpu(self._executor.device) else None
        if weight is None:
            return [tensor]
        kind = weight.shape, weight.is_double
        alike = [
            other
            for other in self._tensors[place : place + _ALIKE]
            if other.name not in self._found
            and (own := self._matrix(other)) is not None
            and (own.shape, own.is_double) == kind
        ]
        return alike[: batch_size(weight, self._executor.device)]

    def _matrix(self, tensor: PairedTensor) -> Weight | None:
        """Return the one matrix of a tensor where a plan decomposes it."""
        weights = matrices_of(tensor)
        return weights[0] if len(weights) == 1 and decomposed(tensor, self._plans) else None

    def _memory(self, tensor: PairedTensor) -> int:
        return tensor_bytes(tensor, self._plans)


def _hash(sides: Sequence[TensorInfo]) -> None:
    """Hash tensors: who asks for it next reads a sample only."""
    for side in sides:
        with suppress(CheckpointError):  # it is said when it is used
            content_hash(side)


def tensor_bytes(tensor: PairedTensor, plans: Sequence[RepairPlan]) -> int:
    """Return the most bytes that a tensor needs at once under some plans, estimated."""
    sides = [side.nbytes for side in (tensor.base, tensor.tuned) if side is not None]
    memory = sum(sides) + 2 * len(plans) * sides[-1]  # of a stack the matrices, then the whole
    if not any(plan.changes(tensor) for plan in plans):
        return memory
    if not decomposed(tensor, plans):
        return memory + _ENTRIES_BYTES
    weight = matrices_of(tensor)[0]
    return memory + estimate_bytes(weight.shape, max(sides) / weight.parameters, weight.is_double)


def decomposed(tensor: PairedTensor, plans: Sequence[RepairPlan]) -> bool:
    """Return whether one of the plans decomposes the matrices of a tensor."""
    own = (each for plan in plans if plan.changes(tensor) for each in plan.each(tensor))
    return tensor.layout is not None and any(plan.recipe.by_matrix and not plan.keep for plan in own)
