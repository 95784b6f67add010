"""A scan that has ended: its report, with what the plan would do to the model."""

from collections.abc import Sequence
from typing import Any

from dgviz.analysis.assessed import assess_scanned
from dgviz.analysis.forecast import forecast_scan
from dgviz.checkpoint import CheckpointPair
from dgviz.forecast import Forecast
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.model_scan import ScannedMatrix, scan_report


def finish_scan(
    pair: CheckpointPair, results: Sequence[ScannedMatrix], plan: RepairPlan, seconds: float
) -> tuple[dict[str, Any], Forecast]:
    """Return the report of a scan under a plan, and its forecast; what pages will ask of it is kept."""
    report = scan_report(pair, list(results), seconds)
    if not report["errors"] and not all(result.kept for result in results):
        assess_scanned(pair, plan.rule, plan.params)
    forecast = forecast_scan(pair, results, plan)
    if report["model"]:
        report["model"]["forecast"] = forecast.to_json()
    return report, forecast
