"""Writing a repaired checkpoint: a plan made before any byte is written, then shard by shard."""

from dgviz.export.plan import ExportPlan, ShardPlan, plan_export
from dgviz.export.write import ExportResult, iter_export

__all__ = ["ExportPlan", "ExportResult", "ShardPlan", "iter_export", "plan_export"]
