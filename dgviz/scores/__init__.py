"""Scores in: lm-evaluation-harness results, plain tables and the demo's own file, as one table of scores."""

from dgviz.scores.choice import METRIC_ORDER, Ambiguity, ChosenScores, choose_scores
from dgviz.scores.read import SUFFIXES, merge_tables, parse_scores, read_scores
from dgviz.scores.types import ModelRole, Score, ScoreTable

__all__ = [
    "METRIC_ORDER",
    "SUFFIXES",
    "Ambiguity",
    "ChosenScores",
    "ModelRole",
    "Score",
    "ScoreTable",
    "choose_scores",
    "merge_tables",
    "parse_scores",
    "read_scores",
]
