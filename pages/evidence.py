"""Evidence: did a repair heal anything?."""

from dgviz.app.navigation import show

show("evidence")
