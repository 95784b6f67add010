"""Methods: what every repair, and every control, makes of a weight and of the model."""

from dgviz.app.navigation import show

show("methods")
