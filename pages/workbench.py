"""The workbench page."""

from dgviz.app.navigation import show

show("workbench")
