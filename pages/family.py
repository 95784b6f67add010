"""Families: several tuned checkpoints of one base side by side."""

from dgviz.app.navigation import show

show("family")
