"""The factors of every repaired update in one file, to be added to base by anybody."""

from collections.abc import Iterator
from typing import Any

import orjson

from dgviz.checkpoint.header import read_header
from dgviz.checkpoint.read import read_bytes
from dgviz.errors import ExportFailedError
from dgviz.export.parts import Part, describe_parts, iter_parts
from dgviz.export.plan import ExportPlan
from dgviz.export.report import write_report
from dgviz.export.shard import Entry, ShardWriter, shard_order
from dgviz.jobs.executor import Executor
from dgviz.repair.report import TensorReport

FACTORS = "factors.safetensors"
FORMULA = "repaired = base.reshape(rows, columns) + NAME.left @ NAME.right, reshaped to base's shape"
STACK_FORMULA = "repaired[e] = base[e] + NAME.e.left @ NAME.e.right for every entry e of a stack; no factors: base[e]"


def iter_factors(plan: ExportPlan, executor: Executor) -> Iterator[TensorReport | dict[str, Any]]:
    """Write the factors, yielding a report after every tensor and the content of ``dgviz.json`` last."""
    parts = []
    for report, part in iter_parts(plan, plan.pair.repairable, executor):
        parts.append(part)
        yield report
    described = {part.name: _describe(plan, part) for part in parts}
    note = {"formula": FORMULA, "stacks": STACK_FORMULA, "tensors": described}
    sources = {name: source for part in parts for name, source in _named(part)}
    entries = [Entry(name, info.dtype, info.shape) for name, info in sources.items()]
    entries.sort(key=lambda entry: shard_order(entry.dtype, entry.name))
    metadata = {"format": "pt", "dgviz": orjson.dumps(note).decode()}
    with ShardWriter(plan.out / FACTORS, entries, metadata) as writer:
        for entry in entries:
            writer.write(entry.name, read_bytes(sources[entry.name]))
    written = read_header(plan.out.resolve() / FACTORS).tensors
    if {name: info.shape for name, info in written.items()} != {entry.name: entry.shape for entry in entries}:
        raise ExportFailedError(f"{plan.out / FACTORS} does not read back as written; delete it and export again")
    report = describe_parts(plan, parts, executor.device, plan.out / FACTORS, writer.digest)
    report["verified"] = {"headers": f"names and shapes of {len(entries)} factors"}
    write_report(plan, report, {part.name: part.row for part in parts})
    yield report


def _describe(plan: ExportPlan, part: Part) -> dict[str, Any]:
    """Return shape and rank of one tensor, and which of its rows are base's where the vocabulary differs."""
    rows = plan.pair[part.name].rows
    known = {"shape": part.row["shape"], "rank": list(part.ranks) if part.stacked else part.ranks[0]}
    return known if rows is None else {**known, "rows": [list(span) for span in rows]}


def _named(part: Part) -> Iterator[tuple[str, Any]]:
    """Yield every factor's name in the output, and where it lies now."""
    for key, info in read_header(part.path).tensors.items():
        index, side = key.split(".")
        yield f"{part.name}.{index}.{side}" if part.stacked else f"{part.name}.{side}", info
