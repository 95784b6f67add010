"""The factors of repaired updates, one small file per tensor: finished one by one, put together at the end.

An output whose header depends on every rank cannot be streamed, and held in memory it would grow with the model. So
each tensor's factors are written as soon as they are known; an interrupted export keeps them.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from dgviz.checkpoint import PairedTensor
from dgviz.export.inputs import InputWatch, refuse_other_inputs
from dgviz.export.made import FactorTensors
from dgviz.export.manifest import PARTS, read_manifest
from dgviz.export.plan import ExportPlan
from dgviz.export.report import describe_export
from dgviz.export.spread import refuse_other_folder
from dgviz.files import write_file
from dgviz.jobs.executor import Executor
from dgviz.repair.ahead import Ahead
from dgviz.repair.report import TensorReport


@dataclass(frozen=True)
class Part:
    """The factors of one tensor's repaired update, on disk.

    Attributes
    ----------
    path : Path
        The file.
    name : str
        The tensor.
    ranks : tuple of int
        Per matrix: one for a plain tensor, one per entry of a stack.
    stacked : bool
        Whether the tensor is a stack.
    row : mapping
        Its report row.
    inputs : mapping
        Hashes of what it was made from.
    """

    path: Path
    name: str
    ranks: tuple[int, ...]
    stacked: bool
    row: dict[str, Any]
    inputs: dict[str, str]

    def read(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return left (m, rank) and right (rank, n) of one matrix, float32."""
        with safe_open(self.path, framework="pt") as file:
            return file.get_tensor(f"{index}.left"), file.get_tensor(f"{index}.right")


def iter_parts(
    plan: ExportPlan, tensors: Sequence[PairedTensor], executor: Executor
) -> Iterator[tuple[TensorReport, Part]]:
    """Yield the factors of every tensor: taken over where an earlier run finished them, else computed and written."""
    folder = plan.out.resolve() / PARTS  # what is read back must lie where its folder says
    folder.mkdir(exist_ok=True)
    watch = InputWatch(plan)
    written: dict[str, dict[str, str]] = {}
    paths = {paired.name: folder / f"{number:06d}.safetensors" for number, paired in enumerate(plan.pair.tensors)}
    task = WriteParts(
        FactorTensors(plan.repair, executor.threads), paths, read_manifest(plan.out) if executor.spread else None
    )
    make = Ahead(executor, task, tensors, [plan.repair])
    for paired in tensors:
        part = _read_part(paths[paired.name], paired)
        if part is not None:
            refuse_other_inputs(plan, {part.name: part.inputs})
        else:
            part = make(paired)
            watch.refuse_changed({**written, paired.name: part.inputs})
        written[paired.name] = part.inputs
        yield TensorReport.from_json(part.name, part.row), part


@dataclass(frozen=True, eq=False)
class WriteParts:
    """Makes the factors of tensors and writes them.

    Attributes
    ----------
    make : FactorTensors
        How they are made.
    paths : mapping of str to Path
        Where those of each tensor go.
    manifest : mapping or None
        What tells the output's folder, where another machine writes.
    """

    make: FactorTensors
    paths: Mapping[str, Path]
    manifest: Mapping[str, Any] | None

    def __call__(self, device: str, tensors: Sequence[PairedTensor]) -> list[Part]:
        """Return what was written of each tensor."""
        parts = []
        for paired in tensors:
            path = self.paths[paired.name]
            if self.manifest is not None:
                refuse_other_folder(path.parents[1], self.manifest)
            ((factors, report, hashes),) = self.make(device, [paired])
            parts.append(_write_part(path, paired, factors, report, hashes))
        return parts


def describe_parts(plan: ExportPlan, parts: Iterable[Part], device: str, path: Path, digest: str) -> dict[str, Any]:
    """Return the content of ``dgviz.json`` of a file that is made of parts, but for what verification found."""
    parts = list(parts)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": digest}}
    report = describe_export(plan, {part.name: part.row for part in parts}, device, files)
    report["inputs"] = {part.name: part.inputs for part in parts}
    return report


def _write_part(
    path: Path,
    paired: PairedTensor,
    factors: list[tuple[np.ndarray, np.ndarray] | None],
    report: TensorReport,
    hashes: dict[str, str],
) -> Part:
    """Write the factors of one tensor with all that is to be said of them."""
    tensors = {}
    for index, pair in enumerate(factors):
        if pair is not None:
            tensors[f"{index}.left"], tensors[f"{index}.right"] = map(torch.from_numpy, pair)
    record = {
        "name": paired.name,
        "ranks": [0 if pair is None else pair[0].shape[1] for pair in factors],
        "stacked": paired.layout.stack is not None,
        "row": report.to_json(),
        "inputs": hashes,
        "sha256": _digest(tensors),
    }
    write_file(path, save(tensors, metadata={"record": orjson.dumps(record).decode()}))
    return _part(path, record)


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _part(path: Path, record: dict[str, Any]) -> Part:
    ranks = tuple(record["ranks"])
    return Part(path, record["name"], ranks, record["stacked"], record["row"], record["inputs"])


def _read_part(path: Path, paired: PairedTensor) -> Part | None:
    """Return a finished part; None where there is none, or its bytes are not those that were written."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            record = orjson.loads(file.metadata()["record"])
            same = _digest({name: file.get_tensor(name) for name in file.keys()}) == record["sha256"]  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, orjson.JSONDecodeError):
        return None
    return _part(path, record) if same and record["name"] == paired.name else None
