"""Scores made here: a checkpoint on benchmarks, by lm-evaluation-harness or by the demo's own evaluator.

What was scored once is remembered under the content of the checkpoint, so a run that was stopped goes on where it
was, and a copy of a checkpoint is not scored again. Importing this loads neither torch nor the harness.
"""

from dgviz.scores.evaluate.backends import BACKENDS
from dgviz.scores.evaluate.hub_results import write_hub_results
from dgviz.scores.evaluate.run import TaskScores, iter_evaluation, write_results
from dgviz.scores.evaluate.settings import Settings, checkpoint_hash

__all__ = [
    "BACKENDS",
    "Settings",
    "TaskScores",
    "checkpoint_hash",
    "iter_evaluation",
    "write_hub_results",
    "write_results",
]
