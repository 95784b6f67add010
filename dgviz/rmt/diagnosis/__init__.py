"""May the threshold of a weight be trusted: eleven checks of its spectrum and its entries, and a verdict in words."""

from dgviz.rmt.diagnosis.flags import LIMITS, SEVERITIES, VERDICTS, Diagnosis, Flag
from dgviz.rmt.diagnosis.verdict import WeighedDiagnosis, diagnose, diagnose_model

__all__ = ["LIMITS", "SEVERITIES", "VERDICTS", "Diagnosis", "Flag", "WeighedDiagnosis", "diagnose", "diagnose_model"]
