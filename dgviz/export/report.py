"""What ``dgviz.json`` says of an output: plan, versions, hashes, a row per tensor, figures of the whole model.

The last digits of a singular value depend on the number of threads and on who computed it, and so does all that is
made of values at rounding level. ``dgviz.json`` holds what does not: shares and gains to six digits, ranks, hashes.
Every figure in full, how it was obtained, times and machine are in ``dgviz.run.json``.
"""

import math
import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dgviz
from dgviz.checkpoint.types import ACTIONS
from dgviz.errors import StateError
from dgviz.export.card import model_card
from dgviz.export.plan import REPORT, RUN, ExportPlan
from dgviz.files import pretty_json, read_record, write_file

POOR_GAIN = 0.9
"""Below this, or above its inverse, a user is told: a tenth of the repaired update is lost or added by rounding."""
_LASTING = "rank", "energy_kept", "norm_kept", "zero_share", "gain", "sparsity", "override"
"""Of a matrix: what is left of it by the six digits that no two runs differ in."""
_NOTHING = 1e-10  # of the energy that is kept: so little removed is what arithmetic leaves, not something removed


def describe_export(
    plan: ExportPlan, rows: Mapping[str, Any], device: str, files: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of both reports but for times, and what verification found."""
    import torch

    ordered = {item.name: _without_time(rows[item.name]) for item in plan.pair.tensors if item.name in rows}
    overall = overall_gain(ordered.values())
    warnings = [*gain_warnings(overall, plan), *plan.warnings]
    for name, row in ordered.items():
        warnings += [f"{name}: {warning}" for warning in row["warnings"]]
    return {
        "dgviz": dgviz.__version__,
        "torch": torch.__version__,
        "device": device,
        "format": plan.format,
        "base": _side(plan.pair.base),
        "tuned": _side(plan.pair.tuned),
        "plan": plan.repair.to_json(),
        "counts": {action: sum(row["action"] == action for row in ordered.values()) for action in ACTIONS},
        "files": dict(files),
        "total_bytes": sum(entry["bytes"] for entry in files.values()),
        "overall": overall,
        "sidecars": {name: side for name, side, _ in plan.sidecars},
        "left_behind": dict(plan.left),
        "warnings": warnings,
        "tensors": ordered,
    }


def write_report(plan: ExportPlan, report: Mapping[str, Any], rows: Mapping[str, Any]) -> None:
    """Write ``dgviz.json``, ``dgviz.run.json`` and the model card; `rows` have the seconds that tensors took."""
    import torch

    run = {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "processors": os.cpu_count(), "threads": torch.get_num_threads()},
        "overall": report["overall"],
        "verified": report["verified"],
        "tensors": {
            name: {"seconds": rows[name]["seconds"], "matrices": row["matrices"]}
            for name, row in report["tensors"].items()
        },
    }
    write_file(plan.out / RUN, pretty_json(run))
    write_file(plan.out / REPORT, pretty_json(lasting(report)))
    write_file(plan.out / "README.md", model_card(plan, report).encode(errors="backslashreplace"))


def lasting(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a report is the same for the same inputs, plan and engine."""
    kept = {
        name: {**row, "matrices": [_rounded(matrix, _LASTING) for matrix in row["matrices"]]}
        for name, row in report["tensors"].items()
    }
    verified = {check: found for check, found in report["verified"].items() if check != "logits"}
    return {
        **report,
        "overall": _rounded(report["overall"], ("matrices", "gain")),
        "tensors": kept,
        "verified": verified,
    }


def _rounded(figures: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return some of the figures, shares to six decimals."""
    found = {name: figures[name] for name in names if name in figures}
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in found.items()}


def read_report(out: Path) -> dict[str, Any]:
    """Return what an output's two reports say together; what the second lacks is lacking, and a warning says why.

    Raises
    ------
    StateError
        If ``dgviz.json`` is not there, or is no report.
    """
    report = read_record(out / REPORT, "plan", "format", "files", "inputs", "sidecars", "warnings", "tensors")
    if report is None:
        raise StateError(f"{out / REPORT} is not there any more")
    try:
        run = read_record(out / RUN, "overall", "verified", "tensors") or {}
        rows = {
            name: {
                **row,
                "matrices": _joined(row["matrices"], run.get("tensors", {}).get(name, {}).get("matrices", [])),
            }
            for name, row in report["tensors"].items()
        }
        return {**report, **{name: run[name] for name in ("overall", "verified") if name in run}, "tensors": rows}
    except (StateError, KeyError, TypeError, AttributeError) as error:
        return {**report, "warnings": [*report["warnings"], f"{out / RUN} is not read: {error}"]}


def _joined(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with what other rows of the same matrices add, where there are as many."""
    return [{**a, **b} for a, b in zip(first, second, strict=True)] if len(first) == len(second) else first


def _side(checkpoint: Any) -> dict[str, Any]:
    """Return what identifies an input; its tensors' hashes are in the rows."""
    return {"name": checkpoint.path.name, "files": list(checkpoint.shards), "adapter": checkpoint.is_adapter}


def _without_time(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without the seconds it took, which no two runs share."""
    return {key: value for key, value in row.items() if key != "seconds"}


def overall_gain(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return gain and restored noise of the whole model, every matrix weighted by its energy.

    ``gain = sum <O, D*> / sum <D*, D*>`` and ``noise_restored = sqrt(sum |O - D*|^2 / sum |D - D*|^2)``, over the
    matrices whose update was added up and rounded; copied bytes are not rounded and not counted.
    """
    overlap = kept = rounding = removed = 0.0
    count = 0
    for matrix in (matrix for row in rows for matrix in row.get("matrices", ()) if "gain" in matrix):
        count += 1
        overlap += matrix["gain"] * matrix["update_square"]
        kept += matrix["update_square"]
        if "noise_restored" in matrix:
            rounding += matrix["noise_restored"] ** 2 * matrix["removed_square"]
            removed += matrix["removed_square"]
    return {
        "matrices": count,
        "gain": overlap / kept if kept > 0 else None,
        "noise_restored": math.sqrt(rounding / removed) if removed > _NOTHING * kept else None,
    }


def gain_warnings(overall: Mapping[str, Any], plan: ExportPlan) -> list[str]:
    """Return the sentence about a repair that rounding spoils, with what to do instead."""
    gain, restored = overall["gain"], overall["noise_restored"]
    if gain is None or POOR_GAIN <= gain <= 1 / POOR_GAIN:
        return []
    dtypes = {plan.repair.output_dtype(item.tuned) for item in plan.pair.repairable}
    back = "" if restored is None else f" and puts back {restored:.0%} of the noise that was removed"
    return [
        f"rounding to {' and '.join(sorted(dtypes))} writes only {gain:.0%} of the repaired update{back}: the update "
        "is small against the weights; --dtype float32 or --format lora keep all of it"
    ]
