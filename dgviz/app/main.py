"""The dashboard's one main script, from wherever it is started."""

from dgviz.app.frame import run_app

run_app()
