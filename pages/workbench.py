"""Workbench: the map of the model and one weight's Figure 4, rules and methods compared, and the plan."""

from dgviz.app.navigation import show

show("workbench")
