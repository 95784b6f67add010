"""Several tuned checkpoints of one base: weights that belong together, and figures side by side."""

from dgviz.analysis.family.figures import (
    FIGURES,
    WHOLE,
    DepthGrid,
    Figure,
    depth_grid,
    family_csv,
    figures_of,
    groups_of,
    layers_of,
    member_report,
    noise_tables_csv,
)
from dgviz.analysis.family.match import Apart, SharedWeight, distinct_names, match_members

__all__ = [
    "FIGURES",
    "WHOLE",
    "Apart",
    "DepthGrid",
    "Figure",
    "SharedWeight",
    "depth_grid",
    "distinct_names",
    "family_csv",
    "figures_of",
    "groups_of",
    "layers_of",
    "match_members",
    "member_report",
    "noise_tables_csv",
]
