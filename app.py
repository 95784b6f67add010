"""The dashboard: ``streamlit run app.py``."""

from dgviz.ui.frame import run_app

run_app()
