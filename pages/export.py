"""Export: write the repaired checkpoint."""

from dgviz.app.navigation import show

show("export")
