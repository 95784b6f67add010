"""What an export does with its tensors, wherever that is: hash their inputs, make them, report on them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dgviz.checkpoint import CheckpointPair, PairedTensor, TensorInfo
from dgviz.export.inputs import hash_inputs
from dgviz.export.plan import full_shards
from dgviz.jobs.executor import Executor
from dgviz.repair.ahead import Ahead, decomposed
from dgviz.repair.plan import RepairPlan
from dgviz.repair.report import TensorReport
from dgviz.repair.tensor import TensorRepairs, factor_tensor
from dgviz.repair.whole_model import Squares
from dgviz.spectra.open_weight import OpenWeight, open_together
from dgviz.spectra.schedule import count_cores
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import matrices_of

_LARGE = 2**28  # entries: a tensor of more keeps all cores busy for minutes, and would be waited for on one


@dataclass(frozen=True)
class MadeTensor:
    """One tensor of an output.

    Attributes
    ----------
    data : array or None
        Its bytes; None where `source` is copied.
    source : TensorInfo or None
        The stored tensor that it is a copy of.
    report : TensorReport
        What happened to it.
    inputs : dict of str to str
        Hashes of the sides that decided it.
    """

    data: np.ndarray | None
    source: TensorInfo | None
    report: TensorReport
    inputs: dict[str, str]


class MadeTensors:
    """One tensor under several plans, each made when it is asked for, in order.

    Attributes
    ----------
    squares : Squares
        What has been found out of the lengths of its matrices.
    """

    def __init__(self, repairs: TensorRepairs, settings: Sequence[tuple[RepairPlan, Any]], squares: Squares) -> None:
        self._repairs: TensorRepairs | None = repairs
        self._settings, self.squares = settings, squares

    def __getitem__(self, number: int) -> MadeTensor:
        """Return the tensor under one of the plans."""
        paired, (plan, _) = self._repairs.paired, self._settings[number]
        inputs = {} if paired.tuned is None else hash_inputs(paired, plan)
        done = self._repairs.repair(number)
        if number + 1 == len(self._settings):
            self._repairs = None  # with what it holds on a device
        data = None if done.tensor is None else _bytes(done.tensor)
        return MadeTensor(data, done.source, done.report, inputs)

    def all(self) -> "_AllMade":
        """Return the tensor under all plans, made now, where that is done."""
        made = [self[number] for number in range(len(self._settings))]
        return _AllMade(made, self.squares)


@dataclass(frozen=True)
class _AllMade:
    """`MadeTensors` of which nothing is left to do."""

    made: list[MadeTensor]
    squares: Squares

    def __getitem__(self, number: int) -> MadeTensor:
        return self.made[number]


def _bytes(tensor: torch.Tensor) -> np.ndarray:
    """Return the bytes of a tensor."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()


@dataclass(frozen=True, eq=False)
class MakeTensors:
    """Makes tensors under several plans.

    Attributes
    ----------
    settings : sequence of (RepairPlan, object)
        Plans, and what their methods take from the whole model.
    threads : int or None
        To compute on; None for as many as the process has.
    ahead : bool
        Whether tensors are made where the task is carried out, before anybody asks for them.
    root : Path
        Of the store of spectra.
    """

    settings: Sequence[tuple[RepairPlan, Any]]
    threads: int | None
    ahead: bool = False
    root: Path = field(default_factory=lambda: SpectrumStore().root)

    def __call__(self, device: str, tensors: Sequence[PairedTensor]) -> list[MadeTensors | _AllMade]:
        """Return the tensors; several are of one shape, and decomposed together."""
        made = []
        for paired, weight in zip(tensors, self._opened(device, tensors), strict=True):
            _use_threads(self.threads, paired)
            squares: Squares = {}
            store = SpectrumStore(self.root)
            repairs = TensorRepairs(paired, self.settings, device, store, squares, weight)
            tensor = MadeTensors(repairs, self.settings, squares)
            made.append(tensor.all() if self.ahead else tensor)
        return made

    def _opened(self, device: str, tensors: Sequence[PairedTensor]) -> Iterator[OpenWeight | None]:
        """Yield the matrix of each tensor at work; None where there is one tensor alone, which opens its own."""
        if len(tensors) == 1 or not decomposed(tensors[0], [plan for plan, _ in self.settings]):
            return iter([None] * len(tensors))
        weights = [matrices_of(paired)[0] for paired in tensors]
        return open_together(weights, device, SpectrumStore(self.root), len(weights))


@dataclass(frozen=True, eq=False)
class FactorTensors:
    """Makes the factors of repaired updates.

    Attributes
    ----------
    plan : RepairPlan
        How.
    threads, root
        As of `MakeTensors`.
    """

    plan: RepairPlan
    threads: int | None
    root: Path = field(default_factory=lambda: SpectrumStore().root)

    def __call__(self, device: str, tensors: Sequence[PairedTensor]) -> list[tuple[list, TensorReport, dict]]:
        """Return the factors of every matrix of each tensor, the report, and the hashes of what was read."""
        made = []
        for paired in tensors:
            _use_threads(self.threads, paired)
            hashes = hash_inputs(paired, self.plan)
            factors, report = factor_tensor(paired, self.plan, device, SpectrumStore(self.root))
            made.append(([pair and tuple(part.numpy() for part in pair) for pair in factors], report, hashes))
        return made


def made_ahead(
    pair: CheckpointPair,
    settings: Sequence[tuple[RepairPlan, Any]],
    executor: Executor,
    root: Path | None = None,
) -> Ahead:
    """Return what makes the tensors of a pair under several plans, in the order in which outputs hold them."""
    plans = [plan for plan, _ in settings]
    tensors = [paired for shard in full_shards(pair, plans[0]) for paired in shard.tensors]
    task = MakeTensors(settings, executor.threads, executor.ahead > 0, root or SpectrumStore().root)
    return Ahead(executor, task, tensors, plans)


class SharedTensors:
    """Tensors under several plans, for writers that go through them in step: each is made once.

    Attributes
    ----------
    squares : Squares
        What has been found out of the lengths of matrices.
    """

    def __init__(self, make: Ahead, squares: Squares) -> None:
        self._make, self.squares = make, squares
        self._at: PairedTensor | None = None
        self._made: Sequence[MadeTensor] = ()

    def repairer(self, number: int) -> Callable[[PairedTensor], MadeTensor]:
        """Return what makes tensors under one of the plans."""

        def repair(paired: PairedTensor) -> MadeTensor:
            """Return a tensor under this plan; made for the first writer that comes to it."""
            if self._at is not paired:
                self._at, self._made = paired, self._make(paired)
            made = self._made[number]
            self.squares.update(self._made.squares)
            return made

        return repair


def _use_threads(threads: int | None, paired: PairedTensor) -> None:
    """Have a tensor computed on so many threads; on all cores where it is large. Both decide its last digits."""
    if threads is not None:
        large = paired.tuned is not None and paired.tuned.numel > _LARGE
        torch.set_num_threads(count_cores() if large else threads)
