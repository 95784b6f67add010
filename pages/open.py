"""Open: choose base and tuned, and see what will happen to every tensor."""

from dgviz.app.navigation import show

show("open")
