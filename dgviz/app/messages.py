"""Errors on a page."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from dgviz.errors import DgvizError
from dgviz.jobs import RemoteError, Superseded, WorkerDied


def show_error(error: Exception) -> None:
    """Print an error's sentence, not as Markdown: names may hold any character."""
    with st.container(border=True):
        st.markdown(":red[:material/error: **This did not work**]")
        st.text(str(error))


@contextmanager
def answered() -> Iterator[None]:
    """Stop the page with a sentence when the worker cannot answer, quietly when a newer run of it has taken over."""
    try:
        yield
    except Superseded:
        st.stop()
    except (DgvizError, WorkerDied, RemoteError, OSError) as error:
        show_error(error)
        st.stop()
