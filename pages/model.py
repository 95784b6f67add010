"""Model: the whole update at a glance, layers by modules."""

from dgviz.app.navigation import show

show("model")
