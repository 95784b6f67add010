"""The only place that imports Streamlit: state, URL, cached wrappers and the Figure 4 component."""
