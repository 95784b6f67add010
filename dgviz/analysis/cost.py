"""What inspecting, scanning and repairing a pair will take, foretold from its headers: time, memory, bytes.

The time of one matrix is a sum of four parts, measured on one core of the reference machine (2026-11-28, x86_64, 65
GFLOP/s in a float32 product): a start, passes over the N x p entries, products (N p^2 / 2) and the eigenvalues of a
p x p matrix. How fast the machine at hand is beside that one is measured by decomposing one matrix. An H100 is on
paper only: its numbers are of data sheets, and nothing here was run on one.
"""

import dataclasses
import heapq
import time
from dataclasses import dataclass
from functools import cached_property

from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.descent import bytes_sampled
from dgviz.checkpoint.remote.record import is_remote
from dgviz.checkpoint.remote.transfer import KEPT_BYTES
from dgviz.spectra.schedule import count_cores, plan_tasks
from dgviz.spectra.weight import Weight

_REFERENCE_SECONDS = 0.15
"""What the probe takes on the reference machine, on one thread."""


@dataclass(frozen=True)
class Processor:
    """How long one processor takes, in seconds: a core, or a GPU with the core that feeds it.

    Attributes
    ----------
    title : str
        What it is.
    scan_begin, repair_begin : float
        Of a command before its first matrix: interpreters and torch.
    start : float
        Of every matrix.
    entry : float
        Of every entry of a matrix, in a scan: read, hash, widen, subtract, describe.
    product : float
        Of every entry and singular value.
    cube : float
        Of the cube of the number of singular values.
    repair : float
        Of every matrix repaired, beside its entries.
    written : float
        Of every entry repaired: sum, rounding, hashing, writing, reading back.
    """

    title: str
    scan_begin: float
    repair_begin: float
    start: float
    entry: float
    product: float
    cube: float
    repair: float
    written: float

    def scan(self, weight: Weight) -> float:
        """Return the seconds that one matrix takes in a scan."""
        entries, depth = weight.parameters, min(weight.shape)
        return self.start + entries * (self.entry + self.product * depth) + self.cube * depth**3

    def slower(self, factor: float) -> "Processor":
        """Return one that takes so many times as long."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Processor(**{name: value if name == "title" else factor * value for name, value in parts.items()})


PROCESSORS = {
    "cpu": Processor("CPU core", 3.5, 2.1, 0.017, 1.45e-7, 1.5e-11, 9.05e-11, 0.011, 9.5e-8),
    # On paper: 40 TFLOP/s of float32 in products, 1.7 TB/s of memory, float64 eigenvalues at 300 GFLOP/s; reading and
    # SHA-256 of both sides at 1.5 GB/s on the core beside it bound the entries.
    "h100": Processor("H100, on paper", 3.5, 2.1, 0.02, 3e-9, 7e-14, 5e-12, 0.011, 4e-9),
}
_REPAIR_SHARE = 0.75  # of a scan's work on a matrix, where a repair finds no spectrum stored
# Bytes: of the process that leads, of one that works, and of its work by the entries of the largest matrix.
_LEADER, _WORKER, _PER_ENTRY = 40 * 2**20, 180 * 2**20, 9.6
_FACTOR_SHARE, _FACTOR_BYTES, _ROW_BYTES = 0.2, 64 * 2**20, 4096


@dataclass(frozen=True)
class Stage:
    """One command and what it takes.

    Attributes
    ----------
    name : str
        The command.
    seconds : float
        From its start to its end.
    core_seconds : float
        Of all processors together.
    memory : int
        Bytes that its processes hold together at most, on one machine.
    read : int
        Bytes read of the pair.
    written : int
        Bytes written at most.
    """

    name: str
    seconds: float
    core_seconds: float
    memory: int
    read: int
    written: int


@dataclass(frozen=True)
class CostPlan:
    """A pair, and who works on it.

    Attributes
    ----------
    pair : CheckpointPair
        By its headers.
    processor : Processor
        What one worker works on.
    workers : int
        On each machine.
    machines : int
        Alike, with one store; each scans its part.
    line : float
        Bytes a second that come from where the pair lies, to each machine.
    """

    pair: CheckpointPair
    processor: Processor
    workers: int
    machines: int
    line: float

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """What each command takes: a look, a scan, and a repair after the scan or without."""
        pair = self.pair
        tasks = plan_tasks(pair)
        times = [self.processor.scan(task.weight) for task in tasks]
        afar = any(is_remote(side.path) for side in (pair.base, pair.tuned))
        sample = bytes_sampled(pair, afar)
        stored = sum(task.stored * (1 + (afar and task.stored > KEPT_BYTES)) for task in tasks)
        kept = sum(row.tuned.nbytes for row in pair.tensors if row.action == "keep")
        output = sum(row.tuned.nbytes for row in pair.tensors if row.tuned is not None)
        largest = max((task.weight.parameters for task in tasks), default=0)
        memory = self.workers * (_WORKER + int(_PER_ENTRY * largest))
        factors = sum(min(_FACTOR_BYTES, int(_FACTOR_SHARE * task.weight.tuned.nbytes)) for task in tasks)
        values = sum(_ROW_BYTES + 8 * min(task.weight.shape) for task in tasks)
        rewritten = [self.processor.repair + self.processor.written * task.weight.parameters for task in tasks]
        cold = [_REPAIR_SHARE * one + other for one, other in zip(times, rewritten, strict=True)]
        scan, repair = self.processor.scan_begin, self.processor.repair_begin
        return (
            Stage("inspect", 2.0 + sample / self.line, 1.0, _LEADER, sample, 0),
            self._stage("scan", times, scan, _LEADER + memory, sample + stored, factors + values),
            self._stage("repair after it", rewritten, repair, memory, sample + stored + kept, output),
            self._stage("repair alone", cold, repair, memory, sample + stored + kept, output),
        )

    def _stage(self, name: str, times: list[float], start: float, memory: int, read: int, written: int) -> Stage:
        """Return a stage of many matrices, the largest first, each to whoever is free."""
        free = [0.0] * (self.workers * self.machines)
        for seconds in sorted(times, reverse=True):
            heapq.heapreplace(free, free[0] + seconds)
        line = (read + written) / self.line / self.machines
        return Stage(name, start + max(*free, line), start + sum(times), memory, read, written)


def plan_costs(
    pair: CheckpointPair, device: str = "cpu", workers: int | None = None, machines: int = 1, line: float = 1e9
) -> CostPlan:
    """Return what a pair will take here, or on a processor of another kind; that of this machine is measured."""
    processor = PROCESSORS[device]
    if device == "cpu":
        processor = processor.slower(measure_slowness())
    return CostPlan(pair, processor, workers or (count_cores() if device == "cpu" else 1), machines, line)


def measure_slowness() -> float:
    """Return how many times as long as the reference machine one core here takes for one matrix."""
    import torch

    from dgviz.spectra.svd.decompose import decompose

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        delta = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
        took = []
        for _ in range(4):  # the first one also loads what torch loads late
            started = time.thread_time()
            decompose(delta.clone(), "cpu")
            took.append(time.thread_time() - started)
    finally:
        torch.set_num_threads(threads)
    return min(took) / _REFERENCE_SECONDS
