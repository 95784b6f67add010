"""Writing a repaired checkpoint: a plan made before any byte is written, then shard by shard.

`plan` needs no torch, so that a page can show it; `write` does the work.
"""

from dgviz.export.plan import ExportPlan, ShardPlan, plan_export

__all__ = ["ExportPlan", "ShardPlan", "plan_export"]
