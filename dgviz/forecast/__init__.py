"""What DG-Hard would do, foretold from pairs that were measured: their table, a monotone fit and its worth."""

from dgviz.forecast.foretell import Calibration, Forecast, Outcome, Range, UpdateShare, calibration, foretell
from dgviz.forecast.table import CalibratedPair, Standing, read_pairs, stand

__all__ = [
    "CalibratedPair",
    "Calibration",
    "Forecast",
    "Outcome",
    "Range",
    "Standing",
    "UpdateShare",
    "calibration",
    "foretell",
    "read_pairs",
    "stand",
]
