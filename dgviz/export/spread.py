"""Files of outputs written where they are made, by tasks of their own, when other machines compute.

Small results come back: a report after every tensor, and the record that an interrupted run is continued by. Whoever
looks at the folder meanwhile sees what a run in one process leaves there.
"""

import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgviz.errors import ExportFailedError
from dgviz.export.full import Refuse, Write, write_shard
from dgviz.export.inputs import InputWatch
from dgviz.export.made import SharedTensors, made_ahead
from dgviz.export.manifest import read_manifest, read_records
from dgviz.export.plan import ExportPlan, ShardPlan
from dgviz.jobs.executor import InProcess, SpreadExecutor, Stream
from dgviz.repair.ahead import tensor_bytes
from dgviz.repair.report import TensorReport
from dgviz.repair.whole_model import Squares
from dgviz.spectra.store import SpectrumStore

_Item = tuple[int, TensorReport | dict[str, Any]]  # of which output; a report, or the record of the file


def refuse_other_folder(out: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse to write where the folder of an output is not the one that the command holds."""
    if not out.is_dir() or read_manifest(out) != manifest:
        raise ExportFailedError(
            f"{out} is another folder on the node {socket.gethostname()} than where the command runs: every node "
            "needs the same files under the same paths (temporary ones too: TMPDIR says where those lie)"
        )


@dataclass(frozen=True, eq=False)
class WriteShards:
    """Writes one file of several outputs of a pair, each tensor read and decomposed once.

    Attributes
    ----------
    plans : sequence of ExportPlan
        The outputs.
    facts : sequence
        What their methods take from the whole model.
    manifests : sequence of mapping
        What tells the outputs' folders, which each machine must see.
    threads, root
        As of `dgviz.export.made.MakeTensors`.
    """

    plans: Sequence[ExportPlan]
    facts: Sequence[Any]
    manifests: Sequence[Mapping[str, Any]]
    threads: int | None
    root: Path

    def __call__(self, device: str, number: int, records: Sequence[Mapping[str, Any] | None]) -> Iterator[Any]:
        """Yield what the writers yield, each with the number of its output, and last what was found of lengths."""
        for plan, manifest in zip(self.plans, self.manifests, strict=True):
            refuse_other_folder(plan.out, manifest)
        settings = list(zip((plan.repair for plan in self.plans), self.facts, strict=True))
        ahead = made_ahead(self.plans[0].pair, settings, InProcess(device, self.threads), self.root)
        shared = SharedTensors(ahead, {})
        writers = [
            write_shard(plan, shared.repairer(at), plan.shards[number], record, InputWatch(plan).refuse_changed)
            for at, (plan, record) in enumerate(zip(self.plans, records, strict=True))
        ]
        for items in zip(*writers, strict=True):
            yield from enumerate(items)
        yield shared.squares


class ShardsAhead:
    """Files of several outputs, all begun when the first is asked for, the largest first.

    Parameters
    ----------
    plans, facts
        As of `WriteShards`. All outputs are held, and have their manifests, when the first file is asked for.
    executor : SpreadExecutor
        Where they are written.
    squares : Squares, optional
        What takes in what is found out of lengths.
    """

    def __init__(
        self,
        plans: Sequence[ExportPlan],
        facts: Sequence[Any],
        executor: SpreadExecutor,
        squares: Squares | None = None,
    ) -> None:
        self._plans, self._facts, self._executor = plans, facts, executor
        self._squares = {} if squares is None else squares
        self._streams: dict[str, Stream] = {}
        self._waiting: dict[str, list[deque]] = {}  # items of each output, by file

    def writer(self, number: int) -> Write:
        """Return what writes the files of one of the outputs."""

        def write(
            shard: ShardPlan, record: Mapping[str, Any] | None, refuse: Refuse
        ) -> Iterator[TensorReport | dict[str, Any]]:
            """Yield what comes of a file."""
            if not self._streams:
                self._begin()
            item: TensorReport | dict[str, Any] | None = None
            try:
                while not isinstance(item, dict):
                    item = self._next(shard.name, number)
                    if isinstance(item, dict):
                        refuse(item["inputs"])
                    yield item
            except BaseException:
                self._end()
                raise

        return write

    def _begin(self) -> None:
        """Have all files written."""
        manifests = [read_manifest(plan.out) for plan in self._plans]
        root = SpectrumStore().root
        task = WriteShards(self._plans, self._facts, manifests, self._executor.threads, root)
        records = [read_records(plan.out) for plan in self._plans]
        repairs = [plan.repair for plan in self._plans]
        for number, shard in sorted(enumerate(self._plans[0].shards), key=lambda item: -item[1].nbytes):
            known = [own.get(shard.name) for own in records]
            memory = max((tensor_bytes(tensor, repairs) for tensor in shard.tensors), default=0)
            self._streams[shard.name] = self._executor.stream(task, number, known, memory=memory)
            self._waiting[shard.name] = [deque() for _ in self._plans]

    def _next(self, name: str, number: int) -> TensorReport | dict[str, Any]:
        """Return the next item of an output's file."""
        waiting = self._waiting[name]
        while not waiting[number]:
            item: _Item | Squares = next(self._streams[name])
            if isinstance(item, tuple):
                waiting[item[0]].append(item[1])
            else:
                self._squares.update(item)
        return waiting[number].popleft()

    def _end(self) -> None:
        """Have nothing more written."""
        for stream in self._streams.values():
            stream.close()
