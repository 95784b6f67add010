"""The dashboard: ``streamlit run app.py``."""

from dgviz.app.frame import run_app

run_app()
