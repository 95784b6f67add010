"""Scores before and after a repair, and what they say: what was healed, what was preserved, with which certainty.

The definitions follow the paper (arXiv 2605.20296) where it states them; where it does not, `METRICS` says what was
chosen. Importing this loads numpy only.
"""

from dgviz.scores.recovery.assess import Assessment, Recovery, assess
from dgviz.scores.recovery.metrics import AVERAGES, COMBINATIONS, METRICS, Metric
from dgviz.scores.recovery.paper import PAPER_COMBINED, PAPER_COUNTS
from dgviz.scores.recovery.partition import PARTS, Comparison, Tolerance, compare_scores
from dgviz.scores.recovery.report import recovery_report, recovery_rows
from dgviz.scores.recovery.resample import MetricValue
from dgviz.scores.recovery.study import Cell, Study, plan_study, read_study

__all__ = [
    "AVERAGES",
    "COMBINATIONS",
    "METRICS",
    "PAPER_COMBINED",
    "PAPER_COUNTS",
    "PARTS",
    "Assessment",
    "Cell",
    "Comparison",
    "Metric",
    "MetricValue",
    "Recovery",
    "Study",
    "Tolerance",
    "assess",
    "compare_scores",
    "plan_study",
    "read_study",
    "recovery_report",
    "recovery_rows",
]
