"""Which matrix of a model is worked on when: the largest first, small ones beside it, no more than memory holds."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import psutil

from dgviz.checkpoint import CheckpointPair
from dgviz.device import is_gpu
from dgviz.spectra.weight import Weight, weights_of

WORKER_BYTES = 300 * 2**20
"""Taken by a worker process that does nothing but import torch; 150 MiB measured on Linux, more with CUDA."""

_SHARE = 0.8  # of what is free now: other programs grow too, and the page cache is what makes reading fast
# Matrices worked on together on a GPU, and their entries: four of 4096 x 4096 keep one busy.
_TOGETHER, _TOGETHER_ELEMENTS = 32, 2**26
_BLOCK = 64 * 2**20  # the engine deflates and converts runs of rows of about this size


@dataclass(frozen=True, eq=False)
class Task:
    """One matrix to decompose.

    Attributes
    ----------
    weight : Weight
        Which.
    stored : int
        Bytes of both sides on disk.
    memory : int
        Most bytes it needs at once, estimated.
    work : float
        Time it takes, in arbitrary but equal units.
    """

    weight: Weight
    stored: int
    memory: int
    work: float


def plan_tasks(pair: CheckpointPair) -> list[Task]:
    """Return every matrix of a pair that a repair may change, the largest first."""
    tasks = []
    for weight in weights_of(pair):
        elements, depth = weight.parameters, min(weight.shape)
        sides = weight.base.nbytes, weight.tuned.nbytes
        memory = estimate_bytes(weight.shape, max(sides) / elements, weight.is_double)
        tasks.append(Task(weight, sum(sides), memory, work_of(elements, depth)))
    return sorted(tasks, key=lambda task: -task.memory)  # stable: equal ones stay in the order of names


def work_of(elements: int, depth: int) -> float:
    """Return the time that a matrix takes, in the units of `Task.work`; 8e9 are about a second of one core.

    Products cost p per element; reading, hashing and the passes over the entries about as much as 250 of those.
    """
    return float(elements) * (depth + 250)


def batch_size(weight: Weight, device: str) -> int:
    """Return how many matrices of a weight's shape to work on together: experts are small and many for a GPU."""
    return max(1, min(_TOGETHER, _TOGETHER_ELEMENTS // weight.parameters)) if is_gpu(device) else 1


def estimate_bytes(shape: tuple[int, int], side: float, double: bool) -> int:
    """Return the most bytes that delta, decomposition, moments and kept factors of one matrix need at once.

    Beside the delta of N x p entries (N >= p; 4 bytes each, 8 in float64) there live, one after the other:

    - both sides as stored, which a GPU keeps until their steps are counted; and products with a block of at most
      p / 16 directions, in float64, before and after a rotation: N p bytes; and a run of rows being converted;
    - in the engine's last resort ten p x p matrices of float64 (triangular factor, singular vectors, workspace of
      LAPACK's divide and conquer; measured at p = 3072) and a run of rows; a Gram matrix takes less;
    - four copies of the factors that are stored, and three p x p matrices.

    The last resort is rare, but a model that needs it for one weight may need it for all: it counts. Elsewhere the
    estimate is two to six times what was measured.
    """
    elements, square = shape[0] * shape[1], 8 * min(shape) ** 2
    run = min(max(_BLOCK, square), 8 * elements)
    beside = (
        int(2 * elements * side) + elements + run,
        10 * square + run,
        4 * min(_BLOCK, 4 * elements) + 3 * square,
    )
    return elements * (8 if double else 4) + max(beside)


def count_cores() -> int:
    """Return how many cores this process may use; two threads of one core do not multiply matrices any faster."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def memory_budget(workers: int) -> int:
    """Return the bytes that tasks may use together on this machine, besides the worker processes themselves."""
    return max(0, int(_SHARE * psutil.virtual_memory().available) - workers * WORKER_BYTES)


@dataclass
class Admission:
    """Lets tasks begin while memory and threads last.

    A task that takes a share of the memory gets the same share of the threads, so that few large ones keep as many
    cores busy as many small ones; and when fewer tasks are left than threads, those that begin share them. When the
    largest one waiting does not fit, smaller ones may begin beside what runs, but only as long as they leave room for
    it: so it begins as soon as those that ran before it have ended, and is never starved. One that is larger than the
    whole budget runs alone.

    Attributes
    ----------
    memory : int
        Bytes for all tasks together.
    threads : int
        Threads for all tasks together.
    """

    memory: int
    threads: int
    _running: dict[Task, int] = field(default_factory=dict, init=False)  # and the threads each has
    _beside: set[Task] = field(default_factory=set, init=False)  # those that began while the head was waiting
    _head: Task | None = field(default=None, init=False)

    def threads_of(self, task: Task) -> int:
        """Return the threads of a running task."""
        return self._running[task]

    def admit(self, waiting: Sequence[Task], unread: int = 0) -> Task | None:
        """Return a task that may begin now and count it as running, or None."""
        free = self.threads - sum(self._running.values())
        if not waiting or free < 1:
            return None
        head = waiting[0]
        if head is not self._head:
            self._head = head
            self._beside.clear()
        if not self._running or self._fit(head, self._running):
            self._running[head] = max(self._share(head), free // (len(waiting) + unread))
            return head
        for task in waiting[1:]:
            if self._fit(task, self._running) and self._fit(task, {head, *self._beside}):
                self._running[task] = self._share(task)
                self._beside.add(task)
                return task
        return None

    def join(self, task: Task) -> bool:
        """Count a task as running on the threads of another where it fits in beside all others; return whether."""
        fits = task.memory + sum(other.memory for other in self._running) <= self.memory
        if fits:
            self._running[task] = 0
        return fits

    def release(self, task: Task) -> None:
        """Count a task as ended."""
        del self._running[task]
        self._beside.discard(task)

    def _share(self, task: Task) -> int:
        """Return the threads that a task's share of the memory entitles it to."""
        if task.memory >= self.memory:
            return self.threads
        return max(1, self.threads * task.memory // self.memory)

    def _fit(self, task: Task, others: Collection[Task]) -> bool:
        """Return whether a task fits in beside others."""
        memory = task.memory + sum(other.memory for other in others)
        threads = self._share(task) + sum(
            self._running[other] if other in self._running else self._share(other) for other in others
        )
        return memory <= self.memory and threads <= self.threads
