"""The forecast of a plan for a pair, from what a scan knows of its matrices."""

from collections.abc import Iterable

from dgviz.analysis.model_spectra import Assessment
from dgviz.checkpoint import CheckpointPair
from dgviz.forecast import Forecast, UpdateShare, foretell
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.model_scan import ScannedMatrix

_CALIBRATED = RepairPlan()
_SAME = "rule", "params", "method", "method_params", "shrinker", "keep", "directions"


def is_calibrated(plan: RepairPlan) -> bool:
    """Return whether a plan without overrides is DG-Hard with its own settings, as all pairs of the table were."""
    return all(getattr(plan, name) == getattr(_CALIBRATED, name) for name in _SAME)


def forecast_rows(pair: CheckpointPair, rows: Iterable[Assessment], plan: RepairPlan) -> Forecast:
    """Return the forecast of a plan from the assessments of a pair's matrices under its rules."""
    updates: list[UpdateShare] = []
    common = is_calibrated(plan.default)
    for row in rows:
        own = plan.at(row.weight.tensor, row.weight.index)
        dropped = float(own.keep == "base") * row.spectrum.energy if own.keep else row.dropped_energy
        updates.append(
            UpdateShare(row.spectrum.energy, dropped, common if own is plan.default else is_calibrated(own))
        )
    return _forecast(pair, updates)


def forecast_scan(pair: CheckpointPair, results: Iterable[ScannedMatrix], plan: RepairPlan) -> Forecast:
    """Return the forecast of a plan from a finished scan with its rules."""
    updates = []
    for result in results:
        if result.row is None:
            continue
        own = plan.at(result.weight.tensor, result.weight.index)
        share = float(own.keep == "base") if own.keep else 1 - result.row["energy_kept"]
        updates.append(UpdateShare(result.row["energy"], share * result.row["energy"], is_calibrated(own)))
    return _forecast(pair, updates)


def _forecast(pair: CheckpointPair, updates: list[UpdateShare]) -> Forecast:
    parameters = sum(info.numel for info in pair.tuned.tensors.values())
    return foretell(updates, parameters, pair.base.config)
