"""Several tuned checkpoints of one base: weights that belong together, and figures side by side."""

from dgviz.analysis.family.match import Apart, SharedWeight, distinct_names, match_members
from dgviz.analysis.family.report import depth_map, family_csv, member_report, noise_tables_csv

__all__ = [
    "Apart",
    "SharedWeight",
    "depth_map",
    "distinct_names",
    "family_csv",
    "match_members",
    "member_report",
    "noise_tables_csv",
]
