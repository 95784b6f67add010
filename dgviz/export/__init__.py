"""Writing a repaired checkpoint: a plan made before any byte is written, then shard by shard.

`plan` needs no torch, so that a page can show it; `write` does the work.
"""

from dgviz.export.plan import FORMATS, ExportPlan, ShardPlan, plan_export

__all__ = ["FORMATS", "ExportPlan", "ShardPlan", "plan_export"]
