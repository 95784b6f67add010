"""Writing the plan: shard by shard, one tensor in memory at a time, nothing half-written under a final name."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from filelock import FileLock, Timeout

import dgviz
from dgviz.checkpoint import PairedTensor, open_checkpoint, read_bytes
from dgviz.errors import CheckpointError, ExportError, ExportFailedError
from dgviz.export.plan import LOCK, MANIFEST, REPORT, ExportPlan, ShardPlan, finished_shards, read_manifest
from dgviz.export.shard import Entry, ShardWriter, file_digest, write_file
from dgviz.facts import gather_facts
from dgviz.repair import repair_tensor
from dgviz.report import RepairedTensor, TensorReport
from dgviz.spectrum import resolve_device

_FLOAT_NAMES = ("float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ExportResult:
    """What was written, as in the output's ``dgviz.json``."""

    report: Mapping[str, Any]

    @property
    def tensors(self) -> Mapping[str, Any]:
        """One row per tensor of either input, by name."""
        return self.report["tensors"]


Repair = Callable[[PairedTensor], RepairedTensor]
"""Makes one tensor of the output."""


def iter_export(
    plan: ExportPlan, device: str = "auto", repair: Repair | None = None
) -> Iterator[TensorReport | ExportResult]:
    """Write the output, yielding a report after every tensor and an `ExportResult` last.

    Parameters
    ----------
    plan : ExportPlan
        From `dgviz.export.plan_export`.
    device : str
        Where to compute.
    repair : callable, optional
        What makes a tensor, for exports that share the work; by default each is repaired on its own.

    Yields
    ------
    TensorReport or ExportResult
        One report per tensor (also for those of shards an earlier run finished), then the result.

    Raises
    ------
    ExportError
        If another process writes the same output, the disk refuses, or what was written does not read back.

    Notes
    -----
    Closing the generator, or an error, leaves finished shards and a manifest; the same plan continues from there.
    """
    started = time.perf_counter()
    device = resolve_device(device)
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{plan.out} cannot be made: {error.strerror}; choose another output folder") from None
    lock = FileLock(plan.out / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ExportError(f"another process is writing {plan.out}; wait for it or choose another folder") from None
    try:
        with _disk_errors(plan):
            rows: dict[str, dict[str, Any]] = {}
            manifest = _started_manifest(plan)
            inputs = _input_stamps(plan)
            if repair is None:
                facts = gather_facts(plan.pair, plan.repair, device)
                repair = lambda paired: repair_tensor(paired, plan.repair, device, facts=facts)  # noqa: E731
            for shard in plan.shards:
                yield from _iter_shard(plan, shard, manifest, rows, inputs, repair)
            for paired in plan.pair.tensors:
                if paired.action == "base_only":
                    report = repair(paired).report
                    rows[report.name] = report.to_json()
                    yield report
            yield _finish(plan, rows, device, time.perf_counter() - started)
    finally:
        (plan.out / LOCK).unlink(missing_ok=True)  # while still held: nobody else can be waiting on it
        lock.release()


def _started_manifest(plan: ExportPlan) -> dict[str, Any]:
    """Return the manifest of the run to continue, or a new one, on disk before anything else is.

    Called with the lock held: the folder may have been filled since the plan was made. What an interrupted run left
    half-written has no final name and goes.
    """
    finished_shards(plan.out, plan.identity)
    for partial in plan.out.glob("*.partial"):
        partial.unlink()
    manifest = read_manifest(plan.out)
    if manifest is None or manifest["identity"] != plan.identity:
        manifest = {"identity": plan.identity, "shards": {}}
        write_file(plan.out / MANIFEST, orjson.dumps(manifest))
    return dict(manifest)


@contextlib.contextmanager
def _disk_errors(plan: ExportPlan) -> Iterator[None]:
    """Turn the operating system's complaints into a sentence about this output."""
    try:
        yield
    except OSError as error:
        raise ExportFailedError(
            f"writing {plan.out} failed: {error.strerror or error}; finished shards are kept, "
            "repeat the same command to continue"
        ) from error


def _input_stamps(plan: ExportPlan) -> dict[Path, tuple[int, int, int]]:
    """Return size, modification time and inode of every file the tensors come from."""
    folders = {plan.pair.base.path, plan.pair.tuned.path}
    files = [file for folder in folders for file in folder.iterdir() if file.suffix in (".safetensors", ".bin")]
    stats = {file: file.stat() for file in files}
    return {file: (stat.st_size, stat.st_mtime_ns, stat.st_ino) for file, stat in stats.items()}


def _refuse_changed(plan: ExportPlan, inputs: dict[Path, tuple[int, int, int]]) -> None:
    """Raise when an input was replaced or rewritten while it was read."""
    now = _input_stamps(plan)
    for file in inputs.keys() | now.keys():
        if inputs.get(file) != now.get(file):
            raise ExportFailedError(
                f"{file} changed while {plan.out} was being written, which would mix two models; "
                "delete the output and export again"
            )


def _iter_shard(
    plan: ExportPlan,
    shard: ShardPlan,
    manifest: dict[str, Any],
    rows: dict[str, Any],
    inputs: dict[Path, tuple[int, int, int]],
    repair: Repair,
) -> Iterator[TensorReport]:
    """Write one shard, or take it over from an earlier run when its bytes are still those that run wrote."""
    path = plan.out / shard.name
    record = manifest["shards"].get(shard.name)
    if record and path.is_file() and file_digest(path) == record["blake2b"]:
        for name, row in record["rows"].items():
            rows[name] = row
            yield TensorReport(name=name, **{**row, "shape": tuple(row["shape"]), "warnings": tuple(row["warnings"])})
        return
    entries = [Entry(item.name, plan.repair.output_dtype(item.tuned), item.tuned.shape) for item in shard.tensors]
    own: dict[str, dict[str, Any]] = {}
    with ShardWriter(path, entries) as writer:
        for paired in shard.tensors:
            repaired = repair(paired)
            writer.write(paired.name, _data(repaired))
            own[paired.name] = repaired.report.to_json()
            yield repaired.report
        _refuse_changed(plan, inputs)
    rows |= own
    manifest["shards"][shard.name] = {"blake2b": writer.digest, "rows": own}
    write_file(plan.out / MANIFEST, orjson.dumps(manifest))


def _data(repaired: RepairedTensor) -> memoryview | bytearray:
    """Return the bytes of one tensor: computed, or copied as stored."""
    if repaired.tensor is None:
        return read_bytes(repaired.source)
    return memoryview(repaired.tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def _finish(plan: ExportPlan, rows: dict[str, Any], device: str, seconds: float) -> ExportResult:
    """Write index, sidecars, report and config, check what is on disk, and drop the manifest."""
    if plan.index_name:
        index = {
            "metadata": {"total_size": plan.total_bytes},
            "weight_map": {item.name: shard.name for shard in plan.shards for item in shard.tensors},
        }
        write_file(plan.out / plan.index_name, _pretty(index))
    for name, _, source in plan.sidecars:
        if name != "config.json":
            target = plan.out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_file(target, source.read_bytes())
    report = _describe(plan, rows, device, seconds)
    write_file(plan.out / REPORT, _pretty(report))
    for name, _, source in plan.sidecars:
        if name == "config.json":
            write_file(plan.out / name, _config(source.read_bytes(), plan))
    _verify(plan)
    (plan.out / MANIFEST).unlink(missing_ok=True)
    return ExportResult(report)


def _describe(plan: ExportPlan, rows: dict[str, Any], device: str, seconds: float) -> dict[str, Any]:
    """Return the content of ``dgviz.json``."""
    ordered = {item.name: rows[item.name] for item in plan.pair.tensors}
    warnings = list(plan.warnings)
    for name, row in ordered.items():
        warnings += [f"{name}: {warning}" for warning in row["warnings"]]
    return {
        "dgviz": dgviz.__version__,
        "torch": torch.__version__,
        "device": device,
        "base": {"name": plan.pair.base.path.name, "fingerprint": plan.pair.base.fingerprint},
        "tuned": {"name": plan.pair.tuned.path.name, "fingerprint": plan.pair.tuned.fingerprint},
        "plan": plan.repair.to_json(),
        "counts": {fate: sum(row["action"] == fate for row in rows.values()) for fate in plan.pair.counts()},
        "shards": [shard.name for shard in plan.shards],
        "total_bytes": plan.total_bytes,
        "sidecars": {name: side for name, side, _ in plan.sidecars},
        "warnings": warnings,
        "seconds": round(seconds, 3),
        "tensors": ordered,
    }


def _config(data: bytes, plan: ExportPlan) -> bytes:
    """Return the config, its dtype entries changed where the output's dtype was: loaders cast to what it says.

    Quantisation is dropped: what is written is dense. The standard parser, because configs in use hold ``Infinity``.
    """
    dtype = plan.repair.dtype
    config = json.loads(data)
    if dtype == "auto" and "quantization_config" not in config:
        return data
    config.pop("quantization_config", None)

    def with_dtype(value: Any) -> Any:
        """Replace every dtype entry, also those of sub-models."""
        if isinstance(value, dict):
            return {
                key: dtype if key in ("dtype", "torch_dtype") and item in _FLOAT_NAMES else with_dtype(item)
                for key, item in value.items()
            }
        return value

    if dtype != "auto":
        config = with_dtype(config)
        if "torch_dtype" not in config:
            config["dtype"] = dtype
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def _pretty(value: Any) -> bytes:
    """Return readable JSON with a final newline."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _verify(plan: ExportPlan) -> None:
    """Open what was written as any reader would and compare it with the plan."""
    try:
        written = open_checkpoint(plan.out)
    except CheckpointError as error:
        raise ExportFailedError(f"what was written to {plan.out} does not read back: {error}") from error
    expected = {
        item.name: (plan.repair.output_dtype(item.tuned), item.tuned.shape)
        for shard in plan.shards
        for item in shard.tensors
    }
    found = {name: (info.dtype, info.shape) for name, info in written.tensors.items()}
    for name in expected.keys() | found.keys():
        if expected.get(name) != found.get(name):
            raise ExportFailedError(
                f"what was written to {plan.out} differs from the plan: {name} should be {expected.get(name)}, "
                f"is {found.get(name)}; this is a bug, do not use the output"
            )
