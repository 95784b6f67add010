"""Thresholds: several rules at once, on the weight in view or on the whole model."""

from dgviz.app.navigation import show

show("thresholds")
