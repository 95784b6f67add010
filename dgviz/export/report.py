"""What ``dgviz.json`` says of an output: plan, versions, hashes, a row per tensor, figures of the whole model."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

import dgviz
from dgviz.checkpoint.types import ACTIONS
from dgviz.export.card import model_card
from dgviz.export.plan import REPORT, ExportPlan
from dgviz.files import pretty_json, write_file

POOR_GAIN = 0.9
"""Below this, or above its inverse, a user is told: a tenth of the repaired update is lost or added by rounding."""


def describe_export(
    plan: ExportPlan, rows: Mapping[str, Any], device: str, files: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of ``dgviz.json`` but for what verification found.

    The same inputs and options give the same content: nothing of time or place is in it.
    """
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


def write_report(plan: ExportPlan, report: Mapping[str, Any]) -> None:
    """Write ``dgviz.json`` and the model card."""
    write_file(plan.out / REPORT, pretty_json(report))
    write_file(plan.out / "README.md", model_card(plan, report).encode())


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
        "noise_restored": math.sqrt(rounding / removed) if removed > 0 else None,
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
