"""What answers at the address of a former page: it leads on to the place that has what the page showed."""

import streamlit as st

from dgviz.app.frame import enter_page
from dgviz.app.navigation import MOVED, page
from dgviz.app.state import change_view


def draw(name: str) -> None:
    """Offer to lead on: who has been led on already, and comes back by the browser's Back, may go back further."""
    place, changes = MOVED[name]
    enter_page(name.capitalize())
    st.markdown("What this page showed has moved.")
    if st.button(f"Go to {page(place).title}", icon=page(place).icon):
        change_view(**changes)
        st.switch_page(page(place))
