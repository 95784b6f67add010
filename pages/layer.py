"""Layer: Figure 4 of one weight."""

from dgviz.app.navigation import show

show("layer")
