"""A whole checkpoint: shard by shard, one tensor in memory at a time, index and config last."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dgviz.checkpoint import PairedTensor, read_bytes
from dgviz.export.copies import copy_sidecars, read_config
from dgviz.export.inputs import InputWatch, refuse_other_inputs
from dgviz.export.loading import Loading
from dgviz.export.made import MadeTensor
from dgviz.export.manifest import read_records, write_record
from dgviz.export.plan import ExportPlan, ShardPlan
from dgviz.export.report import describe_export, write_report
from dgviz.export.shard import Entry, ShardWriter, file_digest
from dgviz.export.verify import sample_digest, verify_headers, verify_load, verify_values
from dgviz.files import pretty_json, write_file
from dgviz.repair.report import TensorReport
from dgviz.repair.tensor import repair_tensor

Repair = Callable[[PairedTensor], MadeTensor]
"""Makes one tensor of the output."""
Refuse = Callable[[Mapping[str, Mapping[str, str]]], None]
"""Raises where an input has other contents now than those whose hashes it is given."""
Write = Callable[[ShardPlan, Mapping[str, Any] | None, Refuse], Iterator[TensorReport | dict[str, Any]]]
"""Writes one file, or takes it over by its record; yields a report after every tensor, and the record last."""
CHECKING = "checking_seconds"
"""In the content of ``dgviz.json``, and not in the file: seconds of checks that are no part of the export."""


def iter_full(
    plan: ExportPlan, device: str, write: Write, loading: Loading
) -> Iterator[TensorReport | dict[str, Any]]:
    """Write a checkpoint, yielding a report after every tensor and the content of ``dgviz.json`` last."""
    watch, records = InputWatch(plan), read_records(plan.out)
    left = sum(shard.nbytes for shard in plan.shards)
    for shard in plan.shards:
        left -= shard.nbytes
        loading.prepare(left)
        written = [record["inputs"] for record in records.values()]

        def refuse(hashes: Mapping[str, Mapping[str, str]], written: list = written) -> None:
            """Refuse inputs that were changed since the run began."""
            watch.refuse_changed({name: sides for part in (*written, hashes) for name, sides in part.items()})

        for item in write(shard, records.get(shard.name), refuse):
            if isinstance(item, TensorReport):
                yield item
            else:
                records[shard.name] = item
    rows = {name: row for record in records.values() for name, row in record["rows"].items()}
    for paired in plan.pair.tensors:
        if paired.action == "base_only":
            report = repair_tensor(paired, plan.repair, "cpu").report
            rows[report.name] = report.to_json()
            yield report
    yield _finish(plan, records, rows, device, loading)


def write_shard(
    plan: ExportPlan, repair: Repair, shard: ShardPlan, record: Mapping[str, Any] | None, refuse: Refuse
) -> Iterator[TensorReport | dict[str, Any]]:
    """Write one file here; or take it over when its bytes and what made them are still the same.  See `Write`."""
    path = plan.out / shard.name
    if record is not None:
        refuse_other_inputs(plan, record["inputs"])
        whole = record["rows"].keys() == {item.name for item in shard.tensors}
        if whole and path.is_file() and file_digest(path) == record["sha256"]:
            for name, row in record["rows"].items():
                yield TensorReport.from_json(name, row)
            yield dict(record)
            return
    entries = [Entry(item.name, plan.repair.output_dtype(item.tuned), item.tuned.shape) for item in shard.tensors]
    rows: dict[str, dict[str, Any]] = {}
    hashes: dict[str, dict[str, str]] = {}
    samples: dict[str, str] = {}
    with ShardWriter(path, entries) as writer:
        for paired, entry in zip(shard.tensors, entries, strict=True):
            made = repair(paired)
            data = read_bytes(made.source) if made.data is None else made.data
            writer.write(paired.name, data)
            samples[paired.name] = sample_digest(entry.dtype, entry.shape, memoryview(data))
            del data
            hashes[paired.name] = made.inputs
            rows[paired.name] = made.report.to_json()
            yield made.report
            del made
        refuse(hashes)
    record = {
        "sha256": writer.digest,
        "bytes": path.stat().st_size,
        "inputs": hashes,
        "samples": samples,
        "rows": rows,
    }
    write_record(plan.out, shard.name, record)
    yield record


def _finish(
    plan: ExportPlan,
    records: dict[str, dict[str, Any]],
    rows: dict[str, Any],
    device: str,
    loading: Loading,
) -> dict[str, Any]:
    """Check what is on disk, then write sidecars, report and card, and last what makes it a checkpoint."""
    shards = {shard.name: records[shard.name] for shard in plan.shards}
    index = None
    if plan.index_name:
        total = sum(shard.nbytes for shard in plan.shards)
        weight_map = {item.name: shard.name for shard in plan.shards for item in shard.tensors}
        index = pretty_json({"metadata": {"total_size": total}, "weight_map": weight_map})
    config_data = read_config(plan)
    samples = {name: digest for record in shards.values() for name, digest in record["samples"].items()}
    values = verify_values(plan, samples, rows)
    loaded, seconds = verify_load(plan, config_data, index, loading)
    copy_sidecars(plan)
    files = {name: {"bytes": record["bytes"], "sha256": record["sha256"]} for name, record in shards.items()}
    report = describe_export(plan, rows, device, files)
    report["inputs"] = {name: sides for record in shards.values() for name, sides in record["inputs"].items()}
    if index is not None:
        write_file(plan.out / plan.index_name, index)
    report["verified"] = {"headers": verify_headers(plan, plan.out), "values": values, **loaded}
    write_report(plan, report, rows)
    if config_data is not None:
        write_file(plan.out / "config.json", config_data)
    return {**report, CHECKING: seconds}
