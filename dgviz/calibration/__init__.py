"""Real pairs trained, repaired and scored: what the forecast is made from, made again by `dgviz calibrate`."""

from dgviz.calibration.recipes import LARGER_RUNS, RUNS, Recipe, Run
from dgviz.calibration.run import iter_calibration, iter_methods, read_results, write_methods, write_table

__all__ = [
    "LARGER_RUNS",
    "RUNS",
    "Recipe",
    "Run",
    "iter_calibration",
    "iter_methods",
    "read_results",
    "write_methods",
    "write_table",
]
