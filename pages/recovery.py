"""Recovery: did the repair heal anything? Scores of base, tuned and repaired models."""

from dgviz.app.navigation import show

show("recovery")
